"""Per-class non-maximum suppression of one picture, as the Object Detection API's SSDs do it after their network.

Source: `batch_multiclass_non_max_suppression` of the API, and `tf.image.combined_non_max_suppression`, which gives the
same. Boxes of a class that overlap a better one of the class go; the best of what is left of all classes stay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]

#: Candidates that are looked at together: their overlaps are a square of this side.
_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Suppression:
    """The rules.

    Args:
        iou: a box that overlaps a better one of its class by more than this goes.
        score: candidates of this score or less are left out.
        per_class, total: how many of each class, and of all, stay.
    """

    iou: float
    score: float
    per_class: int
    total: int


def suppress(
    boxes: Floats, classes: Ints, scores: Floats, rules: Suppression, wanted: NDArray[np.bool_] | None = None
) -> Ints:
    """Which candidates stay, best first; of equal scores the one that comes first.

    Args:
        boxes: float32 [N, 4], two opposite corners in any unit.
        classes: int [N].
        scores: float32 [N].
        wanted: bool [N]; the others suppress, and count in their class, but are left out of what stays. None for all.

    Returns:
        positions, int [M], M at most `rules.total`.
    """
    order = np.flatnonzero(scores > rules.score)
    order = order[np.argsort(-scores[order], kind="stable")]
    kept = stays = np.empty(0, np.intp)
    # Who stays depends on better ones only, so that the worst are seldom looked at.
    for start in range(0, len(order), _TOGETHER):
        chunk = order[start : start + _TOGETHER]
        kept = _extend(kept, chunk, boxes, classes, rules)
        stays = kept if wanted is None else kept[wanted[kept]]
        if len(stays) >= rules.total:
            break
    return stays[: rules.total]


def _extend(kept: Ints, chunk: Ints, boxes: Floats, classes: Ints, rules: Suppression) -> Ints:
    """`kept` and those of the next best that stay beside them and beside each other."""
    known = len(kept)
    every = np.concatenate([kept, chunk])
    same = classes[every][:, None] == classes[chunk]
    # Row before column: the better one first.
    better, worse = np.nonzero(np.triu(same, 1 - known))
    worse += known
    clash = overlaps(boxes[every], better, worse) > rules.iou
    stays = np.ones(len(every), bool)
    # In the order of the better one, of which is then known whether it stays.
    for one, other in zip(better[clash].tolist(), worse[clash].tolist(), strict=True):
        if stays[one]:
            stays[other] = False
    left = every[stays]
    return left[_rank_in_class(classes[left]) < rules.per_class]


def _rank_in_class(classes: Ints) -> Ints:
    """The place of each among those of its class, int [N], from 0."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    first = np.searchsorted(ordered, ordered, "left")
    rank = np.empty(len(classes), np.intp)
    rank[order] = np.arange(len(classes)) - first
    return rank


def overlaps(boxes: Floats, some: Ints, others: Ints) -> Floats:
    """Intersection over union, float32 [P], of pairs of boxes; 0 where one has no area.

    Args:
        boxes: float32 [N, 4], two opposite corners.
        some, others: int [P], the positions of the two of a pair.
    """
    # A side in one piece: fetching pairs is then half of the time.
    top, left, bottom, right = np.ascontiguousarray(boxes.T)
    areas = (bottom - top) * (right - left)
    height = np.minimum(bottom[some], bottom[others]) - np.maximum(top[some], top[others])
    width = np.minimum(right[some], right[others]) - np.maximum(left[some], left[others])
    common = np.maximum(height, np.float32(0)) * np.maximum(width, np.float32(0))
    whole = areas[some] + areas[others] - common
    with np.errstate(invalid="ignore", divide="ignore"):
        iou: Floats = np.where((common > 0) & (whole > 0), common / whole, np.float32(0))
    return iou
