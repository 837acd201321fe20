"""Pictures resized as TensorFlow does it, in numpy: bilinear, without antialiasing."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.intp]


def resize_bilinear(
    picture: NDArray[np.uint8], height: int, width: int, *, half_pixel_centers: bool
) -> NDArray[np.float32]:
    """The picture in another size, the same bits as `tf.raw_ops.ResizeBilinear` gives.

    Args:
        picture: uint8 [h, w, C].
        half_pixel_centers: as in TensorFlow: False is what TF1's `resize_images` did, True is `tf.image.resize`.

    Returns:
        float32 [height, width, C], 0 to 255.
    """
    rows, columns, channels = picture.shape
    left, right, across = _columns(columns, width, channels, half_pixel_centers)
    top, bottom, down = _taps(rows, height, half_pixel_centers)
    # Columns first: `take` on uint8 moves the fewest bytes. TensorFlow also goes across before it goes down.
    flat = picture.reshape(rows, columns * channels)
    narrow = _between(flat.take(left, axis=1), flat.take(right, axis=1), across)
    small = _between(narrow.take(top, axis=0), narrow.take(bottom, axis=0), down[:, None])
    return small.reshape(height, width, channels)


def _between(low: NDArray[np.uint8] | Floats, high: NDArray[np.uint8] | Floats, share: Floats) -> Floats:
    """low + (high - low) * share, in this order and in place."""
    low = low.astype(np.float32, copy=False)
    between: Floats = high.astype(np.float32, copy=False)
    between -= low
    between *= share
    between += low
    return between


@lru_cache(maxsize=64)
def _taps(size: int, wanted: int, half_pixel_centers: bool) -> tuple[Ints, Ints, Floats]:
    """Of each output: the two inputs that it lies between, and its distance from the first of them."""
    scale = np.float32(size) / np.float32(wanted)
    place = np.arange(wanted, dtype=np.float32)
    place = (place + np.float32(0.5)) * scale - np.float32(0.5) if half_pixel_centers else place * scale
    floor = np.floor(place)
    low = np.maximum(floor.astype(np.intp), 0)
    high = np.minimum(np.ceil(place).astype(np.intp), size - 1)
    return low, high, place - floor


@lru_cache(maxsize=64)
def _columns(size: int, wanted: int, channels: int, half_pixel_centers: bool) -> tuple[Ints, Ints, Floats]:
    """`_taps` for rows in which the channels of a pixel lie side by side."""
    low, high, share = _taps(size, wanted, half_pixel_centers)
    beside = np.arange(channels)
    low, high = ((places[:, None] * channels + beside).ravel() for places in (low, high))
    return low, high, np.repeat(share, channels)
