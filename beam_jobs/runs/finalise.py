"""The end of a run, when all its parts are committed: ids settled, COCO files written, sums made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from beam_jobs import storage
from beam_jobs.errors import JobError
from beam_jobs.formats.coco_ids import ImageIds
from beam_jobs.formats.tables import STEPS
from beam_jobs.runs import layout
from beam_jobs.runs.clips import annotated_clips
from beam_jobs.runs.coco_files import coco_files, each_table, write_coco_file
from beam_jobs.runs.ids import Claim, proposed_id
from beam_jobs.runs.manifest import DetectorRecord
from beam_jobs.runs.parts import Counts, FileRecord, PartRecord, committed_records, file_records
from beam_jobs.runs.plan import PARTS_A_SLICE, Plan, Renamed
from beam_jobs.runs.record_ids import settle_records


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to, from its parts alone: wherever they were made.

    Args:
        work_s: seconds of all detector processes together, by step.
        known_image_ids: pictures whose id is that of `--image_ids`; None without it.
        annotated_clips: annotated videos; None where nothing is drawn.
    """

    counts: Counts
    renamed: list[Renamed]
    detector: DetectorRecord
    work_s: dict[str, float]
    files: list[FileRecord]
    known_image_ids: int | None
    annotated_clips: int | None


def finalise(root: str, plan: Plan, attempt: str, others: Iterable[tuple[str, int, int]] = ()) -> Outcome:
    """Settles the ids of records, writes the COCO files, adds up. May be done again after it was interrupted.

    Args:
        attempt: of the start that does it.
        others: name, frame and image id of pictures of earlier runs, whose ids records may not have.

    Raises:
        JobError: a part is not committed.
    """
    records = _records(root, plan)
    renamed = list(plan.renamed)
    if any(record.counts.containers for record in records):
        renamed += settle_records(root, records, others, layout.mark(root, attempt))
        records = _records(root, plan)
    counts = Counts()
    for record in records:
        counts.add(record.counts)
    tables = _as_they_are(root, [file for record in records for file in record.files])
    written = [write_coco_file(root, file) for file in coco_files(root, tables, counts, plan.job)]
    detector, work_s = _times(root, tables)
    clips = list(annotated_clips(root, records)) if plan.job["annotation"] else None
    files = [*tables, *written, *(clips or ()), *_plan_files(root, plan, records)]
    known = _known_image_ids(root, tables)
    return Outcome(counts, renamed, detector, work_s, files, known, None if clips is None else len(clips))


def _records(root: str, plan: Plan) -> list[PartRecord]:
    records = committed_records(root)
    missing = set(range(len(plan.parts))) - {record.part for record in records}
    if missing:
        raise JobError(
            f"{storage.display_name(root)} has no records of {len(missing)} of its {len(plan.parts)} parts: somebody"
            " has deleted them. --resume does these parts again."
        )
    return records


def _known_image_ids(root: str, tables: Sequence[FileRecord]) -> int | None:
    path = storage.join(root, layout.IMAGE_IDS)
    if not storage.exists(path):
        return None
    image_ids = ImageIds.load(path)
    known = 0
    for table in each_table(root, tables, "images"):
        for name, image_id in zip(table["file_name"].to_pylist(), table["image_id"].to_pylist(), strict=True):
            proposal = proposed_id(name, 0, image_ids)
            known += proposal.claim != Claim.DIGEST and proposal.image_id == image_id
    return known


def _as_they_are(root: str, files: Sequence[FileRecord]) -> list[FileRecord]:
    """Of two attempts at a part, the record may be one's and the file of times another's; the rest is alike."""
    timings = [file for file in files if file.path.startswith("timings/")]
    now = file_records(root, [file.path for file in timings], [file.rows for file in timings])
    return [next(now) if file.path.startswith("timings/") else file for file in files]


def _times(root: str, files: Sequence[FileRecord]) -> tuple[DetectorRecord, dict[str, float]]:
    processes: set[str] = set()
    loads = shrunk = 0
    largest = 0
    sums = dict.fromkeys(STEPS, 0.0)
    for table in each_table(root, files, "timings"):
        processes.update(pc.unique(table["process"]).to_pylist())
        loads += pc.sum(pc.greater(table["load_ms"], 0)).as_py() or 0
        shrunk += pc.sum(table["shrunk_calls"]).as_py() or 0
        largest = max(largest, pc.max(table["call_pictures"]).as_py() or 0)
        for step in STEPS:
            sums[step] += (pc.sum(table[f"{step}_ms"]).as_py() or 0.0) / 1e3
    load_s = round(sums["load"] / loads, 3) if loads else 0.0
    work_s = {step: round(seconds, 3) for step, seconds in sums.items()}
    return DetectorRecord(len(processes), loads, load_s, largest, shrunk), work_s


def _plan_files(root: str, plan: Plan, records: Sequence[PartRecord]) -> Iterator[FileRecord]:
    slices = -(-len(plan.parts) // PARTS_A_SLICE)
    paths = [layout.PLAN, *map(layout.plan_slice, range(slices)), *(record.path for record in records)]
    paths += [
        path
        for path in (layout.LAUNCH, layout.IMAGE_IDS, layout.SUPERSEDED)
        if storage.exists(storage.join(root, path))
    ]
    return file_records(root, paths)
