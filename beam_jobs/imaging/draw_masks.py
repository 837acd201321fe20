"""Masks drawn on a picture: a veil in the colour of the class, with a line along the object's edge."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.imaging.draw import Colour, line_width
from beam_jobs.masks import Patch

#: How much of the picture they hide, of 255.
_VEIL, _LINE = np.uint8(90), np.uint8(255)


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
            opacity = np.where(_inner(patch.pixels, width), _VEIL, _LINE) * patch.pixels
            rows, columns = patch.pixels.shape
            place = (patch.left, patch.top, patch.left + columns, patch.top + rows)
            image.paste(colour, place, Image.fromarray(opacity))
    return np.asarray(image)


def _inner(pixels: NDArray[np.bool_], distance: int) -> NDArray[np.bool_]:
    """The pixels all of whose neighbours up to `distance` away, along rows and columns, are the object's."""
    across, down = np.pad(pixels, ((0, 0), (distance, distance))), np.pad(pixels, ((distance, distance), (0, 0))).T
    return _all_of(across, 2 * distance + 1) & _all_of(down, 2 * distance + 1).T


def _all_of(lines: NDArray[np.bool_], span: int) -> NDArray[np.bool_]:
    """bool [M, N - span + 1] of bool [M, N]: whether a place and those behind it, `span` in all, are true."""
    done = 1
    while done < span:  # twice as many each time
        step = min(done, span - done)
        lines = lines[:, :-step] & lines[:, step:]
        done += step
    return lines
