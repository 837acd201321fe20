"""A part: the slice of the plan that is committed, resumed and counted as one."""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs import storage
from beam_jobs.errors import JobError
from beam_jobs.formats.rows import Gathered
from beam_jobs.formats.tables import DICTIONARY_COLUMNS, TABLES, written
from beam_jobs.formats.track_rows import tracks_of, with_track_ids
from beam_jobs.runs import layout
from beam_jobs.runs.documents import decode_document, read_document
from beam_jobs.runs.launch import Launch, check_attempt
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.plan import PlannedInput
from beam_jobs.tracking.tracker import Tracking
from beam_jobs.words import counted


class FileRecord(msgspec.Struct, frozen=True):
    """A file of a run; `path` is relative to the run's folder, `rows` None where it has none."""

    path: str
    rows: int | None
    bytes: int
    sha256: str


class Counts(msgspec.Struct):
    """Sums over a part, or a run. None but those of live streams depends on how the work was divided.

    Args:
        inputs: pictures, records and frames that were there to do: planned inputs, each TFRecord file counted as its
            records, each clip as its frames that were chosen.
        tfrecord_files: the files among the planned inputs that turned out to be TFRecord files.
        images: rows of `images`.
        failures: rows of `failures`, by code.
        images_with_detections: pictures in which something was found.
        detections: rows of `detections`.
        masks, keypoints: those of them that have such.
        annotated: annotated pictures.
        tracks: rows of `tracks`.
        empty_boxes: boxes that had no area inside the picture, and were left out.
        unnamed_category_ids: detections whose class id the label map does not name, by id.
        deduplicated: inputs whose rows are those of another with the same content, which alone was detected on.
        clips: the files among the planned inputs that turned out to be clips.
        sequential_clips: those of them whose frames could be numbered only as they were decoded, in one go.
        clips_without_frames: those of them of which no frame was chosen.
        streams: the live streams among the planned inputs.
        dropped_frames: frames of these that came while the detector was at work on others, and were left.
        reopened_streams: how often such a stream broke off, and could be opened again.
    """

    inputs: int = 0
    tfrecord_files: int = 0
    images: int = 0
    failures: dict[str, int] = {}
    images_with_detections: int = 0
    detections: int = 0
    masks: int = 0
    keypoints: int = 0
    annotated: int = 0
    tracks: int = 0
    empty_boxes: int = 0
    unnamed_category_ids: dict[str, int] = {}
    deduplicated: int = 0
    clips: int = 0
    sequential_clips: int = 0
    clips_without_frames: int = 0
    streams: int = 0
    dropped_frames: int = 0
    reopened_streams: int = 0

    def add(self, other: Counts) -> None:
        """Adds the counts of `other`."""
        for name in self.__struct_fields__:
            mine, more = getattr(self, name), getattr(other, name)
            setattr(self, name, mine + more if isinstance(mine, int) else _sum(mine, more))

    @property
    def containers(self) -> int:
        """Files that gave images of their own names."""
        return self.tfrecord_files + self.clips + self.streams

    @property
    def failed(self) -> int:
        """Rows of `failures`."""
        return sum(self.failures.values())


def _sum(mine: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return dict(sorted((Counter(mine) + Counter(more)).items()))


#: Images in a file of a table, at most, or as many as a part has inputs: who reads a file reads no more than this,
#: however many frames and records the inputs have.
FILE_IMAGES = 2_000


class PartRecord(msgspec.Struct, frozen=True):
    """`_plan/parts/part-*.json`: the part is committed; these are its files.

    Args:
        mark: in their names, and in that of the record; see `layout.mark`.
    """

    part: int
    counts: Counts
    files: list[FileRecord]
    mark: str = ""

    @property
    def path(self) -> str:
        """Its own, relative to the run's folder."""
        return layout.part_record(self.part, self.mark)

    def write(self, root: str) -> None:
        """Commits the part."""
        storage.write_atomic(storage.join(root, self.path), msgspec.json.encode(self))

    def files_of(self, table: str) -> list[FileRecord]:
        """The files of a table, in the order of its rows."""
        folder = layout.part_table(table, self.part).rpartition("/")[0]
        return [file for file in self.files if file.path.rpartition("/")[0] == folder]

    @staticmethod
    def read(root: str, path: str) -> PartRecord:
        """The record of a part that is committed. Raises as `read_document` does."""
        return read_document(root, path, PartRecord)


def committed(root: str) -> dict[int, str]:
    """The paths of the records of the parts that are committed.

    In a bucket there may be several of a part. Those of a start that is none of the run's, since it lost it to another
    one, are not its; of the others the last start's is.
    """
    try:
        names = storage.list_dir(storage.join(root, layout.PARTS_FOLDER))
    except FileNotFoundError:
        return {}
    marks = [""]
    if storage.is_remote(root):
        marks += [layout.mark(root, attempt) for attempt in Launch.read(root).attempts]
    found: dict[int, str] = {}
    for path in sorted(f"{layout.PARTS_FOLDER}/{name}" for name in names):
        part, mark = layout.part_of(path), layout.mark_of(path)
        if part is None or mark not in marks:
            continue
        if part not in found or marks.index(mark) > marks.index(layout.mark_of(found[part])):
            found[part] = path
    return dict(sorted(found.items()))


def committed_records(root: str) -> list[PartRecord]:
    """The records of the parts that are committed, in their order. Raises as `read_document` does."""
    paths = committed(root).values()
    contents = storage.read_each(root, paths)
    return [decode_document(root, path, data, PartRecord) for path, data in zip(paths, contents, strict=True)]


def commit_part(
    root: str,
    part: int,
    planned: Sequence[PlannedInput],
    encoded: Iterable[bytes],
    log: RunLog,
    attempt: str = "",
    tracking: Tracking | None = None,
) -> PartRecord:
    """Writes the tables of a part, then the record that it is committed. The same bytes on every try.

    A part that is committed stays as it is: a runner may try again what it only thought to be lost.

    Args:
        planned: the inputs of the part.
        encoded: the encoded rows of all its groups, in any order.
        log: hears of its failures, and that it is committed.
        attempt: of the start that does it; see `check_attempt`.
        tracking: how the objects of its clips are tracked; None for not at all.

    Raises:
        JobError: the rows do not account for every input exactly once, or another start has taken the run over.
    """
    check_attempt(root, attempt)
    mark = layout.mark(root, attempt)
    if storage.exists(storage.join(root, path := layout.part_record(part, mark))):
        return PartRecord.read(root, path)
    rows = Gathered(encoded)
    counts = _account(part, planned, rows)
    files = _write_tables(root, part, mark, rows, tracking, max(FILE_IMAGES, len(planned)))
    counts.tracks = sum(file.rows or 0 for file in files if file.path.startswith("tracks/"))
    record = PartRecord(part, counts, files, mark)
    try:
        check_attempt(root, attempt)
    except JobError:
        if mark:  # the run may be whole by now: who reads its folder is to find nothing of ours
            for file in files:
                with suppress(FileNotFoundError):  # the other's end may have been quicker
                    storage.remove(storage.join(root, file.path))
        raise
    record.write(root)
    for row in rows.tables["failures"].to_pylist():
        about = {name: row[name] for name in ("file_name", "frame", "attempts")}
        log.warning(row["stage"], row["code"], row["message"], input=row["uri"], part=part, **about)
    _log_changed(planned, rows.tables["images"], part, log)
    summary = f"Part {part}: {counted(counts.images, 'picture')}, {counted(counts.failed, 'failure')}."
    log.info("write", "committed", summary, part=part, pictures=counts.images, failed=counts.failed)
    return record


def _log_changed(planned: Sequence[PlannedInput], images: pa.Table, part: int, log: RunLog) -> None:
    """Notes files that were of another size when they were read than when they were planned."""
    sizes = {one.input: one.size for one in planned}
    columns = (images[name].to_pylist() for name in ("input", "record", "video", "bytes", "uri"))
    for position, record, video, read, uri in zip(*columns, strict=True):
        size = sizes[position]
        if record < 0 and video is None and size is not None and size != read:
            message = f"The file had {size} bytes when it was planned, and {read} when it was read."
            log.warning("read", "changed", message, input=uri, part=part)


def _write_tables(
    root: str, part: int, mark: str, rows: Gathered, tracking: Tracking | None, file_images: int
) -> list[FileRecord]:
    """Writes the tables of a part; those with a row for each image, or more, in files of so many images each."""
    images = rows.tables["images"]
    tracks = None
    if tracking:
        tracks = tracks_of(images, rows.detections, tracking, file_images)
    files: dict[str, list[FileRecord]] = {name: [] for name in (*TABLES, "annotated", "tracks")}

    def write(name: str, table: pa.Table, number: int = 0) -> None:
        path = layout.part_table(name, part, number, mark)
        files[name].append(write_table(root, path, table, DICTIONARY_COLUMNS[name]))

    firsts = np.cumsum([0, *images["num_detections"].to_pylist()])
    for number, begin in enumerate(range(0, max(images.num_rows, 1), file_images)):
        end = min(begin + file_images, images.num_rows)
        detections = written("detections", rows.detections(begin, end))
        if tracks is not None:
            detections = with_track_ids(detections, tracks.ids[firsts[begin] : firsts[end]])
        write("images", written("images", images.slice(begin, end - begin)), number)
        write("detections", detections, number)
        write("timings", written("timings", rows.tables["timings"].slice(begin, end - begin)), number)
    write("failures", written("failures", rows.tables["failures"]))
    if rows.tables["annotated"].num_rows:
        write("annotated", written("annotated", rows.tables["annotated"]))
    if tracks is not None:
        write("tracks", tracks.table)
    return [file for of_table in files.values() for file in of_table]


def file_record(root: str, path: str, rows: int | None = None) -> FileRecord:
    """The record of a file that is there."""
    return _record_of(path, rows, storage.read_bytes(storage.join(root, path)))


def file_records(root: str, paths: Sequence[str], rows: Sequence[int | None] | None = None) -> Iterator[FileRecord]:
    """The records of files that are there, in order."""
    counts = [None] * len(paths) if rows is None else rows
    return map(_record_of, paths, counts, storage.read_each(root, paths))


def _record_of(path: str, rows: int | None, data: bytes) -> FileRecord:
    return FileRecord(path, rows, len(data), hashlib.sha256(data).hexdigest())


def write_table(root: str, path: str, table: pa.Table, dictionary_columns: Iterable[str]) -> FileRecord:
    """Writes a Parquet file below `root`; the same table gives the same bytes on the same version of pyarrow."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", use_dictionary=list(dictionary_columns))
    data = sink.getvalue()
    storage.write_atomic(storage.join(root, path), data)
    return _record_of(path, table.num_rows, data)


def read_table(root: str, path: str) -> pa.Table:
    """A Parquet file below `root`."""
    return _table_of(storage.read_bytes(storage.join(root, path)))


def read_tables(root: str, paths: Iterable[str]) -> Iterator[pa.Table]:
    """Parquet files below `root`, in order."""
    return map(_table_of, storage.read_each(root, paths))


def _table_of(data: bytes) -> pa.Table:
    # In this thread: one of Arrow's may still hold our bytes when the interpreter ends, and then aborts the program.
    # Buffering ahead, which is Arrow's default, starts such a thread whatever `use_threads` says.
    return pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read(use_threads=False)


def _account(part: int, planned: Sequence[PlannedInput], rows: Gathered) -> Counts:
    """The counts of a part, after a look that every input left exactly once: as an image or as a failure."""
    tables = rows.tables
    frames: dict[int, list[int]] = defaultdict(list)
    for span in tables["spans"].to_pylist():
        frames[span["input"]] = []
    seen: Counter[tuple[int, int]] = Counter()
    for name in ("images", "failures"):
        table = tables[name].select(["input", "record", "frame"])
        for input, record, frame in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if input in frames:
                frames[input].append(frame)
            else:
                seen[input, record] += 1
    records = dict(
        zip(tables["containers"]["input"].to_pylist(), tables["containers"]["records"].to_pylist(), strict=True)
    )
    due: Counter[tuple[int, int]] = Counter()
    for one in planned:
        if one.input not in frames:
            places = range(records[one.input]) if one.input in records else (-1,)
            due.update((one.input, record) for record in places)
    of_clips = _account_frames(tables["spans"], frames)
    total = due.total() + of_clips.due
    missing, extra = (due - seen).total() + of_clips.missing, (seen - due).total() + of_clips.extra
    if missing or extra or not frames.keys() <= {one.input for one in planned}:
        raise JobError(
            f"Part {part} does not add up: {total} inputs, of which {missing} have no row, and {extra} rows too"
            " many. Nothing of it was written. Please report this."
        )
    failures = Counter(tables["failures"]["code"].to_pylist())
    found = tables["images"]["num_detections"].to_pylist()
    prefix = "category:"
    unnamed = {name.removeprefix(prefix): n for name, n in rows.counters.items() if name.startswith(prefix)}
    # Copies of files with records or frames are done as the others are.
    compared = [one for one in planned if one.input not in records and one.input not in frames]
    return Counts(
        inputs=total,
        tfrecord_files=len(records),
        images=len(found),
        failures=dict(sorted(failures.items())),
        images_with_detections=sum(count > 0 for count in found),
        detections=sum(found),
        masks=rows.given["mask"],
        keypoints=rows.given["keypoints"],
        annotated=tables["annotated"].num_rows,
        empty_boxes=rows.counters.get("empty_boxes", 0),
        unnamed_category_ids=dict(sorted(unnamed.items(), key=lambda item: int(item[0]))),
        deduplicated=len(compared) - len({one.first for one in compared}),
        clips=len(frames) - rows.counters.get("streams", 0),
        sequential_clips=rows.counters.get("sequential_clips", 0),
        clips_without_frames=rows.counters.get("clips_without_frames", 0),
        streams=rows.counters.get("streams", 0),
        dropped_frames=rows.counters.get("dropped_frames", 0),
        reopened_streams=rows.counters.get("reopened_streams", 0),
    )


class _Frames(NamedTuple):
    """Frames of clips: how many are due, how many have no row, and how many rows there are too many."""

    due: int
    missing: int
    extra: int


def _account_frames(spans: pa.Table, frames: Mapping[int, Sequence[int]]) -> _Frames:
    """Looks whether the frames that are due of each clip have one row each.

    Which these are only the ranges of a clip know, and each says how many they are. Together they cover all numbers.

    Args:
        frames: the numbers of the rows of each clip.

    Raises:
        JobError: they do not.
    """
    due = missing = extra = 0
    for clip, parts in groupby(spans.to_pylist(), key=lambda span: span["input"]):
        numbers = sorted(frames[clip])
        covered = 0
        for span in parts:
            if span["begin"] != covered:
                raise JobError(f"The ranges of the clip at {clip} in the plan leave out frames. Please report this.")
            covered = span["end"]
            low = bisect_left(numbers, span["begin"])
            some = numbers[low:] if covered < 0 else numbers[low : bisect_left(numbers, covered)]
            due += span["frames"]
            missing += max(0, span["frames"] - len(set(some)))
            extra += len(some) - min(span["frames"], len(set(some)))
        if covered >= 0:
            raise JobError(f"The ranges of the clip at {clip} in the plan leave out its end. Please report this.")
    return _Frames(due, missing, extra)
