"""The form in which LiteRT runs a detector: a network up to its raw boxes and scores, and what lies around it.

A form is a folder with `network.tflite` and `form.json`. The network takes one picture, float32
[1, height, width, 3] of 0 to 255, already of its size
(`resize.resize_bilinear`); its outputs are `boxes` [1, A, 4], ymin, xmin, ymax, xmax as
shares of the picture, and `scores` [1, A, C], 0 to 1. What follows the network is `raw_outputs`.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

NETWORK, DESCRIPTION = "network.tflite", "form.json"


class Form(msgspec.Struct, frozen=True):
    """`form.json`: what lies around the network.

    Args:
        height, width: of the network's input, in pixels.
        iou, score, per_class, total: see `nms.Suppression`.
        first_category: see `raw_outputs.PostProcessing`.
    """

    height: int
    width: int
    iou: float
    score: float
    per_class: int
    total: int
    first_category: int = 1

    def write(self, folder: Path) -> None:
        """Writes it into the form's folder."""
        (folder / DESCRIPTION).write_bytes(msgspec.json.format(msgspec.json.encode(self)) + b"\n")

    @staticmethod
    def read(folder: Path) -> Form:
        """That of the form's folder."""
        return msgspec.json.decode((folder / DESCRIPTION).read_bytes(), type=Form)
