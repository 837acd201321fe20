"""A detector that needs no model, and counts its pictures: a byte of a file for each that it was given."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import numpy as np

from beam_jobs.detectors.base import DetectorInfo, Picture
from beam_jobs.records import Detections

#: Names the file that is counted in, and the seconds that a picture takes.
COUNT, SECONDS = "BEAM_DETECT_CHAOS_COUNT", "BEAM_DETECT_CHAOS_SECONDS"


class Counting:
    """Finds the darkest and the brightest half of a picture; what it finds depends on every pixel."""

    info = DetectorInfo("python")

    def __init__(self) -> None:
        path = os.environ.get(COUNT)
        self._count = None if path is None else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        self._seconds = float(os.environ.get(SECONDS, "0"))

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Two boxes a picture."""
        if self._count is not None:
            os.write(self._count, b"." * len(pictures))
        time.sleep(self._seconds * len(pictures))
        return [_halves(picture) for picture in pictures]


def _halves(picture: Picture) -> Detections:
    height, width = picture.shape[:2]
    half = width // 2
    boxes = np.array([[0, 0, half, height], [half, 0, width, height]], np.float32)
    means = [float(picture[:, :half].mean()), float(picture[:, half:].mean())]
    scores = np.array([0.5 + mean / 512 for mean in means], np.float32)
    return Detections(boxes, scores, np.array([1, 2], np.int32))


def make() -> Counting:
    """The detector."""
    return Counting()


make.categories = {1: "left", 2: "right"}  # type: ignore[attr-defined]
