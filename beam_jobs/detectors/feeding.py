"""In which shape a model of a free batch dimension is fed a picture, so that several pictures make one call.

Of a model that cannot be cut in `halves`: pictures of one size share a call, or those that come to one size by the
model's resizer, where that can be done before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from beam_jobs.detectors.base import BatchKey, Picture
from beam_jobs.detectors.loaded_model import LoadedModel
from beam_jobs.detectors.model_input import Prepared, fed
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.resizing import Resizer, Size
from beam_jobs.records import Detections


class Sharing(Protocol):
    """How pictures come to share calls of a model."""

    def key(self, picture: Size) -> BatchKey | None:
        """Of a picture of this size; None where it stays alone."""

    def ready(self, picture: Picture) -> Any:
        """What is made of a picture before the call."""

    def call(self, ready: Sequence[Any]) -> Mapping[str, Any]:
        """The outputs for several pictures of one key, as tensors by name."""


@dataclass(frozen=True, slots=True)
class Feeding:
    """How pictures come to one shape.

    Args:
        resizer: the model's own; None where it is not known.
    """

    model: LoadedModel
    resizer: Resizer | None

    @property
    def resizes(self) -> bool:
        """Whether pictures are resized here, before the model would do it.

        It must not notice, so it must take floats: as bytes, resized pictures are rounded.
        """
        takes = self.model.takes
        is_open = takes.batch is None and takes.height is None and takes.width is None
        return self.resizer is not None and takes.dtype == "float32" and is_open

    def key(self, picture: Size) -> BatchKey | None:
        """Of a picture of this size; None where it stays alone."""
        takes = self.model.takes
        if takes.batch is not None:
            return None
        if takes.height is not None and takes.width is not None:
            return BatchKey((takes.height, takes.width), takes.height * takes.width)
        seen = picture if self.resizer is None else self.resizer.padded(picture)
        if not seen.pixels or takes.height is not None or takes.width is not None:
            return None
        # Encoded pictures are put together by the model, after its resizer.
        return BatchKey(self._size(picture) if takes.content == "pixels" else seen, seen.pixels)

    def ready(self, picture: Picture) -> Prepared:
        """The picture in the shape of its key, as far as that is not done later."""
        size = Size(*picture.shape[:2])
        target = self._size(size)
        if self.resizer is None or target == size:
            return picture
        return resize_bilinear(picture, *target, align_corners=self.resizer.align_corners)

    def call(self, ready: Sequence[Prepared]) -> Mapping[str, Any]:
        """The outputs for several pictures of one key, as tensors by name."""
        return self.model.call(fed(self.model.takes, ready))

    def _size(self, picture: Size) -> Size:
        feeds = self.resizer.feeds(picture) if self.resizer and self.resizes else None
        return feeds or picture


#: Of a box, as a share of the picture's diagonal; of a score. Far more than what resizing here or in the model differs
#: by (the order of resizing and normalising is not the same in all models), and far less than what a wrong config does.
_BOX_TOLERANCE, _SCORE_TOLERANCE = 5e-3, 1e-3
#: So many detections must have their like. Not all: where scores are tied, others may be kept.
_LEAST_ALIKE = 0.9


def alike(expected: Detections, found: Detections, picture: Size) -> bool:
    """Whether two calls found the same in a picture, but for rounding."""
    if len(expected) != len(found):
        return False
    limit = _BOX_TOLERANCE * float(np.hypot(*picture))
    like = expected.category_ids[:, None] == found.category_ids
    like &= np.abs(expected.scores[:, None] - found.scores) <= _SCORE_TOLERANCE
    like &= np.abs(expected.boxes[:, None] - found.boxes).max(axis=2, initial=0.0) <= limit
    return bool(like.any(axis=1).sum() >= _LEAST_ALIKE * len(expected))
