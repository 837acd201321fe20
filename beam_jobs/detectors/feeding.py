"""In which shape a model of a free batch dimension is fed a picture, so that several pictures make one array."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import BatchKey, Picture
from beam_jobs.detectors.resizing import Resizer, Size, resize


@dataclass(frozen=True, slots=True)
class Feeding:
    """How pictures come to one shape.

    Args:
        resizer: the model's own; None where it is not known.
        resizes: whether pictures are resized before the model would do it. It must not notice, so it must take floats:
            as bytes, resized pictures are rounded.
    """

    resizer: Resizer | None
    resizes: bool

    def key(self, picture: Size) -> BatchKey | None:
        """Of a picture of this size; None for one of which the model leaves no pixel, and so refuses it."""
        seen = picture if self.resizer is None else self.resizer.padded(picture)
        return BatchKey(self._size(picture), seen.pixels) if seen.pixels else None

    def fed(self, picture: Picture) -> NDArray[np.uint8] | NDArray[np.float32]:
        """The picture in the shape of its key."""
        size = Size(*picture.shape[:2])
        target = self._size(size)
        if self.resizer is None or target == size:
            return picture
        return resize(picture, target, align_corners=self.resizer.align_corners)

    def _size(self, picture: Size) -> Size:
        feeds = self.resizer.feeds(picture) if self.resizer and self.resizes else None
        return feeds or picture


def trial_picture() -> Picture:
    """Noise of an odd size: what a model finds in it depends on how it is resized."""
    return np.random.default_rng(0).integers(0, 256, (211, 317, 3), np.uint8)
