"""From a picture to the input of a TFLite model: size, normalisation and quantisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import Picture
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.tflite_model import Normalisation, TfliteTensor

#: What the API's SSDs with a MobileNet take: -1 to 1.
_API_NORMALISATION: Normalisation = (127.5,), (127.5,)
#: What else integer inputs are seen to take: 0 to 1, and 0 to 255.
_OTHER_NORMALISATIONS: tuple[Normalisation, ...] = (((0.0,), (255.0,)), ((0.0,), (1.0,)))
#: An integer input whose levels differ by at most this from the pixels' own takes the pixels as they are. Scales and
#: zero points are rounded, and a training that counts in 128ths (TF1's) is a level off at white.
_MAX_LEVELS_OFF = 1.5


@dataclass(frozen=True, slots=True)
class TfliteInput:
    """How a picture becomes the input tensor: resized, then `pixel * gain + offset`, then rounded if it is an integer.

    Args:
        index: the tensor's number in the graph.
        gain, offset: one number, or one a channel.
        words: the same for people.
    """

    index: int
    height: int
    width: int
    dtype: np.dtype[Any]
    gain: NDArray[np.float32]
    offset: NDArray[np.float32]
    words: str

    def tensor_of(self, picture: Picture) -> NDArray[Any]:
        """uint8 [any, any, 3] RGB as [1, height, width, 3] of the input's dtype."""
        values = resize_bilinear(picture, self.height, self.width)
        values *= self.gain
        values += self.offset
        if self.dtype.kind != "f":
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return values.astype(self.dtype, copy=False)[np.newaxis]


def input_of(tensor: TfliteTensor, normalisation: Normalisation | None) -> TfliteInput:
    """How pictures are given to `tensor`.

    A float input gets what the metadata say, or else -1 to 1. So does an integer one, in its steps; where that comes to
    the pixels themselves, they are given as they are.

    Args:
        normalisation: that of the file's metadata, if they have one.

    Raises:
        ValueError: it cannot take pictures; the message says why, or nothing where its shape and dtype do.
    """
    if len(tensor.shape) != 4 or tensor.dtype not in ("uint8", "int8", "float32"):
        raise ValueError
    batch, height, width, channels = tensor.shape
    if batch not in (1, -1) or height < 1 or width < 1 or channels != 3:
        raise ValueError
    mean, std = (np.array(each) for each in normalisation or _API_NORMALISATION)
    if len(mean) not in (1, 3) or len(std) not in (1, 3) or not np.isfinite(mean).all() or not (std > 0).all():
        raise ValueError("its metadata give no usable mean and std")
    scale, zero = tensor.quantisation or (1.0, 0)
    if tensor.dtype == "int8" and tensor.quantisation is None:
        raise ValueError("its int8 input has no scale and zero point")
    dtype = np.dtype(tensor.dtype)
    gain, offset = _levels(tensor, mean, std)
    source = "by its metadata" if normalisation else "assumed, as for the API's SSD MobileNets: the file does not say"
    words = f"(pixel - {_listed(mean)}) / {_listed(std)}, {source}"
    if dtype.kind != "f":
        lowest = int(np.iinfo(dtype).min)
        if _takes_pixels(tensor, normalisation, lowest):
            gain, offset, words = np.ones(1), np.full(1, lowest), "as they are" if lowest == 0 else f"pixel - {-lowest}"
        else:
            words += f"; scale {scale:.6g}, zero point {zero}"
    return TfliteInput(tensor.index, height, width, dtype, gain.astype(np.float32), offset.astype(np.float32), words)


def _levels(tensor: TfliteTensor, mean: NDArray[Any], std: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Gain and offset from pixels to the tensor's levels, for a model that takes (pixel - mean) / std."""
    scale, zero = tensor.quantisation or (1.0, 0)
    return 1 / (std * scale), zero - mean / (std * scale)


def _takes_pixels(tensor: TfliteTensor, normalisation: Normalisation | None, lowest: int) -> bool:
    """Whether the levels of an integer input, `lowest` and up, are those of the pixels, but for roundings.

    Without metadata the input's range tells which of the usual normalisations it is for.
    """
    if tensor.quantisation is None:
        return True
    for each in (normalisation,) if normalisation else (_API_NORMALISATION, *_OTHER_NORMALISATIONS):
        gain, offset = _levels(tensor, *map(np.array, each))
        off = offset - lowest, 255 * gain + offset - lowest - 255  # of black, of white
        if max(np.abs(levels).max() for levels in off) <= _MAX_LEVELS_OFF:
            return True
    return False


def _listed(numbers: NDArray[Any]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
