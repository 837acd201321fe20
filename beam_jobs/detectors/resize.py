"""Resizing as the Object Detection API's models are trained with it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import Picture


def resize_bilinear(picture: Picture, height: int, width: int) -> NDArray[np.float32]:
    """A picture of uint8 [any, any, C] as float32 [height, width, C] of 0 to 255, not rounded.

    Bilinear between the four neighbours, without antialiasing; pixel i of the result is taken at i times the scale (so
    neither half-pixel centres nor aligned corners). This is `tf.compat.v1.image.resize_images`, which the API's
    `fixed_shape_resizer` calls: `core/preprocessor.py`, `resize_image`.
    """
    if picture.shape[:2] == (height, width):
        return picture.astype(np.float32)
    rows, columns = _neighbours(picture.shape[0], height), _neighbours(picture.shape[1], width)
    # Along the rows first, and only in the rows that are needed.
    needed, place = np.unique(np.concatenate([rows.low, rows.high]), return_inverse=True)
    strip = picture[needed]
    left = np.take(strip, columns.low, axis=1).astype(np.float32)
    right = np.take(strip, columns.high, axis=1).astype(np.float32)
    right -= left
    right *= columns.share[:, None]
    left += right
    top, bottom = left[place[:height]], left[place[height:]]
    bottom -= top
    bottom *= rows.share[:, None, None]
    top += bottom
    return top


class _Neighbours(NamedTuple):
    """For each pixel of one axis of the result: the two of the picture around it, and how near it is to the second."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    share: NDArray[np.float32]


def _neighbours(size: int, wanted: int) -> _Neighbours:
    # In float32, as TensorFlow's kernel: a share may differ from the exact one.
    places = np.arange(wanted, dtype=np.float32) * np.float32(size / wanted)
    low = places.astype(np.int64)
    return _Neighbours(low, np.minimum(low + 1, size - 1), places - low.astype(np.float32))
