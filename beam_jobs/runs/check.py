"""Whether a finished run is whole: every file as the manifest has it, and all of them telling the same."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.formats.tables import ANNOTATED, PUBLIC_TABLES, TABLES
from beam_jobs.runs import layout
from beam_jobs.runs.check_tables import detections_of, pictures_of, tracks_of
from beam_jobs.runs.coco_files import coco_files
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.parts import Counts, FileRecord, PartRecord, read_table
from beam_jobs.runs.plan import Plan, read_part

_CHUNK = 1 << 20
#: Folders in which a run has nothing but what the manifest lists.
_OWN = (*PUBLIC_TABLES, "coco", layout.EVALUATION_FOLDER, "superseded")


@dataclass(slots=True)
class _Seen:
    """What was met on the way through the tables."""

    counts: Counts = field(default_factory=Counts)
    image_ids: list[NDArray[np.int64]] = field(default_factory=list)


def check_run(root: str) -> Iterator[str]:
    """Problems of a finished run, each a sentence without its full stop; none if it is whole.

    Files that are not what the manifest says are not looked into.

    Raises:
        UsageError: there is no finished run in `root`.
    """
    manifest = Manifest.read(root)
    damaged: set[str] = set()
    for file in manifest.files:
        for problem in _file_problems(root, file):
            damaged.add(file.path)
            yield f"{file.path} {problem}"
    yield from _marks(root, manifest)
    yield from _strangers(root, manifest)
    if layout.PLAN not in {file.path for file in manifest.files}:
        yield f"the manifest has no {layout.PLAN}"
        return
    if layout.PLAN in damaged:
        return
    plan = Plan.read(root)
    seen = _Seen()
    sound = not damaged
    for problem in _tables(root, manifest, plan, damaged, seen):
        sound = False
        yield problem
    if sound:  # else they would only say it again
        yield from _sums(manifest, plan, seen.counts)
        yield from _coco(root, manifest, plan)


def _tables(root: str, manifest: Manifest, plan: Plan, damaged: set[str], seen: _Seen) -> Iterator[str]:
    listed = {file.path for file in manifest.files}
    records = {layout.part_of(path): path for path in listed if path.startswith(f"{layout.PARTS_FOLDER}/")}
    for part, planned in enumerate(plan.parts):
        of_part = {path for path in damaged if layout.part_of(path) == part}
        if of_part or part not in records:
            yield f"part {part} ({planned:,} inputs) is not looked into: " + (
                f"{', '.join(sorted(of_part))} is damaged"
                if of_part
                else f"the manifest has no {layout.part_record(part)}"
            )
            continue
        yield from (f"part {part}: {problem}" for problem in _part(root, records[part], listed, seen))
    yield from _ids(seen.image_ids)


def _file_problems(root: str, file: FileRecord) -> Iterator[str]:
    path = storage.join(root, file.path)
    digest, size = hashlib.sha256(), 0
    try:
        with storage.open_read(path) as data:
            while chunk := data.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        yield f"cannot be read: {storage.reason(error)}"
        return
    if size != file.bytes:
        yield f"has {size:,} bytes; the manifest says {file.bytes:,}"
    elif digest.hexdigest() != file.sha256:
        yield f"has other content than when the manifest was written: sha256 {digest.hexdigest()}"


def _marks(root: str, manifest: Manifest) -> Iterator[str]:
    marked = storage.exists(storage.join(root, layout.SUCCESS))
    if marked != (manifest.status == "succeeded"):
        there = "is there" if marked else "is missing"
        yield f"{layout.SUCCESS} {there}, and {layout.MANIFEST} says that the run {manifest.status}"


def _strangers(root: str, manifest: Manifest) -> Iterator[str]:
    """Files that a reader of a whole folder would take for the run's."""
    listed = {file.path for file in manifest.files}
    for folder in _OWN:
        try:
            names = storage.list_dir(storage.join(root, folder))
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            if f"{folder}/{name}" not in listed:
                left = ", which a killed writer left" if name.startswith(storage.TEMP_PREFIX) else ""
                yield f"{folder}/{name} is not in the manifest{left}"


def _part(root: str, path: str, listed: set[str], seen: _Seen) -> Iterator[str]:
    """Problems of a part, whose files are as the manifest has them."""
    try:
        record = PartRecord.read(root, path)
    except (OSError, UsageError) as error:
        yield f"its record cannot be read: {error}"
        return
    seen.counts.add(record.counts)
    for file in record.files:
        if file.path not in listed:
            yield f"{file.path} is not in the manifest"
            return
    found: dict[str, list[pa.Table]] = defaultdict(list)
    for file in record.files:
        name = file.path.split("/")[-2]
        table = read_table(root, file.path)
        if table.num_rows != file.rows:
            yield f"{file.path} has {table.num_rows:,} rows; its record says {file.rows:,}"
        if not table.schema.equals(PUBLIC_TABLES.get(name, ANNOTATED), check_metadata=True):
            yield f"{file.path} has another schema than beam-detect's table {name}"
            return
        found[name].append(table)
    tables = {name: pa.concat_tables(some).combine_chunks() for name, some in found.items()}
    seen.image_ids.append(tables["images"]["image_id"].to_numpy())
    yield from _counts(record.counts, tables)
    yield from _inputs(root, record.part, tables, record.counts)
    yield from pictures_of(tables)
    yield from detections_of(tables)
    yield from tracks_of(tables)
    if "annotated" in tables:
        for row in tables["annotated"].to_pylist():
            file = FileRecord(row["path"], None, row["bytes"], row["sha256"])
            yield from (f"{file.path} {problem}" for problem in _file_problems(root, file))


def _counts(counts: Counts, tables: dict[str, pa.Table]) -> Iterator[str]:
    annotated = tables["annotated"].num_rows if "annotated" in tables else 0
    detections = tables["detections"]
    for name, has, said in (
        ("images", tables["images"].num_rows, counts.images),
        ("failures", tables["failures"].num_rows, counts.failed),
        ("images and failures", tables["images"].num_rows + tables["failures"].num_rows, counts.inputs),
        ("detections", detections.num_rows, counts.detections),
        ("masks", len(detections) - detections["mask"].null_count, counts.masks),
        ("keypoints", len(detections) - detections["keypoints"].null_count, counts.keypoints),
        ("annotated pictures", annotated, counts.annotated),
        ("tracks", tables["tracks"].num_rows if "tracks" in tables else 0, counts.tracks),
    ):
        if has != said:
            yield f"{has:,} {name}; its record counts {said:,}"


def _inputs(root: str, part: int, tables: dict[str, pa.Table], counts: Counts) -> Iterator[str]:
    """Each input once: as a picture or as a failure; only TFRecord files and clips may have another number of rows."""
    rows: Counter[str] = Counter()
    for name in ("images", "failures"):
        rows.update(tables[name]["uri"].to_pylist())
    planned = Counter(storage.display_name(one.key.uri) for one in read_part(root, part))
    for uri in rows.keys() - planned.keys():
        # A record's uri is that of its file, a frame's that of its clip.
        yield f"{uri} has rows, and is not an input of the plan"
    others = [uri for uri, times in planned.items() if rows[uri] != times]
    if len(others) > counts.containers:
        shown = ", ".join(others[:3]) + (" …" if len(others) > 3 else "")
        yield (
            f"{len(others):,} inputs are not there exactly once, and only {counts.containers:,} are TFRecord files"
            f" or clips: {shown}"
        )


def _ids(parts: Sequence[NDArray[np.int64]]) -> Iterator[str]:
    if not parts:
        return
    ids = np.sort(np.concatenate(parts))
    repeated = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if len(repeated):
        yield f"{len(repeated):,} image ids are those of several pictures, as {repeated[0]}"


def _sums(manifest: Manifest, plan: Plan, counts: Counts) -> Iterator[str]:
    if manifest.inputs.planned != plan.inputs or sum(plan.parts) != plan.inputs:
        yield f"the plan has {plan.inputs:,} inputs, the manifest {manifest.inputs.planned:,}"
    for name in counts.__struct_fields__:
        said, added = getattr(manifest.counts, name), getattr(counts, name)
        if said != added:
            yield f"counts.{name} of the manifest is {said}; its parts come to {added}"


def _coco(root: str, manifest: Manifest, plan: Plan) -> Iterator[str]:
    tables = [file for file in manifest.files if file.path.split("/")[0] in TABLES]
    for file in coco_files(root, tables, manifest.counts, plan.job):
        made = file.record()
        there = [listed for listed in manifest.files if listed.path == file.path]
        if not there:
            yield f"{file.path} is not in the manifest"
        elif there[0].rows != made.rows:
            yield f"{file.path} has {there[0].rows} entries; the tables give {made.rows}"
        elif there[0].sha256 != made.sha256:
            yield f"{file.path} is not what the tables give, as this version of beam-detect writes it"
