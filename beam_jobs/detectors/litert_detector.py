"""Detectors through LiteRT, from their `litert_form`. TensorFlow is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import thread_time
from typing import Any

import msgspec
import numpy as np

from beam_jobs.detectors.base import CallSplit, DetectorInfo, DetectorSpec, Picture
from beam_jobs.detectors.litert_form import NETWORK, Form
from beam_jobs.detectors.nms import Suppression, just_below
from beam_jobs.detectors.raw_outputs import PostProcessing, detections_of_raw
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.tflite import invoke, open_interpreter
from beam_jobs.errors import UsageError
from beam_jobs.records import Detections


class LitertDetector:
    """An opened form, called with one picture at a time."""

    info: DetectorInfo

    def __init__(self, network: Any, form: Form, min_score: float, info: DetectorInfo) -> None:
        self._network = network
        self._form = form
        # A detection has no influence on a better one: those that nobody asks for need not be looked at.
        rules = Suppression(form.iou, max(np.float32(form.score), just_below(min_score)), form.per_class, form.total)
        self._how = PostProcessing(rules, form.first_category)
        self._input = network.get_input_details()[0]["index"]
        outputs = network.get_signature_runner().get_output_details()
        self._outputs = [outputs[name]["index"] for name in ("boxes", "scores")]
        self.info = info
        self.split = CallSplit()

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, best first.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
        """
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Picture) -> Detections:
        form, start = self._form, thread_time()
        small = resize_bilinear(picture, form.height, form.width)
        prepared = thread_time()
        boxes, scores = invoke(self._network, self._input, small[np.newaxis], self._outputs)
        height, width = picture.shape[:2]
        inferred = thread_time()
        found = detections_of_raw(boxes[0], scores[0], width, height, self._how)
        self.split.add(prepared - start, thread_time() - inferred)
        return found


def open_litert_form(spec: DetectorSpec) -> LitertDetector:
    """Opens the form in the folder `spec.location`.

    Raises:
        UsageError: it cannot be opened.
    """
    folder = Path(spec.location)
    try:
        form = Form.read(folder)
        network = open_interpreter(str(folder / NETWORK), spec.threads)
    except (OSError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
        raise UsageError(f"{folder} cannot be opened with LiteRT: {str(error).splitlines()[0]}") from error
    details = {
        "input": f"float32 [1, {form.height}, {form.width}, 3]",
        "outputs": "boxes, scores (suppressed here)",
        "batch": "1",
        "threads": str(spec.threads),
        "litert": version("ai-edge-litert"),
    }
    return LitertDetector(network, form, spec.min_score, DetectorInfo("litert", details))
