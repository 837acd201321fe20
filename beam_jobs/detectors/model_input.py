"""The one input of a detector, and how pictures are put into it.

Source: `exporter_lib_v2` of the API, and its predecessor `exporter` for TF1, with the input types `image_tensor`,
`float_image_tensor`, `encoded_image_string_tensor` and `tf_example`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.detectors.base import Picture
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.tensorflow_runtime import tf
from beam_jobs.formats.tf_example import make_example

#: What the input holds: pixels, encoded pictures, or tf.Examples with one in each.
Content = Literal["pixels", "encoded", "tf_example"]

#: A picture, or what was made of it for an input of floats.
Prepared = Picture | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ModelInput:
    """The input of a model; None is free.

    Args:
        name: the keyword, or the tensor's name.
        dtype: `uint8` or `float32`, of 0 to 255 either (the model normalises them itself), or `string`.
        batch: 1 or None.
        height, width: of pixels; None for strings.
        content: of strings: a signature does not tell encoded pictures from tf.Examples; a call does.
    """

    name: str
    dtype: str
    batch: int | None
    height: int | None = None
    width: int | None = None
    content: Content = "pixels"

    def __str__(self) -> str:
        if self.dtype == "string":
            return f"{self.name} string [{self.batch}], {self.content}"
        return f"{self.name} {self.dtype} {[self.batch, self.height, self.width, 3]}"


def read_input(name: str, spec: Any) -> ModelInput | None:
    """The input that a TensorSpec describes; None when it is no detector's."""
    shape = spec.shape.as_list() if spec.shape.rank is not None else None
    if spec.dtype == tf.string and (shape is None or (len(shape) == 1 and shape[0] in (1, None))):
        return ModelInput(name, "string", shape[0] if shape else None, content="encoded")
    # TF1's exports may leave the shape open altogether.
    batch, height, width, channels = shape if shape is not None and len(shape) == 4 else (0, 0, 0, 0)
    if spec.dtype not in (tf.uint8, tf.float32) or batch not in (1, None) or channels != 3:
        return None
    return ModelInput(name, spec.dtype.name, batch, height, width)


def fed(takes: ModelInput, pictures: Sequence[Prepared]) -> Any:
    """The tensor of a call with `pictures`, uint8 [height, width, 3] RGB; of one shape, unless the input fixes it or is
    strings.

    A model of a fixed input size gets them resized to it (bilinear, as the API's own resizers do). Strings hold the
    pixels without loss, so that what decoding means (EXIF, 16 bits, CMYK …) stays the same for all models.
    """
    if takes.content != "pixels":
        files = [_png(picture) for picture in pictures]
        return tf.constant([_example(file) for file in files] if takes.content == "tf_example" else files)
    if takes.height is not None or takes.width is not None:
        batch = np.stack([_resized(takes, picture) for picture in pictures])
    else:
        batch = tf.constant(np.stack(pictures) if len(pictures) > 1 else pictures[0][np.newaxis])
    return tf.cast(batch, takes.dtype)


def _resized(takes: ModelInput, picture: Prepared) -> NDArray[np.float32]:
    resized = resize_bilinear(picture, takes.height or picture.shape[0], takes.width or picture.shape[1])
    return np.rint(resized) if takes.dtype == "uint8" else resized


def _png(picture: Prepared) -> bytes:
    file = io.BytesIO()
    # Without compression: written twice as fast, and TensorFlow reads it many times faster than it reads BMP.
    Image.fromarray(picture).save(file, "PNG", compress_level=0)
    return file.getvalue()


def _example(encoded: bytes) -> bytes:
    return make_example({"image/encoded": encoded, "image/format": "png"})
