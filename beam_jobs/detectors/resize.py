"""Resizing as the Object Detection API's models are trained with it, in numpy."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def resize_bilinear(
    picture: NDArray[np.uint8] | Floats, height: int, width: int, *, align_corners: bool = False
) -> Floats:
    """A picture of uint8 or float32 [any, any, C] as float32 [height, width, C] of 0 to 255, not rounded.

    Bilinear between the four neighbours, without antialiasing: the same bits as `tf.compat.v1.image.resize_images`,
    which the API's resizers call (`core/preprocessor.py`).

    Args:
        align_corners: the middles of the outermost pixels stay where they are; else pixel i of the result is taken at i
            times the scale.
    """
    rows, columns, channels = picture.shape
    if (rows, columns) == (height, width):
        return picture.astype(np.float32)
    across = _interleaved(columns, width, channels, align_corners)
    down = _neighbours(rows, height, align_corners)
    # Across first, as TensorFlow does, while a number is a byte. The channels of a pixel lie side by side.
    flat = picture.reshape(rows, columns * channels)
    if rows > 2 * height:  # those between are nobody's neighbours
        narrow = _across(flat.take(np.concatenate([down.low, down.high]), axis=0), across)
        above, below = narrow[:height], narrow[height:]
    else:
        narrow = _across(flat, across)
        above, below = narrow.take(down.low, axis=0), narrow.take(down.high, axis=0)
    return _between(above, below, down.share[:, None]).reshape(height, width, channels)


def _across(rows: NDArray[np.uint8] | Floats, across: _Neighbours) -> Floats:
    return _between(rows.take(across.low, axis=1), rows.take(across.high, axis=1), across.share)


class _Neighbours(NamedTuple):
    """For each place of one axis of the result: the two of the picture around it, and how near it is to the second."""

    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: Floats


@lru_cache(maxsize=64)
def _neighbours(size: int, wanted: int, align_corners: bool) -> _Neighbours:
    # In float32, as TensorFlow's kernel: a share may differ from the exact one.
    if align_corners and wanted > 1:
        scale = np.float32(size - 1) / np.float32(wanted - 1)
    else:
        scale = np.float32(size) / np.float32(wanted)
    places = np.arange(wanted, dtype=np.float32) * scale
    low = np.floor(places)
    high = np.minimum(np.ceil(places), size - 1)
    return _Neighbours(np.minimum(low, size - 1).astype(np.intp), high.astype(np.intp), places - low)


@lru_cache(maxsize=64)
def _interleaved(size: int, wanted: int, channels: int, align_corners: bool) -> _Neighbours:
    """`_neighbours` of the numbers in a row."""
    low, high, share = _neighbours(size, wanted, align_corners)
    beside = np.arange(channels)
    low, high = ((places[:, None] * channels + beside).ravel() for places in (low, high))
    return _Neighbours(low, high, np.repeat(share, channels))


def _between(low: NDArray[np.uint8] | Floats, high: NDArray[np.uint8] | Floats, share: Floats) -> Floats:
    """low + (high - low) * share, in this order."""
    low = low.astype(np.float32, copy=False)
    between: Floats = high.astype(np.float32, copy=False)
    between -= low
    between *= share
    between += low
    return between
