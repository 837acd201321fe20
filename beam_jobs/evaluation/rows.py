"""Rows of truth and results as the dictionaries of COCO's JSON, which both engines take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats.evaluated import IouType

#: COCO's keypoints: 17, each x, y, v. Their tolerances are part of COCO's parameters, so there are no others.
_KEYPOINT_NUMBERS = 17 * 3

_DECODER = msgspec.json.Decoder()


def truths_of(iou_type: IouType, objects: pa.Table, categories: NDArray[np.int64]) -> list[dict[str, Any]]:
    """COCO annotations of rows of `TRUTH_OBJECTS`, without `id`, with the categories int64 [N] given.

    Raises:
        ValueError: a truth without a mask in `segm`, or with other than 17 keypoints in `keypoints`.
    """
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
        for truth, mask, number in zip(truths, _masks(objects), objects["truth_id"].to_pylist(), strict=True):
            if mask is None:
                raise ValueError(f"truth {number} has no segmentation")
            truth["segmentation"] = mask
    elif iou_type == "keypoints":
        lists = objects["keypoints"].to_pylist()
        for truth, points, number in zip(truths, lists, objects["truth_id"].to_pylist(), strict=True):
            # COCO's files give crowds 51 zeros; left out, they mean the same.
            points = [0.0] * _KEYPOINT_NUMBERS if points is None else points
            if len(points) != _KEYPOINT_NUMBERS:
                raise ValueError(f"truth {number} has {len(points)} numbers as keypoints, not {_KEYPOINT_NUMBERS}")
            truth["keypoints"] = points
    return truths


def results_of(iou_type: IouType, results: pa.Table, categories: NDArray[np.int64]) -> list[dict[str, Any]]:
    """COCO results of rows of `RESULTS`, with the categories int64 [N] given.

    In `segm` and `keypoints` a box of NaN is left out, for the area to be taken from the mask or the keypoints.

    Raises:
        ValueError: results with and without a box (one alone decides in pycocotools how all are read), neither a mask
            nor a box in `segm`, or other than 17 keypoints in `keypoints`.
    """
    columns = (results[name].to_pylist() for name in ("image_id", "score"))
    found: list[dict[str, Any]] = [
        {"image_id": image, "category_id": category, "score": score}
        for image, score, category in zip(*columns, categories.tolist(), strict=True)
    ]
    boxes = _boxes(results)
    given = np.full(len(boxes), True) if iou_type == "bbox" else ~np.isnan(boxes).all(axis=1)
    if given.any() and not given.all():
        raise ValueError("some results have a box and some have none")
    if given.any():
        for result, box in zip(found, boxes.tolist(), strict=True):
            result["bbox"] = box
    if iou_type == "segm":
        for result, mask in zip(found, _masks(results), strict=True):
            if mask is not None:
                result["segmentation"] = mask
            elif "bbox" not in result:
                raise ValueError(f"a result of image {result['image_id']} has neither segmentation nor bbox")
    elif iou_type == "keypoints":
        for result, points in zip(found, results["keypoints"].to_pylist(), strict=True):
            if points is None or len(points) != _KEYPOINT_NUMBERS:
                count = "no" if points is None else len(points)
                raise ValueError(
                    f"a result of image {result['image_id']} has {count} numbers as keypoints, not {_KEYPOINT_NUMBERS}"
                )
            result["keypoints"] = points
    return found


def _boxes(rows: pa.Table) -> NDArray[np.float64]:
    """float64 [N, 4]: x, y, width, height."""
    return np.column_stack([rows[name].to_numpy() for name in ("x", "y", "width", "height")])


def _masks(rows: pa.Table) -> Iterator[Any]:
    return (None if text is None else _DECODER.decode(text) for text in rows["segmentation"].to_pylist())
