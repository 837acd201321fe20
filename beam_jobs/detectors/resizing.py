"""How a model of the Object Detection API resizes what it is given, so that pictures can be resized before they are.

A model that gets a picture of the size that its resizer would make does nothing more to it. So pictures whose sizes
come out alike may share a call, whatever they were before, and each gives what it gives alone. Padding is left to the
model: it must know where a picture ends, for what it finds there depends on it.

Source: `builders/image_resizer_builder.py` and `core/preprocessor.py` of the API, which call TensorFlow 1's
`tf.image.resize_images`, which `resize` has for pixels. Sizes are in float32, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np


class Size(NamedTuple):
    """Of a picture, in pixels."""

    height: int
    width: int

    @property
    def pixels(self) -> int:
        """Their number."""
        return self.height * self.width


@dataclass(frozen=True, slots=True)
class Resizer:
    """A model's resizer; this one leaves pictures as they are (`identity_resizer`).

    Args:
        method: how pixels are made; only BILINEAR can be done here.
    """

    method: Literal["BILINEAR", "NEAREST_NEIGHBOR", "BICUBIC", "AREA"] = "BILINEAR"

    def size(self, picture: Size) -> Size:
        """The size of a picture after resizing, without padding; may have no pixels, and then the model refuses it."""
        return picture

    def padded(self, picture: Size) -> Size:
        """The size of what the network sees of a picture."""
        return self.size(picture)

    @property
    def align_corners(self) -> bool:
        """Whether the middles of the outermost pixels stay where they are."""
        return False

    def feeds(self, picture: Size) -> Size | None:
        """The size in which a picture may be given to the model instead of its own; None where that changes results."""
        size = self.size(picture)
        if size == picture:
            return size
        return size if self.method == "BILINEAR" and size.pixels and self.size(size) == size else None


@dataclass(frozen=True, slots=True)
class FixedShape(Resizer):
    """`fixed_shape_resizer`: always one size, whatever becomes of the proportions."""

    height: int = 300
    width: int = 300

    def size(self, picture: Size) -> Size:
        """That size."""
        return Size(self.height, self.width)


@dataclass(frozen=True, slots=True)
class KeepAspectRatio(Resizer):
    """`keep_aspect_ratio_resizer`: the largest size with a shorter side of `low` and a longer of `high` at most.

    Args:
        pad: whether the network sees a square of `high`, with the picture in its upper left corner.
    """

    low: int = 600
    high: int = 1024
    pad: bool = False

    def size(self, picture: Size) -> Size:
        """As `tf.image.resize_images(preserve_aspect_ratio=True)` has it: halves are rounded to even."""
        sides = np.array(picture, np.float32)
        limits = (self.low, self.high) if picture.height < picture.width else (self.high, self.low)
        scale = (np.array(limits, np.float32) / sides).min()
        height, width = np.round(scale * sides).astype(int).tolist()
        return Size(height, width)

    def padded(self, picture: Size) -> Size:
        """The square, if it pads."""
        return Size(self.high, self.high) if self.pad else self.size(picture)


@dataclass(frozen=True, slots=True)
class ConditionalShape(Resizer):
    """`conditional_shape_resizer`: pictures beyond a threshold are brought to it, the others stay as they are.

    Args:
        condition: GREATER: the longer side becomes `threshold` where it is above; SMALLER: the shorter where below.
    """

    condition: Literal["GREATER", "SMALLER"] = "GREATER"
    threshold: int = 300

    def size(self, picture: Size) -> Size:
        """Sides are cut to whole pixels, not rounded."""
        sides = np.array(picture, np.float32)
        if self.condition == "GREATER":
            ratio = np.float32(min(max(picture), self.threshold)) / sides.max()
        else:
            ratio = np.float32(max(min(picture), self.threshold)) / sides.min()
        height, width = (sides * ratio).astype(int).tolist()
        return Size(height, width)

    @property
    def align_corners(self) -> bool:
        """As the API calls it here."""
        return True


@dataclass(frozen=True, slots=True)
class PadToMultiple(Resizer):
    """`pad_to_multiple_resizer`: no resizing, only padding to multiples of so many pixels."""

    multiple: int = 1

    def padded(self, picture: Size) -> Size:
        """The next multiples."""
        height, width = (-(-side // self.multiple) * self.multiple for side in picture)
        return Size(height, width)
