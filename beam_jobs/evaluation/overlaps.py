"""Overlaps of the detections and truths of the same images: every pair of many images at once.

Sources: `bbIou` and `rleIou` of pycocotools' maskApi.c, `computeOks` of its cocoeval.py, to the last bit.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from hotcoco import mask as masks
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

#: Pairs looked at together: what fits the caches.
_CHUNK = 1 << 17

#: Spread of each of COCO's 17 keypoints.
_SIGMAS = (
    np.array([0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87, 0.89, 0.89])
    / 10.0
)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Overlapping pairs, ordered by detection, then truth.

    Args:
        detection, truth: int64 [P], rows of the two sides.
        iou: float64 [P], above 0.
    """

    detection: Ints
    truth: Ints
    iou: Floats

    def where(self, chosen: Flags) -> Pairs:
        """The pairs for which `chosen`, bool [P], holds."""
        return Pairs(self.detection[chosen], self.truth[chosen], self.iou[chosen])

    @staticmethod
    def concat(parts: Iterable[Pairs]) -> Pairs:
        """All pairs of `parts`, in their order."""
        lists = list(parts)
        nothing = np.empty(0, np.int64)
        return Pairs(
            np.concatenate([nothing, *(part.detection for part in lists)]),
            np.concatenate([nothing, *(part.truth for part in lists)]),
            np.concatenate([np.empty(0), *(part.iou for part in lists)]),
        )


@dataclass(frozen=True, slots=True)
class Spans:
    """Which truths each detection meets: int64 [N], rows first to first + count."""

    first: Ints
    count: Ints

    @staticmethod
    def of(detection_groups: Ints, truth_groups: Ints) -> Spans:
        """The truths of a detection's group: image, or image and category. `truth_groups` ascend."""
        first = np.searchsorted(truth_groups, detection_groups, "left")
        return Spans(first, np.searchsorted(truth_groups, detection_groups, "right") - first)

    def chunks(self) -> Iterator[tuple[Ints, Ints]]:
        """The rows of both sides of all pairs, about `_CHUNK` at a time."""
        ends = np.cumsum(self.count)
        start = 0
        while start < len(ends):
            base = int(ends[start] - self.count[start])
            stop = max(start + 1, int(np.searchsorted(ends, base + _CHUNK, "right")))
            count = self.count[start:stop]
            shift = self.first[start:stop] - (ends[start:stop] - count - base)
            truth = np.arange(int(ends[stop - 1]) - base, dtype=np.int64) + np.repeat(shift, count)
            yield np.repeat(np.arange(start, stop), count), truth
            start = stop


def runs(groups: Ints) -> Iterator[tuple[int, int]]:
    """Start and stop of each run of equal neighbours."""
    bounds = np.flatnonzero(np.diff(groups)) + 1
    if len(groups):
        yield from pairwise([0, *bounds.tolist(), len(groups)])


def box_pairs(detections: Floats, truths: Floats, iscrowd: Flags, spans: Spans) -> Pairs:
    """Pairs of boxes that overlap. For a crowd it is the share of the detection that lies in it.

    Args:
        detections, truths: float64 [N, 4] and [M, 4] x, y, width, height.
        iscrowd: bool [M].
    """
    left, top, width, height = np.ascontiguousarray(detections.T)
    right, bottom, area = width + left, height + top, width * height
    truth_left, truth_top, truth_width, truth_height = np.ascontiguousarray(truths.T)
    truth_right, truth_bottom = truth_width + truth_left, truth_height + truth_top
    truth_area = truth_width * truth_height
    parts = []
    for d, t in spans.chunks():
        across = np.fmin(right[d], truth_right[t]) - np.fmax(left[d], truth_left[t])
        near = across > 0
        d, t, across = d[near], t[near], across[near]
        down = np.fmin(bottom[d], truth_bottom[t]) - np.fmax(top[d], truth_top[t])
        near = down > 0
        d, t = d[near], t[near]
        both = across[near] * down[near]
        parts.append(Pairs(d, t, both / np.where(iscrowd[t], area[d], area[d] + truth_area[t] - both)))
    return Pairs.concat(parts)


def keypoint_pairs(
    detections: Floats, truths: Floats, boxes: Floats, areas: Floats, spans: Spans, groups: Ints
) -> Pairs:
    """Pairs by object keypoint similarity (https://cocodataset.org/#keypoints-eval).

    Args:
        detections, truths: float64 [N, 51] and [M, 51] x, y, v, x, y, v, …
        boxes, areas: float64 [M, 4] x, y, width, height and [M], of the truths.
        spans: the truths of each detection's group.
        groups: int64 [N], ascending: detections of one group meet the same truths.
    """
    parts = []
    variances = (_SIGMAS * 2) ** 2
    for start, stop in runs(groups):
        xs, ys = detections[start:stop, 0::3], detections[start:stop, 1::3]
        found = np.arange(start, stop, dtype=np.int64)
        for truth in range(int(spans.first[start]), int(spans.first[start] + spans.count[start])):
            visible = truths[truth, 2::3] > 0
            if visible.any():
                dx, dy = xs - truths[truth, 0::3], ys - truths[truth, 1::3]
            else:  # nothing to compare with: the distance to the doubled box
                x, y, width, height = boxes[truth]
                dx = np.maximum(0, x - width - xs) + np.maximum(0, xs - (x + width * 2))
                dy = np.maximum(0, y - height - ys) + np.maximum(0, ys - (y + height * 2))
            error = (dx**2 + dy**2) / variances / (areas[truth] + np.spacing(1)) / 2
            if visible.any():
                error = np.ascontiguousarray(error[:, visible])  # else numpy adds in another order
            similarity = np.sum(np.exp(-error), axis=1) / error.shape[1]
            parts.append(Pairs(found, np.full(len(found), truth), similarity))
    pairs = Pairs.concat(parts)
    order = np.lexsort((pairs.truth, pairs.detection))
    return Pairs(pairs.detection[order], pairs.truth[order], pairs.iou[order]).where(pairs.iou[order] > 0)


def mask_pairs(
    detections: Sequence[bytes | None],
    truths: Sequence[bytes | None],
    sizes: Sequence[tuple[int, int]],
    iscrowd: Flags,
    spans: Spans,
    groups: Ints,
) -> Pairs:
    """Pairs of masks that overlap; as boxes for crowds.

    Args:
        detections, truths: N and M JSON texts of COCO's polygons or RLE.
        sizes: height and width of the image of each truth.
        spans: the truths of each detection's group.
        groups: int64 [N], ascending: detections of one group meet the same truths.

    Raises:
        ValueError: an object without a mask, or polygons in an image of unknown size.
    """
    parts = []
    for start, stop in runs(groups):
        first, count = int(spans.first[start]), int(spans.count[start])
        if not count:
            continue
        there = [run_lengths(truths[row], sizes[row]) for row in range(first, first + count)]
        found = [run_lengths(text, sizes[first]) for text in detections[start:stop]]
        ious = np.asarray(masks.iou(found, there, iscrowd[first : first + count].tolist()))
        d, t = np.nonzero(ious > 0)
        parts.append(Pairs(d + start, t + first, ious[d, t]))
    return Pairs.concat(parts)


def run_lengths(text: bytes | None, size: tuple[int, int]) -> Any:
    """A compressed RLE of the JSON text of polygons or of an RLE; `size` is the image's height and width.

    Raises:
        ValueError: no mask, or polygons in an image of unknown size.
    """
    if text is None:
        raise ValueError("an object has no segmentation")
    value = json.loads(text)
    if isinstance(value, list):
        if not all(size):
            raise ValueError("polygons need the width and height of their image")
        return masks.merge(masks.frPyObjects(value, *size))
    return masks.frPyObjects(value, *size) if isinstance(value["counts"], list) else value
