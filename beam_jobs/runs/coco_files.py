"""The COCO files of a run, made of its tables: to write them, and to see whether they are still what the tables say."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, cast

import pyarrow as pa

from beam_jobs import storage
from beam_jobs.formats import coco
from beam_jobs.runs import layout
from beam_jobs.runs.parts import Counts, FileRecord, read_tables


@dataclass(frozen=True, slots=True)
class CocoFile:
    """A file that is made by streaming over the tables.

    Args:
        path: relative to the run's folder.
        write: writes its bytes, and returns the number of its rows.
    """

    path: str
    write: Callable[[BinaryIO], int]

    def record(self, out: BinaryIO | None = None) -> FileRecord:
        """Makes the file, into `out` if there is one."""
        hashing = _Hashing(out)
        rows = self.write(cast(BinaryIO, hashing))
        return FileRecord(self.path, rows, hashing.size, hashing.digest.hexdigest())


def coco_files(root: str, tables: Sequence[FileRecord], counts: Counts, job: Mapping[str, Any]) -> list[CocoFile]:
    """The COCO files that a run has: the results, masks and keypoints alone if there are such, and the data set.

    Args:
        tables: the files of the run's tables, in order.
        job: the job of the run's plan: its `model`, and `categories`, names by id; ids without one are named by number.
    """

    def detections() -> Iterator[pa.Table]:
        return each_table(root, tables, "detections")

    kinds: list[tuple[str, coco.Results]] = [(layout.COCO_DETECTIONS, coco.results)]
    if counts.masks:
        kinds.append((layout.COCO_MASKS, coco.mask_results))
    if counts.keypoints:
        kinds.append((layout.COCO_KEYPOINTS, coco.keypoint_results))
    results = [CocoFile(path, partial(coco.write_results, tables=detections(), kind=kind)) for path, kind in kinds]
    named = {int(category_id): name for category_id, name in job["categories"].items()}
    classes = {**{int(i): i for i in counts.unnamed_category_ids}, **named}
    dataset = partial(
        coco.write_dataset,
        info=coco.Info(f"Pictures seen by {job['model']}, beam-detect", "1.0"),
        categories=classes,
        tables=each_table(root, tables, "images"),
        people=counts.keypoints > 0 and any(map(coco.have_people, detections())),
    )
    return [*results, CocoFile(layout.COCO_DATASET, dataset)]


def each_table(root: str, files: Sequence[FileRecord], table: str) -> Iterator[pa.Table]:
    """The files of a table, one after another."""
    return read_tables(root, (file.path for file in files if file.path.startswith(f"{table}/")))


def write_coco_file(root: str, file: CocoFile) -> FileRecord:
    """Writes a file below `root`."""
    with storage.atomic_writer(storage.join(root, file.path)) as out:
        return file.record(out)


class _Hashing(io.RawIOBase):
    """Passes bytes on, if somebody takes them, and knows their number and sha256."""

    def __init__(self, out: BinaryIO | None) -> None:
        self._out = out
        self.size = 0
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self.size += len(data)
        self.digest.update(data)
        if self._out is not None:
            self._out.write(data)
        return len(data)
