"""What costs average precision: TIDE's kinds of error.

Sources: Bolya, Foley, Hays and Hoffman, TIDE (https://arxiv.org/abs/2008.08115), and its tidecv; the details as in
hotcoco's `tide_errors` (https://derekallman.github.io/hotcoco/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.evaluation.curves import Curves
from beam_jobs.evaluation.overlaps import Flags, Floats, Ints, Pairs
from beam_jobs.evaluation.sides import Detections, Truths
from beam_jobs.formats.matches import ERRORS

CLASSIFICATION, LOCALISATION, BOTH, DUPLICATE, BACKGROUND, MISSED = range(len(ERRORS))
#: Further codes of a detection: a localisation error whose correction finds a truth; a true positive; what does not
#: count; and in a category another's classification error whose correction finds a truth of this one.
CORRECTED, RIGHT, IGNORED, INCOMING = range(len(ERRORS), len(ERRORS) + 4)
#: Average precision, then the gains of `ErrorCosts.delta_ap`.
NUMBERS = 1 + len(ERRORS) + 2


def classify(
    same: Pairs,
    other: Pairs,
    truths: Truths,
    found: Detections,
    *,
    wrong: Flags,
    taken: Flags,
    positive: float,
    background: float,
) -> tuple[NDArray[np.int8], Ints, Flags]:
    """The error of each detection, the truth that its correction would find, and which truths some correction would.

    The first that fits: localisation, background <= IoU <= positive with a truth of the category; classification,
    IoU >= positive with another category's; duplicate, IoU >= positive with a truth of the category that is taken;
    background, IoU <= background with all; else both. Correcting errors of the first two kinds finds a truth that
    would count and is not taken: for each truth the error with the highest score does, the others vanish.

    Args:
        same, other: pairs within the categories, and across them without crowds.
        wrong: bool [N], false positives.
        taken: bool [M], truths with a match.

    Returns:
        int8 [N] places in `ERRORS`, -1 for none; int64 [N] rows of truths, -1 for none; bool [M].
    """
    same, other = same.where(wrong[same.detection]), other.where(wrong[other.detection])
    # Among equal IoUs the first truth, in the order of COCO's matching, where the ignored come last.
    same_iou, nearest = _best(same, len(found.row), truths.ignored)
    other_iou, nearest_other = _best(other, len(found.row), np.zeros(len(truths.row), bool))
    again = np.zeros(len(found.row), bool)
    again[same.detection[(same.iou >= positive) & taken[same.truth]]] = True

    error = np.select(
        [(same_iou >= background) & (same_iou <= positive), other_iou >= positive, again, other_iou <= background],
        [LOCALISATION, CLASSIFICATION, DUPLICATE, BACKGROUND],
        BOTH,
    ).astype(np.int8)
    error[~wrong] = -1
    target = np.select([error == LOCALISATION, error == CLASSIFICATION], [nearest, nearest_other], -1)
    usable = ~taken & ~truths.ignored
    target[target >= 0] = np.where(usable[target[target >= 0]], target[target >= 0], -1)

    rows = np.flatnonzero(target >= 0)
    rows = rows[np.lexsort((found.row[rows], -found.score[rows], target[rows]))]
    winners = rows[np.flatnonzero(np.diff(target[rows], prepend=-1))]
    wins = np.full(len(found.row), -1, np.int64)
    wins[winners] = target[winners]
    covered = np.zeros(len(truths.row), bool)
    covered[target[rows]] = True
    return error, wins, covered


def _best(pairs: Pairs, detections: int, last: Flags) -> tuple[Floats, Ints]:
    """The highest IoU of each detection and its truth, 0 and -1 without; among equals the first not in `last`."""
    order = np.lexsort((pairs.truth, last[pairs.truth], -pairs.iou, pairs.detection))
    first = order[np.flatnonzero(np.diff(pairs.detection[order], prepend=-1))]
    iou, truth = np.zeros(detections), np.full(detections, -1, np.int64)
    iou[pairs.detection[first]], truth[pairs.detection[first]] = pairs.iou[first], pairs.truth[first]
    return iou, truth


@dataclass(frozen=True, slots=True)
class ErrorCosts:
    """What each kind of error costs.

    Args:
        ap: average precision at the IoU of the matches, the mean over categories with truths.
        delta_ap: by kind of error, what `ap` would gain without it; also `false_positives`, if none were, and
            `false_negatives`, if what is missed were not there. They do not add up: errors hide each other.
        counts: by kind of error.
    """

    ap: float
    delta_ap: Mapping[str, float]
    counts: Mapping[str, int]


def codes(error: NDArray[np.int8], *, ignored: Flags, wins: Flags) -> NDArray[np.uint8]:
    """uint8 [N]: the code of each detection.

    Args:
        error: int8 [N] places in `ERRORS`, -1 for none.
        ignored: bool [N], neither right nor wrong.
        wins: bool [N], the correction of the error finds a truth.
    """
    conditions = [ignored, error < 0, wins & (error == LOCALISATION)]
    return np.select(conditions, [IGNORED, RIGHT, CORRECTED], error).astype(np.uint8)


class CategoryCosts:
    """Average precision of a category, and what it would be without each kind of error."""

    def __init__(self, truths: int, missed: int, uncovered: int) -> None:
        """For truths that count, are not found, and would not be by any correction."""
        every = np.full(NUMBERS, truths, np.int64)
        every[1 + MISSED] -= uncovered
        every[-1] -= missed
        self._curves = Curves(every)

    def add(self, score: Floats, code: NDArray[np.uint8]) -> None:
        """The next detections, float64 and uint8 [N], best first; of equal ones the incoming last."""
        right, moved, own = code == RIGHT, code == INCOMING, code <= RIGHT
        rights, counted = np.tile(right, (NUMBERS, 1)), np.tile(own, (NUMBERS, 1))
        for kind in range(MISSED):
            counted[1 + kind] &= code != kind
        rights[1 + CLASSIFICATION] |= moved
        counted[1 + CLASSIFICATION] |= moved
        rights[1 + LOCALISATION] |= code == CORRECTED
        counted[-2] = right
        self._curves.add(score, rights, counted)

    def numbers(self) -> Floats:
        """float64 [9]: the average precision, then what it would gain, by `ERRORS` and the two of `ErrorCosts`."""
        gains = self._curves.average_precision()
        gains[1:] -= gains[0]
        return gains


def errors_costs(per_category: NDArray[np.float64], counts: Ints) -> ErrorCosts:
    """The means over categories.

    Args:
        per_category: float64 [C, 9], `CategoryCosts.numbers` of those with truths.
        counts: int64 [6], errors by kind.
    """
    means = per_category.mean(axis=0) if len(per_category) else np.zeros(NUMBERS)
    names = (*ERRORS, "false_positives", "false_negatives")
    return ErrorCosts(
        float(means[0]),
        dict(zip(names, means[1:].tolist(), strict=True)),
        dict(zip(ERRORS, counts.tolist(), strict=True)),
    )
