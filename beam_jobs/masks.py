"""Mask arithmetic: from a model's grids over boxes to the pixels of the picture.

Source: `reframe_box_masks_to_image_masks` of the Object Detection API's `utils/ops.py`, which stretches each grid with
`tf.image.crop_and_resize`, and the API's own threshold of 0.5. The numbers here are float32 in the same order, so that
the same pixels come out, but for those within float error of the threshold or of the grid's edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.records import BoxMasks

#: Pixels whose interpolated value is above it are the object's.
THRESHOLD = np.float32(0.5)
#: The least width and height of a frame, as a share of the picture: the API's guard against a division by zero.
_LEAST_SIDE = np.float32(1e-4)


@dataclass(frozen=True, slots=True)
class Patch:
    """The mask of one object, where it can be: outside of the patch it is empty.

    Args:
        left, top: of the patch, in pixels of the picture.
        pixels: bool [height, width].
    """

    left: int
    top: int
    pixels: NDArray[np.bool_]

    @property
    def area(self) -> int:
        """The object's pixels."""
        return int(np.count_nonzero(self.pixels))


def patches(masks: BoxMasks, width: int, height: int) -> list[Patch]:
    """The masks of N detections in a picture of `width` x `height` pixels; cut to it, each the size of its box."""
    return [_patch(grid, frame, width, height) for grid, frame in zip(masks.grids, masks.frames, strict=True)]


def _patch(grid: NDArray[np.float32], frame: NDArray[np.float32], width: int, height: int) -> Patch:
    rows, columns = grid.shape
    left, across = _positions(frame[0], frame[2], width, columns)
    top, down = _positions(frame[1], frame[3], height, rows)
    pixels = np.empty((len(down), len(across)), bool)
    if not pixels.size:
        return Patch(left, top, pixels)
    near, share = _split(across)
    far = np.ceil(across).astype(np.intp)
    lines = grid[:, near] + (grid[:, far] - grid[:, near]) * share  # float32 [rows, width of the patch]
    above, share = _split(down)
    # A row of the grid at a time: what it gives stays in the cache.
    starts = np.searchsorted(above, np.arange(rows + 1))
    for row in range(rows):
        start, stop = starts[row], starts[row + 1]
        if start < stop:
            step = lines[min(row + 1, rows - 1)] - lines[row]
            values = np.multiply.outer(share[start:stop], step)
            values += lines[row]
            np.greater(values, THRESHOLD, out=pixels[start:stop])
    return Patch(left, top, pixels)


def _positions(low: np.float32, high: np.float32, size: int, cells: int) -> tuple[int, NDArray[np.float32]]:
    """Where on one axis of the grid the pixels of the picture lie that are on it: the first of them, and float32 [n].

    Args:
        low, high: sides of the frame in pixels.
        size: pixels of the picture on this axis; its first and last lie at the picture's very edges.
        cells: of the grid; its first and last lie at the frame's edges.
    """
    one, last = np.float32(1), np.float32(cells - 1)
    with np.errstate(all="ignore"):  # a frame may reach to infinity: it covers nothing then
        start, end = low / np.float32(size), high / np.float32(size)
        side = np.maximum(end - start, _LEAST_SIDE)
        first, final = -start / side, (one - start) / side
        if size > 1:
            step = (final - first) * last / np.float32(size - 1)
            at = first * last + np.arange(size, dtype=np.float32) * step
        else:
            at = np.array([np.float32(0.5) * (first + final) * last], np.float32)
    inside = np.flatnonzero((at >= 0) & (at <= last))  # neighbours all: `at` ascends
    return (int(inside[0]), at[inside]) if len(inside) else (0, at[:0])


def _split(at: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The cells before positions, and how far behind them these are."""
    whole = np.floor(at)
    return whole.astype(np.intp), at - whole
