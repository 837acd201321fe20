"""Annotated pictures: which detections are drawn, and what their labels say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.formats.coco_keypoints import SKELETON, are_of_people
from beam_jobs.imaging.decode import Decoded, encode
from beam_jobs.imaging.draw import class_colour, draw
from beam_jobs.imaging.draw_keypoints import draw_keypoints
from beam_jobs.imaging.draw_masks import draw_masks
from beam_jobs.masks import Patch, patches
from beam_jobs.records import Detections


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is drawn.

    Args:
        min_score: detections below it are left out.
        max_boxes: the best so many.
        class_agnostic: one colour, and the score alone in the label.
        frames: of clips, the numbers of the frames that are drawn.
        every_frame: of clips, those whose number is a multiple of it are drawn; None for no others.
    """

    min_score: float = 0.30
    max_boxes: int = 200
    class_agnostic: bool = False
    frames: tuple[int, ...] = ()
    every_frame: int | None = None

    def draws(self, frame: int) -> bool:
        """Whether a frame of a clip, with this number, is drawn."""
        return frame in self.frames or (self.every_frame is not None and frame % self.every_frame == 0)


def annotated(decoded: Decoded, found: Detections, categories: Mapping[int, str], annotation: Annotation) -> bytes:
    """The picture's file with `found` (best first) drawn on it.

    In the picture's own format; as PNG where that cannot hold so many pixels a side.
    """
    pixels = drawn_on(decoded.pixels, found, categories, annotation)
    try:
        return encode(pixels, decoded.format)
    except ValueError:
        # A GIF's frame may reach farther than a GIF can say, so that what was read cannot be written.
        return encode(pixels, "PNG")


def drawn_on(
    pixels: NDArray[np.uint8],
    found: Detections,
    categories: Mapping[int, str],
    annotation: Annotation,
    track_ids: NDArray[np.int32] | None = None,
    masks: Sequence[Patch] | None = None,
) -> NDArray[np.uint8]:
    """A copy of the picture with `found` (best first) drawn on it, masks under keypoints under boxes.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        found: N detections.
        categories: names by id.
        annotation: what is drawn.
        track_ids: int32 [N], shown in the labels (`person 0.87 #3`); 0 where a detection has no track.
        masks: N masks, where they are known as pixels and `found` has none.
    """
    shown = np.flatnonzero(found.scores >= annotation.min_score)[: annotation.max_boxes]
    drawn = found.take(shown)
    labels = [f"{score:.2f}" for score in drawn.scores.tolist()]
    if track_ids is not None:
        tracks = track_ids[shown].tolist()
        labels = [f"{label} #{track}" if track else label for label, track in zip(labels, tracks, strict=True)]
    if annotation.class_agnostic:
        colours = [class_colour(0)] * len(drawn)
    else:
        ids = drawn.category_ids.tolist()
        labels = [f"{categories.get(i, str(i))} {label}" for i, label in zip(ids, labels, strict=True)]
        colours = [class_colour(i) for i in ids]
    if drawn.masks is not None:
        height, width = pixels.shape[:2]
        pixels = draw_masks(pixels, patches(drawn.masks, width, height), colours)
    elif masks is not None:
        pixels = draw_masks(pixels, [masks[i] for i in shown.tolist()], colours)
    if drawn.keypoints is not None:
        count = drawn.keypoints.shape[1]
        people = [are_of_people(categories.get(i, ""), count) for i in drawn.category_ids.tolist()]
        pixels = draw_keypoints(pixels, drawn.keypoints, [SKELETON if one else () for one in people], colours)
    return draw(pixels, drawn.boxes, labels, colours)
