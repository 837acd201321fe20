"""Which detection found which truth: COCO's matching at one IoU, for many images at once.

Source: `evaluateImg` of pycocotools' cocoeval.py; for the kinds of error see `errors_tide`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.evaluation import errors_tide
from beam_jobs.evaluation.confusion import confusion_cells
from beam_jobs.evaluation.greedy import greedy
from beam_jobs.evaluation.overlaps import Floats, Ints, Pairs
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.sides import Detections, Sides, Truths
from beam_jobs.formats.matches import ERRORS, KINDS, MATCHES, OUTCOMES

TRUE_POSITIVE, FALSE_POSITIVE, IGNORED, FOUND, MISSED = range(len(OUTCOMES))

Codes = NDArray[np.int8]
Column = NDArray[Any]


@dataclass(frozen=True, slots=True)
class MatchSettings:
    """How matches are made and errors told apart.

    Args:
        iou_threshold: the least IoU (OKS for keypoints) of a match.
        background_iou: up to here a detection lies on nothing; TIDE's background threshold.
        confusion_score: detections below it stay out of the confusion matrix.

    Raises:
        ValueError: other than 0 <= background < threshold <= 1.
    """

    iou_threshold: float = 0.5
    background_iou: float = 0.1
    confusion_score: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.background_iou < self.iou_threshold <= 1:
            raise ValueError(f"IoUs must be 0 <= background < threshold <= 1, got {self}")


@dataclass(frozen=True, slots=True)
class Matches:
    """The matches of some images, row by row of `found` (N) and `truths` (M).

    Args:
        match: int64 [N], the truth of each detection, -1 for none.
        taken: int64 [M], the detection of each truth (of a crowd the last), -1 for none.
        iou, truth_iou: float64 [N] and [M], of the match; without one the best within the category, else 0.
        outcome, truth_outcome: int8 [N] and [M], places in `OUTCOMES`.
        error, truth_error: int8 [N] and [M], places in `ERRORS`, -1 for none.
        wins: int64 [N], the truth that the correction of the error would find, -1 for none.
        confusion: int64 [X], cells of the flat confusion matrix [K + 1, K + 1], one for each thing it counts.
        categories: K.
    """

    found: Detections
    truths: Truths
    match: Ints
    taken: Ints
    iou: Floats
    truth_iou: Floats
    outcome: Codes
    truth_outcome: Codes
    error: Codes
    truth_error: Codes
    wins: Ints
    confusion: Ints
    categories: int


def match_batch(
    images: pa.Table,
    objects: pa.Table,
    results: pa.Table,
    settings: EvaluationSettings,
    matching: MatchSettings | None = None,
) -> Matches:
    """Matches some images, with the first area range and the last maxDets of `settings`.

    Args:
        images: rows of `TRUTH_IMAGES`; only masks need them, for their sizes.
        objects, results: all rows of these images, of `TRUTH_OBJECTS` and `RESULTS`.

    Raises:
        ValueError: masks or keypoints are missing or cannot be read, or the size of an image that they need.
    """
    return match_sides(Sides.of(images, objects, results, settings), settings, matching)


def match_sides(sides: Sides, settings: EvaluationSettings, matching: MatchSettings | None = None) -> Matches:
    """`match_batch` of sides that are known."""
    matching = matching or MatchSettings()
    truths, found, same, regions = sides.truths, sides.found, sides.same, sides.regions
    counted = found.rank < settings.max_detections[-1]
    same = same.where(counted[same.detection])
    good = same.where(same.iou >= min(matching.iou_threshold, 1 - 1e-10))
    match, taken = greedy(good, len(found.row), truths.ignored, truths.iscrowd)

    outcome = np.full(len(found.row), FALSE_POSITIVE, np.int8)
    outcome[found.outside | ~counted] = IGNORED
    matched = match >= 0
    outcome[matched] = np.where(truths.ignored[match[matched]], IGNORED, TRUE_POSITIVE)
    truth_outcome = np.where(truths.ignored, IGNORED, np.where(taken >= 0, FOUND, MISSED)).astype(np.int8)

    error, wins, covered = errors_tide.classify(
        same,
        regions.where(found.slot[regions.detection] != truths.slot[regions.truth]),
        truths,
        found,
        wrong=outcome == FALSE_POSITIVE,
        taken=taken >= 0,
        positive=matching.iou_threshold,
        background=matching.background_iou,
    )
    truth_error = np.where((truth_outcome == MISSED) & ~covered, errors_tide.MISSED, -1).astype(np.int8)
    confusion = confusion_cells(
        regions,
        truths,
        found,
        iou=matching.iou_threshold,
        score=matching.confusion_score,
        at_most=settings.max_detections[-1],
        categories=len(settings.category_ids),
    )
    return Matches(
        found,
        truths,
        match,
        taken,
        _ious(same.detection, same, match, same.truth),
        _ious(same.truth, same, taken, same.detection),
        outcome,
        truth_outcome,
        error,
        truth_error,
        wins,
        confusion,
        len(settings.category_ids),
    )


def _ious(row: Ints, pairs: Pairs, partner: Ints, other: Ints) -> Floats:
    """float64 [N]: the IoU with the partner, else the best of the row's pairs."""
    iou = np.zeros(len(partner))
    np.maximum.at(iou, row, pairs.iou)
    chosen = partner[row] == other
    iou[row[chosen]] = pairs.iou[chosen]
    return iou


def matches_table(
    matches: Matches,
    images: pa.Table,
    objects: pa.Table,
    results: pa.Table,
    settings: EvaluationSettings,
    categories: Mapping[int, str],
) -> pa.Table:
    """Rows of `MATCHES`; the tables are those that were matched.

    Args:
        images: rows of `TRUTH_IMAGES`, ascending by image_id; every image of the rows is there.
        categories: names by category id; what is not there is called by its number.
    """
    found, truths, taken = matches.found, matches.truths, matches.taken
    image_id = np.concatenate([found.image_id, truths.image_id])
    kind = np.repeat(np.array([0, 1], np.int8), [len(found.row), len(truths.row)])
    order = np.lexsort((kind, image_id))

    def column(ours: Column, theirs: Column, valid: NDArray[np.bool_] | None = None) -> pa.Array:
        nulls = None if valid is None else ~valid[order]
        return pa.array(np.concatenate([ours, theirs])[order], mask=nulls)

    def named(codes: Column, names: Sequence[str]) -> pa.Array:
        codes = codes.astype(np.int32)
        return pa.array(names, pa.string()).take(pa.array(codes, mask=codes < 0))

    everywhere, nowhere = np.ones(len(found.row), bool), np.zeros(len(found.row), bool)
    is_found = taken >= 0
    truth_ids = objects["truth_id"].to_numpy()[truths.row]
    numbers = results["detection"].to_numpy()[found.row]
    ids = np.array(settings.category_ids, np.int32)
    slot = np.concatenate([found.slot, truths.slot])[order]
    names = [categories.get(number, str(number)) for number in settings.category_ids]
    boxes = np.concatenate([found.boxes, truths.boxes])[order]
    place = np.searchsorted(images["image_id"].to_numpy(), image_id[order])
    matched = matches.match >= 0
    columns = {
        "image_id": pa.array(image_id[order]),
        "file_name": images["file_name"].take(pa.array(place)),
        "kind": named(kind[order], KINDS),
        "category_id": pa.array(ids[slot]),
        "category": named(slot, names),
        "detection": column(numbers, _at(numbers, taken), np.concatenate([everywhere, is_found])),
        "truth_id": column(
            _at(truth_ids, matches.match), truth_ids, np.concatenate([matched, np.ones(len(truths.row), bool)])
        ),
        "rank": column(found.rank, taken, np.concatenate([everywhere, np.zeros(len(taken), bool)])),
        "score": column(found.score, _at(found.score, taken), np.concatenate([everywhere, is_found])),
        "outcome": named(np.concatenate([matches.outcome, matches.truth_outcome])[order], OUTCOMES),
        "error": named(np.concatenate([matches.error, matches.truth_error])[order], ERRORS),
        "iou": column(matches.iou, matches.truth_iou),
        **{name: pa.array(boxes[:, index]) for index, name in enumerate(("x", "y", "width", "height"))},
        "area": column(found.boxes[:, 2] * found.boxes[:, 3], truths.area),
        "iscrowd": column(nowhere, truths.iscrowd),
    }
    return pa.table(columns).cast(MATCHES)


def _at(values: Column, rows: Ints) -> Column:
    """`values` at `rows`, 0 where the row is -1."""
    return np.concatenate([values, np.zeros(1, values.dtype)])[rows]
