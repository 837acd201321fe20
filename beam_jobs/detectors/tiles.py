"""Large pictures in tiles: small objects that a network's input size would lose are seen at their own size.

The picture is seen as a whole and in tiles that overlap, and what was seen more than once is merged. The idea is SAHI's
(F. C. Akyon et al., https://arxiv.org/abs/2202.06934); the rule of merging is this one:

- Two detections of one class, from different views, are of one object if they agree where both views look: their boxes,
  cut to what the views share, have an IoU of `SAME` or more. A tile that sees half of an object so agrees with the view
  that sees all of it, and a small object does not with a large one behind it.
- The best detection takes in all that are the same; one that a seam cuts passes it on, so that the pieces of an object
  that no view sees whole come together.
- What comes of them has the best score, and the box of the best that no seam cuts; where all are cut, the box around
  them. Masks and keypoints are those of the best that no seam cuts, else of the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import Picture
from beam_jobs.records import BoxMasks, Detections

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.intp]

#: IoU of what two views see of one object.
SAME = 0.5
#: A box that comes so near to a seam is cut by it, in pixels for each 100 pixels of the tile.
NEAR_SEAM = 1.0
#: Detections that are compared with all others at a time, which bounds memory.
_ROWS = 256


@dataclass(frozen=True, slots=True)
class Tiling:
    """How pictures are cut.

    Args:
        tile: side of the square tiles, in pixels.
        overlap: share of a tile that it has in common with the next, 0 to below 1.

    Raises:
        ValueError: an argument out of its range.
    """

    tile: int
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if self.tile < 1 or not 0 <= self.overlap < 1:
            raise ValueError(f"tile must be 1 or more, and 0 <= overlap < 1; got {self.tile} and {self.overlap}")

    def views(self, height: int, width: int) -> Floats:
        """Where one looks: float32 [V, 4], xmin, ymin, xmax, ymax in whole pixels. The first is the whole picture.

        A picture that is no larger than a tile has no tiles. The tiles at the far edges are as large as the others, and
        overlap more.
        """
        whole = (0, 0, width, height)
        if height <= self.tile and width <= self.tile:
            return np.array([whole], np.float32)
        tops, lefts = self._starts(height), self._starts(width)
        tiles = ((x, y, min(x + self.tile, width), min(y + self.tile, height)) for y, x in product(tops, lefts))
        return np.array([whole, *tiles], np.float32)

    def _starts(self, size: int) -> list[int]:
        step = max(1, round(self.tile * (1 - self.overlap)))
        last = max(0, size - self.tile)
        return [*range(0, last, step), last]


def cut_out(picture: Picture, views: Floats) -> list[Picture]:
    """What each of the views [V, 4] shows of a picture, uint8 [height, width, 3]: the picture's own memory."""
    return [picture[ymin:ymax, xmin:xmax] for xmin, ymin, xmax, ymax in views.astype(int).tolist()]


def merge(seen: Sequence[Detections], views: Floats) -> Detections:
    """One set of detections of what each view saw, best first; by the rule above.

    Args:
        seen: of each view, in pixels of the view.
        views: float32 [V, 4], xmin, ymin, xmax, ymax in pixels of the picture; the first is the whole picture.
    """
    if len(seen) == 1:
        return seen[0]
    every = _joined([_moved(found, view) for found, view in zip(seen, views, strict=True)])
    view_of = np.repeat(np.arange(len(seen)), [len(found) for found in seen])
    # NaN and infinite boxes are of no object; whoever selects counts them.
    order = np.lexsort((view_of, -every.scores))
    every, view_of = every.take(order), view_of[order]
    cut = _cut(every.boxes, views[view_of], views[0])
    kept: list[int] = []
    boxes = every.boxes.copy()
    for category in np.unique(every.category_ids).tolist():
        rows = np.flatnonzero(every.category_ids == category)
        for group in _groups(every.boxes[rows], views, view_of[rows], cut[rows]):
            members = rows[group]
            whole = members[~cut[members]]
            best = int(whole[0] if len(whole) else members[0])
            if not len(whole):
                boxes[best] = np.concatenate([boxes[members, :2].min(axis=0), boxes[members, 2:].max(axis=0)])
            every.scores[best] = every.scores[members[0]]
            kept.append(best)
    merged = replace(every, boxes=boxes).take(np.array(kept, np.intp))
    return merged.take(np.argsort(-merged.scores, kind="stable"))


def _groups(boxes: Floats, views: Floats, view_of: Ints, cut: Flags) -> list[Ints]:
    """The detections of one class by object: positions, best first; the rows are given best first."""
    same_as = _same(boxes, views[view_of], view_of)
    free = np.ones(len(boxes), bool)
    groups = []
    for first in range(len(boxes)):
        if not free[first]:
            continue
        free[first] = False
        group, asking = [first], [first]
        while asking:
            one = asking.pop()
            same = same_as[one][free[same_as[one]]]
            free[same] = False
            group += same.tolist()
            # Only a piece leads to further pieces: whole objects that stand in a row stay apart.
            asking += same[cut[same]].tolist() if cut[one] else []
        groups.append(np.array(sorted(group), np.intp))
    return groups


def _same(boxes: Floats, views: Floats, view_of: Ints) -> list[Ints]:
    """Of each detection, the positions of those from other views that are of its object, ascending."""
    same: list[Ints] = []
    for start in range(0, len(boxes), _ROWS):
        some = slice(start, start + _ROWS)
        xmin, ymin, xmax, ymax = (boxes[some, side, None] for side in range(4))
        meet = (xmin < boxes[:, 2]) & (boxes[:, 0] < xmax) & (ymin < boxes[:, 3]) & (boxes[:, 1] < ymax)
        row, other = np.nonzero(meet & (view_of[some, None] != view_of))
        agree = _agree(boxes[some][row], views[some][row], boxes[other], views[other])
        row, other = row[agree], other[agree]
        same += np.split(other, np.searchsorted(row, np.arange(1, len(boxes[some]))))
    return same


def _agree(boxes: Floats, views: Floats, others: Floats, other_views: Floats) -> Flags:
    """bool [N]: whether a box and the other, [N, 4] each, have an IoU of `SAME` in what their views share."""
    low, high = np.maximum(views[:, :2], other_views[:, :2]), np.minimum(views[:, 2:], other_views[:, 2:])
    shared = np.concatenate([low, high], axis=1)
    mine, theirs = _clip(boxes, shared), _clip(others, shared)
    low, high = np.maximum(mine[:, :2], theirs[:, :2]), np.minimum(mine[:, 2:], theirs[:, 2:])
    common = np.maximum(high - low, 0).prod(axis=1)
    whole = _areas(mine) + _areas(theirs) - common
    agree: Flags = (common > 0) & (common >= SAME * whole)
    return agree


def _cut(boxes: Floats, views: Floats, picture: Floats) -> Flags:
    """bool [N]: whether a seam, a side of the view that is none of the picture, is at the box."""
    near = np.float32(NEAR_SEAM / 100) * (views[:, 2:] - views[:, :2])
    low = (views[:, :2] > picture[:2]) & (boxes[:, :2] <= views[:, :2] + near)
    high = (views[:, 2:] < picture[2:]) & (boxes[:, 2:] >= views[:, 2:] - near)
    sides = low | high
    cut: Flags = sides[:, 0] | sides[:, 1]
    return cut


def _clip(boxes: Floats, limits: Floats) -> Floats:
    low = np.maximum(boxes[:, :2], limits[:, :2])
    return np.concatenate([low, np.maximum(np.minimum(boxes[:, 2:], limits[:, 2:]), low)], axis=1)


def _areas(boxes: Floats) -> Floats:
    areas: Floats = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas


def _moved(found: Detections, view: Floats) -> Detections:
    """Detections of a view in pixels of the picture."""
    corner = view[[0, 1, 0, 1]]
    masks, keypoints = found.masks, found.keypoints
    if masks is not None:
        masks = BoxMasks(masks.grids, masks.frames + corner)
    if keypoints is not None:
        there = (keypoints != 0).any(axis=2, keepdims=True)
        keypoints = np.where(there, keypoints + np.append(view[:2], np.float32(0)), keypoints)
    return replace(found, boxes=found.boxes + corner, masks=masks, keypoints=keypoints)


def _joined(found: Sequence[Detections]) -> Detections:
    masks = [each.masks for each in found if each.masks is not None]
    keypoints = [each.keypoints for each in found if each.keypoints is not None]
    return Detections(
        np.concatenate([each.boxes for each in found]),
        np.concatenate([each.scores for each in found]),
        np.concatenate([each.category_ids for each in found]),
        BoxMasks(np.concatenate([m.grids for m in masks]), np.concatenate([m.frames for m in masks]))
        if masks
        else None,
        np.concatenate(keypoints) if keypoints else None,
    )
