"""Masks drawn on a picture: a veil in the colour of the class, with a line along the object's edge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.imaging.draw import Colour, line_width
from beam_jobs.masks import Patch

#: How much of the picture the veil hides, of 255.
_VEIL = 90


def draw_masks(pixels: NDArray[np.uint8], masks: Sequence[Patch], colours: Sequence[Colour]) -> NDArray[np.uint8]:
    """A copy of the picture with N masks, the first on top. Lines are those of the boxes, inside the object.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        masks: inside the picture, the strongest first.
        colours: N RGB colours.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the two lengths differ.
    """
    if len(masks) != len(colours):
        raise ValueError(f"masks and colours must be as many, got {len(masks)}, {len(colours)}")
    image = Image.fromarray(pixels)
    width = line_width(*image.size)
    for patch, colour in zip(reversed(masks), reversed(colours), strict=True):
        if patch.pixels.size:
            opacity = np.where(_inner(patch.pixels, width), _VEIL, 255).astype(np.uint8)
            opacity[~patch.pixels] = 0
            rows, columns = patch.pixels.shape
            place = (patch.left, patch.top, patch.left + columns, patch.top + rows)
            image.paste(colour, place, Image.fromarray(opacity))
    return np.asarray(image)


def _inner(pixels: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The pixels all of whose neighbours up to `distance` away, along rows and columns, are the object's."""
    inner = pixels
    for axis in (0, 1):
        whole = np.pad(pixels, [(distance, distance) if a == axis else (0, 0) for a in (0, 1)])
        # The number of the object's pixels up to each place; the difference of two is that in between.
        sums = np.cumsum(whole, axis=axis, dtype=np.int32)
        sums = np.concatenate([np.zeros_like(sums.take([0], axis)), sums], axis=axis)
        span, size = 2 * distance + 1, pixels.shape[axis]
        ends = sums.take(range(span, span + size), axis) - sums.take(range(size), axis)
        inner = inner & (ends == span)
    return inner
