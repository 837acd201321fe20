"""Which detections are right at every IoU threshold and area range, for numbers of images that are weighted anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pyarrow as pa
from hotcoco import mask as masks

from beam_jobs.evaluation.greedy import greedy_at_thresholds
from beam_jobs.evaluation.overlaps import Flags, Floats, Ints, run_lengths
from beam_jobs.evaluation.settings import AreaRange, EvaluationSettings
from beam_jobs.evaluation.sides import Detections, Sides

#: Matching is done for so many images at once: what bounds its memory.
IMAGES_A_BATCH = 500


@dataclass(frozen=True, slots=True)
class ThresholdMatches:
    """The detections of some images, and what COCO's matching makes of them at each threshold.

    At an area range and threshold a detection counts (as true or false) if it is within the range; `hit_*` are the true
    ones, and `fix_*` the exceptions from that rule. Of a million detections a few per cent are in these lists.

    Args:
        image: int64 [N], the place of the image among all images.
        slot: int64 [N], the place of the category among the settings' ids.
        score: float64 [N]. In an image and category the rows descend by score, ties as COCO breaks them.
        rank: int64 [N], the place in image and category, from 0; below the last maxDets.
        within: bool [A, N], whether the area range holds the detection.
        hit_area, hit_threshold, hit_row: int64 [H], the true positives.
        fix_area, fix_threshold, fix_row, fix_by: int64 [F], a detection that counts one more (+1: true, but not within)
            or less (-1: within, but on a truth that is ignored).
        truth_area, truth_slot, truth_image: int64 [M], truths that count in an area range, once for each such range.
    """

    image: Ints
    slot: Ints
    score: Floats
    rank: Ints
    within: Flags
    hit_area: Ints
    hit_threshold: Ints
    hit_row: Ints
    fix_area: Ints
    fix_threshold: Ints
    fix_row: Ints
    fix_by: Ints
    truth_area: Ints
    truth_slot: Ints
    truth_image: Ints

    @staticmethod
    def concat(parts: Sequence[ThresholdMatches]) -> ThresholdMatches:
        """Those of all the parts' images, at least one part; an image is in one part only."""
        shifts = np.cumsum([0, *(len(part.image) for part in parts)]).tolist()
        columns = {}
        for name in (field.name for field in fields(ThresholdMatches)):
            arrays = [getattr(part, name) for part in parts]
            if name in ("hit_row", "fix_row"):
                arrays = [array + shift for array, shift in zip(arrays, shifts, strict=False)]
            columns[name] = np.concatenate(arrays, axis=-1)
        return ThresholdMatches(**columns)


def match_thresholds(
    images: pa.Table, objects: pa.Table, results: pa.Table, settings: EvaluationSettings
) -> ThresholdMatches:
    """Matches all images, some at a time, at every threshold and area range of the settings.

    Args:
        images: rows of `TRUTH_IMAGES`, ascending by image_id.
        objects, results: rows of `TRUTH_OBJECTS` and `RESULTS` of these images, of any categories.

    Raises:
        ValueError: masks or keypoints are missing or cannot be read, or the size of an image that they need.
    """
    ids = images["image_id"].to_numpy()
    objects, results = _by_image(objects), _by_image(results)
    parts = []
    for start in range(0, max(len(ids), 1), IMAGES_A_BATCH):
        some = images.slice(start, IMAGES_A_BATCH)
        inside = [_slice(table, ids[start : start + IMAGES_A_BATCH]) for table in (objects, results)]
        sides = Sides.of(some, inside[0], inside[1], settings)
        parts.append(match_sides_at_thresholds(some, inside[1], sides, settings, ids))
    return ThresholdMatches.concat(parts)


def match_sides_at_thresholds(
    images: pa.Table, results: pa.Table, sides: Sides, settings: EvaluationSettings, ids: Ints
) -> ThresholdMatches:
    """Matches sides that are known.

    Args:
        images, results: what the sides are of.
        ids: int64, ascending image ids, among which the places of `ThresholdMatches` are.
    """
    truths, found = sides.truths, sides.found
    kept = found.rank < settings.max_detections[-1]
    pairs = sides.same.where(kept[sides.same.detection])
    new_row = np.cumsum(kept) - 1
    areas = _areas(images, results, found, settings)
    image, truth_image = (np.searchsorted(ids, side.image_id) for side in (found, truths))

    within = np.array([~_outside(areas, size) for size in settings.area_ranges])
    ignored = np.array([truths.never | _outside(truths.area, size) for size in settings.area_ranges])
    least = np.minimum(settings.iou_thresholds, 1 - 1e-10)
    cells = np.cumsum(found.rank == 0)
    area, threshold, row, truth = greedy_at_thresholds(pairs, cells, least, ignored, truths.iscrowd)
    true = ~ignored[area, truth]
    changed = true != within[area, row]
    row = new_row[row]
    wanted_area, wanted = np.nonzero(~ignored)
    return ThresholdMatches(
        image=image[kept],
        slot=found.slot[kept],
        score=found.score[kept],
        rank=found.rank[kept],
        within=within[:, kept],
        hit_area=area[true],
        hit_threshold=threshold[true],
        hit_row=row[true],
        fix_area=area[changed],
        fix_threshold=threshold[changed],
        fix_row=row[changed],
        fix_by=np.where(true, 1, -1)[changed],
        truth_area=wanted_area,
        truth_slot=truths.slot[wanted],
        truth_image=truth_image[wanted],
    )


def _outside(area: Floats, size: AreaRange) -> Flags:
    return (area < size.low) | (area > size.high)


def _areas(images: pa.Table, results: pa.Table, found: Detections, settings: EvaluationSettings) -> Floats:
    """float64 [N]: the box's area; in `segm` the mask's where the result has no box, as pycocotools' `loadRes` does."""
    areas: Floats = found.boxes[:, 2] * found.boxes[:, 3]
    if settings.iou_type != "segm":
        return areas
    boxless = np.flatnonzero(np.isnan(np.asarray(results["width"].to_numpy()))[found.row])
    columns = (images[name].to_pylist() for name in ("image_id", "height", "width"))
    sizes = {number: (height, width) for number, height, width in zip(*columns, strict=True)}
    texts = results["segmentation"].take(pa.array(found.row[boxless])).to_pylist()
    for row, text, number in zip(boxless.tolist(), texts, found.image_id[boxless].tolist(), strict=True):
        areas[row] = float(masks.area(run_lengths(text, sizes[number])))
    return areas


def _by_image(table: pa.Table) -> pa.Table:
    order = np.argsort(table["image_id"].to_numpy(), kind="stable")
    return table.take(pa.array(order)).combine_chunks()


def _slice(table: pa.Table, ids: Ints) -> pa.Table:
    """The rows of the images with these ascending ids, of rows ascending by image."""
    owners = table["image_id"].to_numpy()
    if not len(ids):
        return table.slice(0, 0)
    start, end = np.searchsorted(owners, ids[0], "left"), np.searchsorted(owners, ids[-1], "right")
    return table.slice(int(start), int(end - start)).combine_chunks()
