"""Detectors through LiteRT, from their `litert_form`. TensorFlow is not imported here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from time import thread_time
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from beam_jobs.boxes import from_normalised_yxyx
from beam_jobs.detectors.base import CallSplit, DetectorInfo, DetectorSpec, Picture
from beam_jobs.detectors.litert_form import NETWORK, Form
from beam_jobs.detectors.nms import just_below
from beam_jobs.detectors.raw_outputs import PostProcessing, detections_of_raw
from beam_jobs.detectors.resizing import Size
from beam_jobs.detectors.tflite import open_interpreter
from beam_jobs.errors import InputError, UsageError
from beam_jobs.records import Detections


class LitertDetector:
    """An opened form, called with one picture at a time."""

    info: DetectorInfo

    def __init__(self, network: Any, form: Form, min_score: float, info: DetectorInfo) -> None:
        self._network = network
        self._form = form
        self._post = None if form.post is None else _asking(form.post, min_score)
        signature = network.get_signature_runner()
        self._inputs = {name: each["index"] for name, each in signature.get_input_details().items()}
        self._outputs = {name: each["index"] for name, each in signature.get_output_details().items()}
        self.info = info
        self.split = CallSplit()

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, best first.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
        """
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Picture) -> Detections:
        start = thread_time()
        given, size = self._form.prepared(picture)
        prepared = thread_time()
        outputs = self._call(given, size)
        height, width = picture.shape[:2]
        inferred = thread_time()
        if self._post is None:
            found = _detections_of_whole(outputs, width, height)
        else:
            inside = (size.height / self._form.height, size.width / self._form.width)
            found = detections_of_raw(outputs["boxes"], outputs["scores"], width, height, self._post, inside)
        self.split.add(prepared - start, thread_time() - inferred)
        return found

    def _call(self, given: NDArray[np.float32], size: Size) -> dict[str, NDArray[np.float32]]:
        """The outputs of the network by name, without their batch dimension."""
        self._network.set_tensor(self._inputs["picture"], given[np.newaxis])
        if "true_shape" in self._inputs:
            self._network.set_tensor(self._inputs["true_shape"], np.array([[*size, 3]], np.int32))
        self._network.invoke()
        return {name: self._network.get_tensor(index)[0] for name, index in self._outputs.items()}


def _asking(post: PostProcessing, min_score: float) -> PostProcessing:
    """For detections of a score of `min_score` or more."""
    # A detection has no influence on a better one: those that nobody asks for need not be looked at.
    score = max(post.rules.score, float(just_below(min_score)))
    return replace(post, rules=replace(post.rules, score=score))


def _detections_of_whole(outputs: dict[str, NDArray[np.float32]], width: int, height: int) -> Detections:
    scores = outputs["scores"]
    if not np.isfinite(scores.sum()):
        raise InputError("infer", "inference", "The model gave scores that are not finite numbers.")
    n = np.count_nonzero(scores > 0)  # they come first
    category_ids = np.rint(outputs["classes"][:n]).astype(np.int32)
    return Detections(from_normalised_yxyx(outputs["boxes"][:n], width, height), scores[:n], category_ids)


def open_litert(folder: Path, spec: DetectorSpec) -> LitertDetector:
    """Opens the form of `spec` in `folder`.

    Raises:
        UsageError: it cannot be opened.
    """
    try:
        form = Form.read(folder)
        network = open_interpreter(str(folder / NETWORK), spec.threads)
    except (OSError, ValueError, RuntimeError, msgspec.MsgspecError) as error:
        raise UsageError(f"{folder} cannot be opened with LiteRT: {str(error).splitlines()[0]}") from error
    details = {
        "form": "litert",
        "input": f"float32 [1, {form.height}, {form.width}, 3]",
        "outputs": "boxes, scores (suppressed here)" if form.post else "boxes, scores, classes",
        "batch": "1",
        "threads": str(spec.threads),
        "litert": version("ai-edge-litert"),
    }
    return LitertDetector(network, form, spec.min_score, DetectorInfo("litert", details))
