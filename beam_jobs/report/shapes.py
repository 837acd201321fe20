"""Masks and keypoints of truths and detections: read for the few images of a page, and drawn on their pictures."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from hotcoco import mask as masks
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from beam_jobs.evaluation.overlaps import run_lengths
from beam_jobs.formats.evaluated import IouType
from beam_jobs.formats.image_join import Joined
from beam_jobs.formats.results import ResultSource
from beam_jobs.imaging.draw import Colour

#: Which object: `truth` or `detection`, its image, and its truth_id, or its number in the image.
Key = tuple[str, int, int]

#: COCO's person, keypoints counted from 1 (https://cocodataset.org/#format-data, `skeleton`).
_SKELETON = (
    *((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11)),
    *((2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7)),
)
_DARK: Colour = (20, 20, 20)
#: How much of the picture a mask hides.
_VEIL = 0.38
#: Drawn so many times as large, and made smaller, so that slanting lines are smooth.
_ZOOM = 3


@dataclass(frozen=True, slots=True)
class Shape:
    """What there is of an object besides its box.

    Args:
        segmentation: the JSON text of COCO's polygons or RLE; None for none.
        keypoints: x, y, v of COCO's 17; those with v = 0 are not there. None: ().
    """

    segmentation: bytes | None = None
    keypoints: tuple[float, ...] = ()


def shapes_of(
    iou_type: IouType, image_ids: Collection[int], objects: pa.Table, results: Iterable[pa.Table]
) -> dict[Key, Shape]:
    """The shapes in some images, of what is compared: masks, keypoints, or nothing.

    Args:
        image_ids: of the truth.
        objects: rows of `TRUTH_OBJECTS`.
        results: rows of `RESULTS` with the truth's image ids; a table at a time.
    """
    found: dict[Key, Shape] = {}
    if iou_type == "bbox":
        return found
    column = "segmentation" if iou_type == "segm" else "keypoints"
    wanted = pa.array(sorted(image_ids), pa.int64())
    tables = [("truth", "truth_id", objects), *(("detection", "detection", table) for table in results)]
    for kind, number, table in tables:
        some = table.filter(pc.is_in(table["image_id"], value_set=wanted)).select(["image_id", number, column])
        for row in some.to_pylist():
            value = row[column]
            if value is not None:
                shape = Shape(value) if iou_type == "segm" else Shape(keypoints=_there(kind, value))
                found[kind, row["image_id"], row[number]] = shape
    return found


def results_in(sources: Sequence[ResultSource], joined: Joined, image_ids: Collection[int]) -> Iterable[pa.Table]:
    """Rows of `RESULTS` of the sources that have some of these images of the truth, with its image ids."""
    ids = joined.image_ids[np.isin(joined.truth_ids, np.array(list(image_ids), np.int64))]
    for source in sources:
        if np.isin(source.read_images()["image_id"].to_numpy(), ids).any():
            yield joined.of_truth(source.read().results)


@dataclass(frozen=True, slots=True)
class Frame:
    """A part of a picture as it is shown.

    Args:
        picture: width and height of all of it.
        part: left, top, right, bottom in it.
        size: width and height of the part where it is shown.
    """

    picture: tuple[int, int]
    part: tuple[int, int, int, int]
    size: tuple[int, int]

    def places(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Points float64 [..., 2] of the picture, where they are shown."""
        left, top, right, bottom = self.part
        return (points - (left, top)) * (self.size[0] / (right - left), self.size[1] / (bottom - top))


def draw_shapes(
    pixels: NDArray[np.uint8], frame: Frame, shapes: Sequence[Shape], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    """A copy of what is shown of a picture, with N shapes, the first on top.

    Args:
        pixels: uint8 [height, width, 3], RGB, of the frame's size.
    """
    image = Image.fromarray(pixels)
    for shape, colour in reversed([*zip(shapes, colours, strict=True)]):
        if shape.segmentation is not None:
            _draw_mask(image, frame, shape.segmentation, colour)
        if shape.keypoints:
            _draw_keypoints(image, frame.places(np.array(shape.keypoints).reshape(-1, 3)[:, :2]), shape, colour)
    return np.asarray(image)


def _there(kind: str, values: Sequence[float]) -> tuple[float, ...]:
    """Keypoints with v = 0 where there is none; of a detection v says nothing, and one that is at 0, 0 is none."""
    points = np.array(values).reshape(-1, 3)
    if kind == "detection":
        points[:, 2] = (points[:, :2] != 0).any(axis=1)
    return tuple(points.ravel().tolist())


def _draw_mask(image: Image.Image, frame: Frame, segmentation: bytes, colour: Colour) -> None:
    width, height = frame.picture
    try:
        mask = np.asarray(masks.decode(run_lengths(segmentation, (height, width))), np.uint8)
    except (ValueError, KeyError, TypeError):
        return  # metrics have been computed: a mask that only the page cannot take costs the page no more than it
    left, top, right, bottom = frame.part
    cut = Image.fromarray(mask[top:bottom, left:right] * np.uint8(255)).resize(frame.size, Image.Resampling.BILINEAR)
    inside = cut.point(lambda value: 255 if value >= 128 else 0)
    inner = np.asarray(inside.filter(ImageFilter.MinFilter(3)))
    cover = np.where(inner > 0, round(255 * _VEIL), 255) * (np.asarray(inside) > 0)
    image.paste(colour, (0, 0), Image.fromarray(cover.astype(np.uint8)))


def _draw_keypoints(image: Image.Image, places: NDArray[np.float64], shape: Shape, colour: Colour) -> None:
    there = np.array(shape.keypoints[2::3]) > 0
    if not there.any():
        return
    size = (image.width * _ZOOM, image.height * _ZOOM)
    inks, cover = Image.new("RGB", size), Image.new("L", size)
    # Far outside there is nothing to see, and nothing that Pillow could draw.
    at = (np.clip(places, -image.width - image.height, 2 * (image.width + image.height)) * _ZOOM).tolist()
    spread = float(np.ptp(places[there], axis=0).max())
    line = max(1.0, min(2.0, spread / 50))
    joined = [
        (*at[a - 1], *at[b - 1])
        for a, b in _SKELETON
        if b <= len(at) and a <= len(at) and there[a - 1] and there[b - 1]
    ]
    for ink, more in ((_DARK, 0.8), (colour, 0.0)):
        for canvas, fill in ((ImageDraw.Draw(inks), ink), (ImageDraw.Draw(cover), 255)):
            for ends in joined:
                canvas.line(ends, fill=fill, width=round((line + 2 * more) * _ZOOM))
            for x, y in (at[index] for index in np.flatnonzero(there).tolist()):
                radius = (line * 1.6 + more) * _ZOOM
                canvas.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    image.paste(inks.reduce(_ZOOM), (0, 0), cover.reduce(_ZOOM))
