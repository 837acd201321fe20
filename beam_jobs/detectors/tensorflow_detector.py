"""Detectors that TensorFlow runs: opening one of any kind, and calling it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs, frozen_form
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec, Picture
from beam_jobs.detectors.frozen_graph import import_graph, load_frozen_graph, read_graph
from beam_jobs.detectors.loaded_model import NEEDED, LoadedModel, first_line
from beam_jobs.detectors.model_input import Content, fed
from beam_jobs.detectors.saved_model import load_saved_model
from beam_jobs.detectors.tensorflow_runtime import set_threads, tf
from beam_jobs.errors import UsageError
from beam_jobs.records import Detections


class TensorFlowDetector:
    """A loaded model, called with one picture at a time. Boxes are normalised, so they come back in its own pixels."""

    info: DetectorInfo

    def __init__(self, model: LoadedModel, info: DetectorInfo) -> None:
        self.model = model
        self.info = info

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, as `api_outputs.detections_of` has them.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
            ValueError: the outputs have other shapes than a detector's.
        """
        return [found for picture in pictures for found in self._detect([picture])]

    def _detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """Of pictures that share a call, and so a shape."""
        outputs = call(self.model, pictures)
        height, width = pictures[0].shape[:2]
        return [
            api_outputs.detections_of({key: array[i] for key, array in outputs.items()}, width, height)
            for i in range(len(pictures))
        ]


def call(model: LoadedModel, pictures: Sequence[Picture]) -> dict[str, NDArray[Any]]:
    """The outputs that are read, each with its batch dimension.

    Raises:
        ValueError: they have other shapes than a detector's.
    """
    given = model.call(fed(model.takes, pictures))
    outputs = {key: given[key].numpy() for key in model.outputs}
    api_outputs.check_shapes(outputs)
    return outputs


def open_tensorflow(spec: DetectorSpec) -> TensorFlowDetector:
    """Loads `spec`, in the form that it says, and calls it once, so that nothing is left to be refused later.

    Raises:
        UsageError: it cannot be loaded or is no detector, or TensorFlow is in use with another number of threads.
    """
    if spec.form == "original":
        return open_original(spec)
    set_threads(spec.threads)
    entry, nodes = frozen_form.obtain(spec)
    with np.load(entry / frozen_form.WEIGHTS) as weights:
        given = nodes.given(weights.values())
    model = import_graph(read_graph(entry / frozen_form.GRAPH), nodes.input, nodes.outputs, given)
    return detector_of(model, spec, "frozen")


def open_original(spec: DetectorSpec) -> TensorFlowDetector:
    """The same of the model itself, whatever form the spec says."""
    set_threads(spec.threads)
    load = load_frozen_graph if spec.kind == "frozen_graph" else load_saved_model
    return detector_of(load(spec.location), spec, spec.kind)


def detector_of(model: LoadedModel, spec: DetectorSpec, form: str) -> TensorFlowDetector:
    """A detector of a model that was loaded for `spec`; calls it once, which also tells what its strings are.

    Args:
        form: what was loaded, for people.

    Raises:
        UsageError: the call fails.
    """
    contents: tuple[Content, ...] = ("pixels",) if model.takes.content == "pixels" else ("encoded", "tf_example")
    failures = []
    for content in contents:
        tried = replace(model, takes=replace(model.takes, content=content))
        try:
            call(tried, [np.zeros((320, 320, 3), np.uint8)])
        except Exception as error:
            failures.append(first_line(error))
        else:
            return TensorFlowDetector(tried, _info(tried, spec, form))
    raise UsageError(f"{spec.location} fails on a black picture: {'; '.join(failures)}. {NEEDED}.")


def _info(model: LoadedModel, spec: DetectorSpec, form: str) -> DetectorInfo:
    details = {
        "form": f"{form}; {spec.form_note}" if spec.form_note else form,
        "input": str(model.takes),
        "outputs": ", ".join(model.outputs),
        "batch": "free" if model.takes.batch is None else "1",
        "threads": str(spec.threads),
        "tensorflow": tf.__version__,
    }
    return DetectorInfo("tensorflow", details)
