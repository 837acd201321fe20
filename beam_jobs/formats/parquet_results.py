"""Parquet files with the columns of a run's detections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.formats.coco_faults import FaultError, check_boxes, refusal
from beam_jobs.formats.evaluated import IouType
from beam_jobs.formats.result_tables import WHAT, images_of, results_table
from beam_jobs.formats.shapes import evaluated_shapes
from beam_jobs.records import MAX_IMAGE_ID
from beam_jobs.words import counted

_SIDES = ("xmin", "ymin", "xmax", "ymax")
#: The column that is compared.
_SHAPES: Mapping[str, str] = {"segm": "mask", "keypoints": "keypoints"}
_NEEDED = {"image_id": pa.int64(), "category_id": pa.int32(), "score": pa.float64()}


def read_parquet_results(path: str, iou_type: IouType = "bbox") -> tuple[pa.Table, pa.Table]:
    """The results of a Parquet file, rows of `RESULTS`, and its images, rows of `RESULT_IMAGES`.

    In `segm` they are the rows that have a mask, with NaN as their box, so that the area is the mask's as in
    `coco/detections_segm.json`; in `keypoints` those that have keypoints. They keep their numbers among all rows.
    """
    present = check_columns(path)
    shape = _SHAPES.get(iou_type)
    optional = [name for name in ("file_name", shape) if name in present]
    table = read_columns(path, [*_NEEDED, *_SIDES, *optional])
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
        shapes = None if shape is None else evaluated_shapes(table, iou_type)
    except FaultError as fault:
        raise refusal(WHAT, path, fault.what, fault.remedy) from fault
    images = images_of(image_ids, table["file_name"] if "file_name" in present else None)
    if iou_type == "segm":
        boxes[:] = np.nan
    results = results_table(image_ids, category_ids, boxes, scores, shapes)
    if iou_type != "bbox":
        results = results.filter(pc.is_valid(results["segmentation" if iou_type == "segm" else "keypoints"]))
    return results, images


def refuse_shapeless(source: str, paths: Sequence[str], iou_type: IouType) -> None:
    """Refuses Parquet files that have rows but, in `segm`, not one mask; in `keypoints`, no keypoints."""
    shape = _SHAPES.get(iou_type)
    if shape is None:
        return
    rows = 0
    for path in paths:
        given = shape in check_columns(path)
        column = read_columns(path, [shape if given else "image_id"])[0]
        if given and column.null_count < len(column):
            return
        rows += len(column)
    if rows:
        what = "masks" if iou_type == "segm" else "keypoints"
        raise refusal(WHAT, source, f"it has no {what}", f"compare by bbox, or detect with a model that gives {what}")


def values(path: str, table: pa.Table, name: str, kind: pa.DataType) -> NDArray[Any]:
    """A column as numbers of a kind; `UsageError` when it has nulls or values of another kind."""
    column = table[name]
    if column.null_count:
        raise refusal(
            WHAT, path, f"the column {name} has {counted(column.null_count, 'null')}", "write a value in every row"
        )
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
        table = file.read(columns=list(names), use_threads=False)
        if missing := [name for name in names if name not in table.column_names]:
            raise pa.ArrowInvalid(f"its schema has {', '.join(missing)}, and there is no such column")
        return table


@contextmanager
def _opened(path: str) -> Iterator[pq.ParquetFile]:
    try:
        with storage.open_read(path) as stream, pq.ParquetFile(stream, pre_buffer=False) as file:
            yield file
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:  # the last: names of columns
        reason = storage.reason(error) if isinstance(error, OSError) else str(error).rstrip(".")
        raise refusal(WHAT, path, f"it cannot be read as Parquet: {reason}", "write or copy it again") from error
