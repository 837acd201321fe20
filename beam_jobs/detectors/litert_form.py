"""The form in which LiteRT runs a detector: a network up to its raw boxes and scores, and what lies around it.

A form is a folder with `network.tflite` and `form.json`; in a model folder of the zoo's layout it is `litert/`, beside
`saved_model/`. The network's one signature takes one picture, `picture` float32 [1, height, width, 3] of 0 to 255,
already of its size. It is of one of two kinds:

- Raw: it gives `boxes` [1, A, 4], ymin, xmin, ymax, xmax as shares of its input, and `scores` [1, A, C], 0 to 1. What
  follows it is `raw_outputs`.
- Whole: it takes also `true_shape`, int32 [1, 3], the height and width of the picture inside its input, and 3. It gives
  `boxes` [1, K, 4] as shares of the picture, `scores` [1, K], best first, 0 where there is none, and `classes` [1, K],
  from 1: all float32.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import Picture
from beam_jobs.detectors.raw_outputs import PostProcessing
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.resizing import KeepAspectRatio, Size

FOLDER = "litert"
#: What `pipeline.config` calls the models that can have one.
FAMILIES = ("ssd", "center_net")
NETWORK, DESCRIPTION = "network.tflite", "form.json"


class Letterbox(msgspec.Struct, frozen=True):
    """How a picture keeps its proportions in the network's input: in the upper left corner.

    Args:
        low, high: see `KeepAspectRatio`.
        colour: of the rest, R, G, B; what the network knows as 0.
    """

    low: int
    high: int
    colour: tuple[float, float, float]


class Form(msgspec.Struct, frozen=True):
    """`form.json`: what lies around the network.

    Args:
        height, width: of the network's input, in pixels.
        post: what follows a raw network; None for a whole one.
        letterbox: None where pictures are resized to the input's size whatever becomes of their proportions.
    """

    height: int
    width: int
    post: PostProcessing | None = None
    letterbox: Letterbox | None = None

    def prepared(self, picture: Picture) -> tuple[NDArray[np.float32], Size]:
        """A picture, uint8 [any, any, 3], as the network takes it, float32 [height, width, 3]; its size in there."""
        if self.letterbox is None:
            return resize_bilinear(picture, self.height, self.width), Size(self.height, self.width)
        size = KeepAspectRatio(low=self.letterbox.low, high=self.letterbox.high).size(Size(*picture.shape[:2]))
        whole = np.empty((self.height, self.width, 3), np.float32)
        whole[: size.height, : size.width] = resize_bilinear(picture, *size)
        whole[size.height :] = whole[:, size.width :] = self.letterbox.colour
        return whole, size

    def write(self, folder: Path) -> None:
        """Writes it into the form's folder."""
        (folder / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @staticmethod
    def read(folder: Path) -> Form:
        """That of the form's folder."""
        return msgspec.json.decode((folder / DESCRIPTION).read_bytes(), type=Form)


def beside(saved_model: Path) -> Path | None:
    """The form in the model folder of a SavedModel; None where there is none."""
    folder = saved_model.with_name(FOLDER)
    return folder if saved_model.name == "saved_model" and (folder / DESCRIPTION).is_file() else None
