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
_TOGETHER = 128


@dataclass(frozen=True, slots=True)
class Suppression:
    """The rules.

    Args:
        iou: a box that overlaps a better one of its class by more than this goes.
        score: candidates of this score or less are left out. As float32, in which scores are.
        per_class, total: how many of each class, and of all, stay.
    """

    iou: float
    score: float
    per_class: int
    total: int


def just_below(score: float) -> np.float32:
    """The largest float32 below `score`: a float32 that is more than it is `score` or more."""
    nearest = np.float32(score)
    return nearest if float(nearest) < score else np.nextafter(nearest, np.float32(-1))


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
    order = np.flatnonzero(scores > np.float32(rules.score))
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
    common, whole = overlaps(boxes[every], boxes[chunk])
    of_class = classes[every]
    # Whole squares at once are quicker than pairs; only what may clash is divided, as IoU is defined.
    clash = common >= whole * np.float32(rules.iou * (1 - 1e-5))
    clash &= of_class[:, None] == of_class[known:]
    cells = np.flatnonzero(clash)
    # Row before column: the better one first.
    better, worse = np.divmod(cells, len(chunk))
    worse += known
    overlap, union = common.ravel()[cells], whole.ravel()[cells]
    possible = np.flatnonzero((better < worse) & (overlap > 0) & (union > 0))
    clashing = possible[overlap[possible] / union[possible] > rules.iou]
    stays = np.ones(len(every), bool)
    # In the order of the better one, of which is then known whether it stays.
    for one, other in zip(better[clashing].tolist(), worse[clashing].tolist(), strict=True):
        if stays[one]:
            stays[other] = False
    left = every[stays]
    if len(left) <= rules.per_class:
        return left
    return left[_rank_in_class(classes[left]) < rules.per_class]


def _rank_in_class(classes: Ints) -> Ints:
    """The place of each among those of its class, int [N], from 0."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    first = np.searchsorted(ordered, ordered, "left")
    rank = np.empty(len(classes), np.intp)
    rank[order] = np.arange(len(classes)) - first
    return rank


def overlaps(boxes: Floats, others: Floats) -> tuple[Floats, Floats]:
    """The areas of intersection and union of every box with every other one, float32 [N, M] both.

    Their quotient is the IoU where both are above 0; elsewhere it is 0.

    Args:
        boxes, others: float32 [N, 4] and [M, 4], two opposite corners.
    """
    # A side in one piece; results go where they are not needed any more.
    top, left, bottom, right = np.ascontiguousarray(boxes.T)[:, :, np.newaxis]
    top2, left2, bottom2, right2 = np.ascontiguousarray(others.T)
    common = np.minimum(bottom, bottom2)
    common -= np.maximum(top, top2)
    np.maximum(common, np.float32(0), out=common)  # then two negative sides cannot make an area
    width = np.minimum(right, right2)
    width -= np.maximum(left, left2)
    common *= width
    whole = np.add((bottom - top) * (right - left), (bottom2 - top2) * (right2 - left2), out=width)
    whole -= common
    return common, whole
