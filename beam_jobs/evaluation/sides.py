"""The two sides of a matching as columns, in the order in which COCO goes through them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from hotcoco import mask as masks
from numpy.typing import NDArray

from beam_jobs.evaluation.overlaps import Flags, Floats, Ints, Pairs, Spans, box_pairs, keypoint_pairs, mask_pairs
from beam_jobs.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, slots=True)
class Truths:
    """Truths by image and category, in each as in the file. All columns have M rows.

    Args:
        row: int64, in the table they come from.
        image_id, slot: int64; the slot is the category's place among the settings' ids.
        boxes: float64 [M, 4] x, y, width, height.
        area: float64, square pixels.
        iscrowd: bool.
        never: bool, crowds and people without keypoints: of no size does finding or missing them count.
        ignored: bool, those, and in the first area range what is of another size.
    """

    row: Ints
    image_id: Ints
    slot: Ints
    boxes: Floats
    area: Floats
    iscrowd: Flags
    never: Flags
    ignored: Flags

    @staticmethod
    def of(objects: pa.Table, settings: EvaluationSettings) -> Truths:
        """Those rows of `TRUTH_OBJECTS` whose category is evaluated."""
        row, image_id, slot = _chosen(objects, settings)
        order = np.lexsort((slot, image_id))
        row = row[order]
        area, crowd = _column(objects, "area")[row], _column(objects, "iscrowd")[row]
        never = crowd
        if settings.iou_type == "keypoints":
            never = crowd | (_column(objects, "num_keypoints")[row] == 0)
        ignored = never | _outside(area, settings)
        return Truths(row, image_id[order], slot[order], _boxes(objects)[row], area, crowd, never, ignored)


@dataclass(frozen=True, slots=True)
class Detections:
    """Detections by image, category and descending score, ties as in the table. All columns have N rows.

    Args:
        row: int64, in the table they come from.
        image_id, slot: int64; the slot is the category's place among the settings' ids.
        score: float64.
        boxes: float64 [N, 4] x, y, width, height.
        rank: int64, the place in its image and category, from 0.
        outside: bool, of a size that the settings leave out.
    """

    row: Ints
    image_id: Ints
    slot: Ints
    score: Floats
    boxes: Floats
    rank: Ints
    outside: Flags

    @staticmethod
    def of(results: pa.Table, settings: EvaluationSettings) -> Detections:
        """Those rows of `RESULTS` whose category is evaluated. Boxes of NaN are taken from masks or keypoints."""
        row, image_id, slot = _chosen(results, settings)
        score = _column(results, "score")[row]
        order = np.lexsort((-score, slot, image_id))
        row, image_id, slot = row[order], image_id[order], slot[order]
        boxes = _boxes(results)[row]
        for index in np.flatnonzero(np.isnan(boxes).all(axis=1)).tolist() if settings.iou_type != "bbox" else ():
            boxes[index] = _box_of(results, int(row[index]), settings)
        outside = _outside(boxes[:, 2] * boxes[:, 3], settings)
        return Detections(row, image_id, slot, score[order], boxes, places(image_id, slot), outside)


@dataclass(frozen=True, slots=True)
class Sides:
    """Both sides of some images, and what overlaps: see `overlaps`."""

    truths: Truths
    found: Detections
    same: Pairs
    regions: Pairs

    @staticmethod
    def of(images: pa.Table, objects: pa.Table, results: pa.Table, settings: EvaluationSettings) -> Sides:
        """Of rows of `TRUTH_IMAGES`, and all `TRUTH_OBJECTS` and `RESULTS` of these images.

        Raises:
            ValueError: see `overlaps`.
        """
        truths, found = Truths.of(objects, settings), Detections.of(results, settings)
        return Sides(truths, found, *overlaps(images, objects, results, truths, found, settings.iou_type))


def places(*keys: Ints) -> Ints:
    """int64 [N], the place of each row among the neighbours with equal keys, from 0."""
    rows = np.arange(len(keys[0]), dtype=np.int64)
    starts = np.zeros(len(rows), bool)
    starts[:1] = True
    for key in keys:
        starts[1:] |= key[1:] != key[:-1]
    return rows - np.maximum.accumulate(np.where(starts, rows, 0)) if len(rows) else rows


def overlaps(
    images: pa.Table, objects: pa.Table, results: pa.Table, truths: Truths, found: Detections, kind: str
) -> tuple[Pairs, Pairs]:
    """Pairs within the categories, and pairs over all categories with truths that are no crowds.

    The first are by the IoU type `kind`. So are the second, but for keypoints by box: skeletons of two categories
    have nothing in common.

    Raises:
        ValueError: masks or keypoints are missing or cannot be read, or the size of an image that they need.
    """
    spans = Spans.of(found.image_id, truths.image_id)
    if kind == "segm":
        known = {
            number: (height, width)
            for number, width, height in zip(
                *(images[name].to_pylist() for name in ("image_id", "width", "height")), strict=True
            )
        }
        sizes = [known.get(number, (0, 0)) for number in truths.image_id.tolist()]
        drawn, given = _texts(results, found.row, found.boxes), _texts(objects, truths.row, None)
        regions = mask_pairs(drawn, given, sizes, truths.iscrowd, spans, found.image_id)
    else:
        regions = box_pairs(found.boxes, truths.boxes, truths.iscrowd, spans)
    same = regions.where(found.slot[regions.detection] == truths.slot[regions.truth])
    if kind == "keypoints":
        images_and_slots = np.column_stack([np.r_[found.image_id, truths.image_id], np.r_[found.slot, truths.slot]])
        groups = np.unique(images_and_slots, axis=0, return_inverse=True)[1].reshape(-1)
        cells = Spans.of(groups[: len(found.row)], groups[len(found.row) :])
        points, there = _keypoints(results, found.row), _keypoints(objects, truths.row)
        same = keypoint_pairs(points, there, truths.boxes, truths.area, cells, groups[: len(found.row)])
    return same, regions.where(~truths.iscrowd[regions.truth])


def _chosen(table: pa.Table, settings: EvaluationSettings) -> tuple[Ints, Ints, Ints]:
    """Rows of evaluated categories, their images and slots."""
    ids = np.array(settings.category_ids, np.int64)
    category = _column(table, "category_id").astype(np.int64)
    slot = np.minimum(np.searchsorted(ids, category), len(ids) - 1)
    row = np.flatnonzero(ids[slot] == category)
    return row, _column(table, "image_id")[row], slot[row]


def _column(table: pa.Table, name: str) -> NDArray[Any]:
    return np.asarray(table[name].to_numpy())


def _boxes(table: pa.Table) -> Floats:
    return np.column_stack([_column(table, name) for name in ("x", "y", "width", "height")])


def _outside(area: Floats, settings: EvaluationSettings) -> Flags:
    size = settings.area_ranges[0]
    return (area < size.low) | (area > size.high)


def _texts(table: pa.Table, rows: Ints, boxes: Floats | None) -> list[bytes | None]:
    """JSON texts of masks; of a result without one its box as a polygon, as pycocotools' `loadRes` has it."""
    texts: list[bytes | None] = table["segmentation"].take(pa.array(rows)).to_pylist()
    for index, text in enumerate(texts):
        if text is None and boxes is not None:
            x, y, width, height = boxes[index].tolist()
            polygon = [x, y, x, y + height, x + width, y + height, x + width, y]
            texts[index] = json.dumps([polygon]).encode()
    return texts


def _keypoints(table: pa.Table, rows: Ints) -> Floats:
    """float64 [N, 51]; zeros where there are none."""
    lists = table["keypoints"].take(pa.array(rows)).to_pylist()
    for index, points in enumerate(lists):
        if points is not None and len(points) != 51:
            raise ValueError(f"an object has {len(points)} numbers as keypoints, not 51")
        lists[index] = [0.0] * 51 if points is None else points
    return np.array(lists, np.float64).reshape(-1, 51)


def _box_of(results: pa.Table, row: int, settings: EvaluationSettings) -> Floats:
    """float64 [4]: the box around a mask or all keypoints."""
    if settings.iou_type == "keypoints":
        points = _keypoints(results, np.array([row]))[0]
        return _around(points[0::3], points[1::3])
    value = json.loads(results["segmentation"][row].as_py())
    if isinstance(value, list):
        points = np.concatenate([np.asarray(polygon, np.float64) for polygon in value])
        return _around(points[0::2], points[1::2])
    return np.asarray(masks.toBbox(masks.frPyObjects(value, *value["size"])), np.float64)


def _around(x: Floats, y: Floats) -> Floats:
    return np.array([x.min(), y.min(), x.max() - x.min(), y.max() - y.min()])
