"""Whether two forms of one model find the same in a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import Detector, Picture
from beam_jobs.records import Detections
from beam_jobs.words import counted

#: Of a value of a mask, from 0 to 1. One mask in so many may differ by more: what is cut out for a box at the picture's
#: edge, to find its mask in, has or lacks a row as the last bit of a coordinate falls.
MASK_TOLERANCE, MASKS_AN_ODD_ONE = 1e-3, 50
#: What decides between two detections of which one is kept: far more than scores of two forms do differ by.
LEAST_GAP = 1e-4


@dataclass(frozen=True, slots=True)
class Limits:
    """How much two forms may differ.

    Args:
        score: of a detection or of a keypoint.
        share: of a coordinate of a box or a keypoint, relative to the larger side of the box, which counts as one pixel
            at least.
        pixels: the same, in pixels, on top of it.
    """

    score: float
    share: float = 0.0
    pixels: float = 0.0

    def reach(self, box: NDArray[np.float32]) -> float:
        """Pixels that a coordinate may differ by."""
        return self.share * max(float((box[2:] - box[:2]).max()), 1.0) + self.pixels


#: The same graph in TensorFlow, simplified.
FROZEN = Limits(score=1e-4, share=1e-3)
#: The same network in LiteRT, with the rest around it done here.
LITERT = Limits(score=1e-3, pixels=0.5)


def disagreement(original: Detector, other: Detector, pictures: Sequence[Picture], limits: Limits) -> str | None:
    """What another form finds otherwise than the original does in some pictures, in words; None when nothing."""
    for number, picture in enumerate(pictures, 1):
        (expected,), (found,) = original.detect([picture]), other.detect([picture])
        if differs := difference(expected, found, limits):
            return f"it finds something else in picture {number} of {len(pictures)}: {differs}"
    return None


def difference(expected: Detections, found: Detections, limits: Limits = FROZEN) -> str | None:
    """What differs beyond the limits, in words; None when nothing does.

    Each detection must have its like: the same class, score, box and keypoints, and mostly mask. Their order counts
    only as far as scores differ by more than their tolerance. The same holds for what is kept when there is a limit: a
    detection without its like is forgiven where its score is within `LEAST_GAP` of the least of them all.
    """
    if len(expected) != len(found):
        return f"{counted(len(found), 'detection')} instead of {len(expected)}"
    if len(expected) == 0:
        return None
    lowest = float(min(expected.scores.min(), found.scores.min())) + LEAST_GAP
    free = np.ones(len(found), bool)
    odd_masks = 0
    for i in range(len(expected)):
        like = np.flatnonzero(free & _alike(expected, i, found, limits))
        if len(like):
            off = _masks_off(expected, i, found, like)
            free[like[np.argmin(off)]] = False
            odd_masks += bool(off.min() > MASK_TOLERANCE)
        elif expected.scores[i] > lowest:
            return _described(expected, i, found)
    if odd_masks > len(expected) // MASKS_AN_ODD_ONE:
        return f"{odd_masks} of {len(expected)} masks differ"
    odd = free & (found.scores > lowest)
    return _described(found, int(np.argmax(odd)), expected) if odd.any() else None


def _alike(expected: Detections, i: int, found: Detections, limits: Limits) -> NDArray[np.bool_]:
    """Which of `found` are the like of the i-th expected: bool [N]."""
    same: NDArray[np.bool_] = found.category_ids == expected.category_ids[i]
    same &= np.abs(found.scores - expected.scores[i]) <= limits.score
    box = expected.boxes[i]
    reach = limits.reach(box)
    same &= _close(found.boxes, box, reach).all(axis=1)
    if expected.keypoints is not None and found.keypoints is not None:
        same &= _close(found.keypoints[..., :2], expected.keypoints[i, :, :2], reach).all(axis=(1, 2))
        same &= (np.abs(found.keypoints[..., 2] - expected.keypoints[i, :, 2]) <= limits.score).all(axis=1)
    return same


def _masks_off(expected: Detections, i: int, found: Detections, like: NDArray[np.intp]) -> NDArray[np.float32]:
    """How far the masks of `found` at `like` are from the i-th expected: float32 [len(like)]."""
    if expected.masks is None or found.masks is None:
        return np.zeros(len(like), np.float32)
    off: NDArray[np.float32] = np.abs(found.masks.grids[like] - expected.masks.grids[i]).max(axis=(1, 2))
    return off


def _close(found: NDArray[np.float32], expected: NDArray[np.float32], reach: float) -> NDArray[np.bool_]:
    # What a model gives may be infinite, in both.
    close: NDArray[np.bool_] = (np.abs(found - expected) <= reach) | (found == expected)
    return close


def _described(expected: Detections, i: int, found: Detections) -> str:
    """The i-th detection, which has no like, beside the one in its place."""

    def words(detections: Detections, i: int) -> str:
        box = ", ".join(f"{value:.3f}" for value in detections.boxes[i])
        return f"class {detections.category_ids[i]}, score {detections.scores[i]:.6f}, box {box}"

    return f"{words(found, i)} instead of {words(expected, i)}"
