"""Rows of truth and results, such as `check_rows` lets pass, as the dictionaries of COCO's JSON."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.evaluation.refusals import KEYPOINT_NUMBERS
from beam_jobs.formats.evaluated import IouType

_DECODER = msgspec.json.Decoder()


def truths_of(iou_type: IouType, objects: pa.Table, categories: NDArray[np.int64]) -> list[dict[str, Any]]:
    """COCO annotations of rows of `TRUTH_OBJECTS`, without `id`, with the categories int64 [N] given."""
    names = ("area", "iscrowd", "num_keypoints")
    columns = (objects[name].to_pylist() for name in ("image_id", *names))
    truths = [
        {
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
            "num_keypoints": visible,
        }
        for image, area, crowd, visible, category, box in zip(
            *columns, categories.tolist(), _boxes(objects).tolist(), strict=True
        )
    ]
    if iou_type == "segm":
        for truth, mask in zip(truths, _masks(objects), strict=True):
            truth["segmentation"] = mask
    elif iou_type == "keypoints":
        for truth, points in zip(truths, objects["keypoints"].to_pylist(), strict=True):
            truth["keypoints"] = [0.0] * KEYPOINT_NUMBERS if points is None else points
    return truths


def results_of(iou_type: IouType, results: pa.Table, categories: NDArray[np.int64]) -> list[dict[str, Any]]:
    """COCO results of rows of `RESULTS`, with the categories int64 [N] given.

    In `segm` and `keypoints` a box of NaN is left out, for the area to be taken from the mask or the keypoints.
    """
    columns = (results[name].to_pylist() for name in ("image_id", "score"))
    found: list[dict[str, Any]] = [
        {"image_id": image, "category_id": category, "score": score}
        for image, score, category in zip(*columns, categories.tolist(), strict=True)
    ]
    boxes = _boxes(results)
    if iou_type == "bbox" or not np.isnan(boxes).all():
        for result, box in zip(found, boxes.tolist(), strict=True):
            result["bbox"] = box
    if iou_type == "segm":
        for result, mask in zip(found, _masks(results), strict=True):
            if mask is not None:
                result["segmentation"] = mask
    elif iou_type == "keypoints":
        for result, points in zip(found, results["keypoints"].to_pylist(), strict=True):
            result["keypoints"] = points
    return found


def _boxes(rows: pa.Table) -> NDArray[np.float64]:
    """float64 [N, 4]: x, y, width, height."""
    return np.column_stack([rows[name].to_numpy() for name in ("x", "y", "width", "height")])


def _masks(rows: pa.Table) -> Iterator[Any]:
    return (None if text is None else _DECODER.decode(text) for text in rows["segmentation"].to_pylist())
