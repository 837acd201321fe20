"""Parquet files with the columns of a run's detections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.formats.coco_faults import FaultError, check_boxes, refusal
from beam_jobs.formats.result_tables import WHAT, results_table
from beam_jobs.records import MAX_IMAGE_ID

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_NEEDED = {"image_id": pa.int64(), "category_id": pa.int32(), "score": pa.float64()}


def read_parquet_results(path: str) -> tuple[pa.Table, pa.ChunkedArray | None]:
    """The results of a Parquet file, and its file names, if it has them."""
    present = check_columns(path)
    table = read_columns(path, [*_NEEDED, *_SIDES, *(["file_name"] if "file_name" in present else [])])
    image_ids, category_ids, scores = (values(path, table, name, kind) for name, kind in _NEEDED.items())
    xmin, ymin, xmax, ymax = (values(path, table, name, pa.float64()) for name in _SIDES)
    boxes = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1)
    try:
        check_boxes(boxes, "row ", lambda at: f"image_id {image_ids[at]}")
        if np.isnan(scores).any():
            at = int(np.argmax(np.isnan(scores)))
            raise FaultError(f"row [{at}] (image_id {image_ids[at]}): the score is NaN", "correct it or leave it out")
        for name, ids in (("image_id", image_ids), ("category_id", category_ids)):
            bad = (ids < 0) | (ids >= MAX_IMAGE_ID)
            if bad.any():
                at = int(np.argmax(bad))
                raise FaultError(f"row [{at}]: {name} is {ids[at]}", "ids are 0 to 2^53 - 1")
    except FaultError as fault:
        raise refusal(WHAT, path, fault.what, fault.remedy) from fault
    return results_table(image_ids, category_ids, boxes, scores), table["file_name"] if "file_name" in present else None


def values(path: str, table: pa.Table, name: str, kind: pa.DataType) -> NDArray[Any]:
    """A column as numbers of a kind; `UsageError` when it has nulls or values of another kind."""
    column = table[name]
    if column.null_count:
        raise refusal(WHAT, path, f"the column {name} has {column.null_count:,} nulls", "write a value in every row")
    try:
        numbers: NDArray[Any] = column.cast(kind).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise refusal(WHAT, path, f"the column {name} is {column.type}: {error}", f"write it as {kind}") from error
    return numbers


def check_columns(path: str) -> set[str]:
    """The columns of a Parquet file, if those that are needed are there."""
    with _opened(path) as file:
        present = set(file.schema_arrow.names)
    missing = [name for name in (*_NEEDED, *_SIDES) if name not in present]
    if missing:
        raise refusal(
            WHAT,
            path,
            f"it has no column {', '.join(missing)}; it has {', '.join(sorted(present)[:8])}",
            f"needed are {', '.join((*_NEEDED, *_SIDES))} (pixels), and file_name where ids are not the ground truth's",
        )
    return present


def read_columns(path: str, names: Sequence[str]) -> pa.Table:
    """Columns of a Parquet file; `UsageError` when it cannot be read."""
    with _opened(path) as file:
        # In this thread: see `runs.parts.read_table`.
        return file.read(columns=list(names), use_threads=False)


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open_read(path) as stream, pq.ParquetFile(stream) as file:
            yield file
    except (OSError, pa.ArrowException) as error:
        reason = storage.reason(error) if isinstance(error, OSError) else str(error)
        raise refusal(WHAT, path, f"it cannot be read as Parquet: {reason}", "write or copy it again") from error
