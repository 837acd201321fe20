"""Keypoints drawn on a picture: a dot each, and lines between those that are joined."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from beam_jobs.imaging.draw import Colour, line_width, scale_of

#: Keypoints below it are not drawn: models give all of an object's keypoints a place, those that they cannot see, too.
MIN_KEYPOINT_SCORE = 0.3

#: Pairs of keypoints that are joined, numbered from 1.
Skeleton = Sequence[tuple[int, int]]

# Black, as what is not drawn on: so the two may mix where a picture is made smaller.
_BLACK, _RIM_OPACITY = (0, 0, 0), 140
_WHITE = (255, 255, 255)


def draw_keypoints(
    pixels: NDArray[np.uint8],
    keypoints: NDArray[np.float32],
    skeletons: Sequence[Skeleton],
    colours: Sequence[Colour],
) -> NDArray[np.uint8]:
    """A copy of the picture with the keypoints of N objects whose score is `MIN_KEYPOINT_SCORE` or more.

    Lines are those of the boxes, thinner in small objects, with larger dots; the first object is on top. What lies
    outside of the picture is not seen, and a line that leads there ends at its edge.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        keypoints: float32 [N, K, 3], x, y in pixels and score.
        skeletons: of each object.
        colours: N RGB colours.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the three lengths differ.
    """
    if not len(keypoints) == len(skeletons) == len(colours):
        counts = f"{len(keypoints)}, {len(skeletons)}, {len(colours)}"
        raise ValueError(f"keypoints, skeletons and colours must be as many, got {counts}")
    image = Image.fromarray(pixels)
    for points, skeleton, colour in reversed(list(zip(keypoints, skeletons, colours, strict=True))):
        _draw_one(image, points, skeleton, colour)
    return np.asarray(image)


def _draw_one(image: Image.Image, points: NDArray[np.float32], skeleton: Skeleton, colour: Colour) -> None:
    shown = np.isfinite(points).all(axis=1) & (points[:, 2] >= MIN_KEYPOINT_SCORE)
    if not shown.any():
        return
    # A place far outside may be too far for Pillow: at the distance of a picture nothing of it is seen any more.
    size = np.array(image.size)
    places = np.clip(points[:, :2].astype(float), -size, 2 * size)
    first, last = places[shown].min(axis=0), places[shown].max(axis=0)
    line = float(line_width(*image.size))
    if np.count_nonzero(shown) > 1:  # small people would be blots
        line = max(1.0, min(line, float((last - first).max()) / 50))
    radius, rim = line * 1.8, max(0.8, line * 0.4)
    low = np.maximum(np.floor(first - radius - rim - 1), 0).astype(int)
    high = np.minimum(np.ceil(last + radius + rim + 1), size).astype(int)
    if (low >= high).any():
        return
    # Drawn larger and made smaller, so that slanting lines are smooth; in a large picture nobody would see it.
    zoom = max(1, min(4, math.ceil(4 / scale_of(*image.size))))
    width, height = ((high - low) * zoom).tolist()
    inks, cover = Image.new("RGB", (width, height)), Image.new("L", (width, height))
    at = ((places - low) * zoom).tolist()
    joined = [[*at[a - 1], *at[b - 1]] for a, b in skeleton if shown[a - 1] and shown[b - 1]]
    dots = [at[i] for i in np.flatnonzero(shown).tolist()]

    def layer(ink: Colour, opacity: int, thickness: float, reach: float) -> None:
        on_inks, on_cover = ImageDraw.Draw(inks), ImageDraw.Draw(cover)
        for ends in joined if thickness else ():
            on_inks.line(ends, fill=ink, width=round(thickness * zoom))
            on_cover.line(ends, fill=opacity, width=round(thickness * zoom))
        for dot in dots:
            on_inks.circle(dot, reach * zoom, fill=ink)
            on_cover.circle(dot, reach * zoom, fill=opacity)

    layer(_BLACK, _RIM_OPACITY, line + 2 * rim, radius + rim)
    layer(colour, 255, line, radius)
    layer(_WHITE, 255, 0.0, radius * 0.5)
    image.paste(inks.reduce(zoom), tuple(low.tolist()), cover.reduce(zoom))
