"""Detectors that TensorFlow runs: opening one of any kind, and calling it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs, frozen_form
from beam_jobs.detectors.base import BatchKey, CallSplit, DetectorInfo, DetectorSpec, DoesNotFitError, Picture
from beam_jobs.detectors.feeding import Feeding, alike
from beam_jobs.detectors.frozen_graph import import_graph, load_frozen_graph, read_graph
from beam_jobs.detectors.gpu import GPU_CALLERS, claim_gpus
from beam_jobs.detectors.loaded_model import NEEDED, LoadedModel, first_line
from beam_jobs.detectors.model_input import Content, Prepared, fed
from beam_jobs.detectors.resizing import Resizer, Size
from beam_jobs.detectors.saved_model import load_saved_model
from beam_jobs.detectors.scenes import scenes
from beam_jobs.detectors.tensorflow_runtime import set_threads, tf
from beam_jobs.errors import UsageError
from beam_jobs.records import Detections


class TensorFlowDetector:
    """A loaded model, called with one picture at a time, or with several where it has a free batch dimension.

    Boxes are normalised, so they come back in a picture's own pixels.

    Args:
        resizer: what the model does with a picture first, where that is known.
    """

    info: DetectorInfo

    def __init__(self, model: LoadedModel, info: DetectorInfo, resizer: Resizer | None = None) -> None:
        self.model = model
        self.info = info
        self._resizer = resizer
        self._feeding: Feeding | None = None
        self.split = CallSplit()

    def batch_key(self, height: int, width: int) -> BatchKey | None:
        """Of pictures that come to the same shape, where the model takes several."""
        if self._feeding is None:
            self._feeding = self._safe_feeding()
        return self._feeding.key(Size(height, width))

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, as `api_outputs.detections_of` has them.

        Several share a call if they have the same `batch_key`.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
            DoesNotFitError: they need more memory than there is.
            ValueError: the outputs have other shapes than a detector's.
        """
        if len(pictures) > 1:
            keys = {self.batch_key(*picture.shape[:2]) for picture in pictures}
            if len(keys) == 1 and None not in keys and self._feeding is not None:
                start = thread_time()
                prepared = [self._feeding.prepared(picture) for picture in pictures]
                self.split.add(thread_time() - start, 0.0)
                return self._detect(pictures, prepared)
        return [found for picture in pictures for found in self._detect([picture], [picture])]

    def _detect(self, pictures: Sequence[Picture], prepared: Sequence[Prepared]) -> list[Detections]:
        """Of pictures that share a call."""
        outputs = call(self.model, prepared)
        start = thread_time()
        found = [
            api_outputs.detections_of({key: array[i] for key, array in outputs.items()}, *picture.shape[1::-1])
            for i, picture in enumerate(pictures)
        ]
        self.split.add(0.0, thread_time() - start)
        return found

    def _safe_feeding(self) -> Feeding:
        """How pictures are brought to one shape, after a look whether that changes what the model finds."""
        feeding = Feeding(self.model.takes, self._resizer)
        for picture in scenes() if feeding.resizes else ():
            (alone,) = self._detect([picture], [picture])
            (prepared,) = self._detect([picture], [feeding.prepared(picture)])
            if not alike(alone, prepared, Size(*picture.shape[:2])):
                return replace(feeding, resizer=None)
        return feeding


def call(model: LoadedModel, pictures: Sequence[Prepared]) -> dict[str, NDArray[Any]]:
    """The outputs that are read, each with its batch dimension.

    Raises:
        DoesNotFitError: there is not enough memory.
        ValueError: they have other shapes than a detector's.
    """
    try:
        given = model.call(fed(model.takes, pictures))
        outputs = {key: given[key].numpy() for key in model.outputs}
    except tf.errors.ResourceExhaustedError as error:
        raise DoesNotFitError(first_line(error)) from error
    api_outputs.check_shapes(outputs, len(pictures))
    return outputs


def open_tensorflow(spec: DetectorSpec) -> TensorFlowDetector:
    """Loads `spec`, in the form that it says, and calls it once, so that nothing is left to be refused later.

    Raises:
        UsageError: it cannot be loaded or is no detector, or TensorFlow is in use with another number of threads.
    """
    if spec.form == "original":
        return open_original(spec)
    set_threads(spec.threads)
    claim_gpus(spec.gpu_memory_limit_mb)
    entry, nodes = frozen_form.obtain(spec)
    with np.load(entry / frozen_form.WEIGHTS) as weights:
        given = nodes.given(weights.values())
    model = import_graph(read_graph(entry / frozen_form.GRAPH), nodes.input, nodes.outputs, given)
    return detector_of(model, spec, "frozen")


def open_original(spec: DetectorSpec) -> TensorFlowDetector:
    """The same of the model itself, whatever form the spec says."""
    set_threads(spec.threads)
    claim_gpus(spec.gpu_memory_limit_mb)
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
            return TensorFlowDetector(tried, _info(tried, spec, form), spec.resizer)
    raise UsageError(f"{spec.location} fails on a black picture: {'; '.join(failures)}. {NEEDED}.")


def _info(model: LoadedModel, spec: DetectorSpec, form: str) -> DetectorInfo:
    gpus = claim_gpus(spec.gpu_memory_limit_mb)
    details = {
        "form": f"{form}; {spec.form_note}" if spec.form_note else form,
        "input": str(model.takes),
        "outputs": ", ".join(model.outputs),
        "batch": "free" if model.takes.batch is None else "1",
        "device": "GPU" if gpus else "CPU",
        "threads": str(spec.threads),
        "tensorflow": tf.__version__,
    }
    callers = GPU_CALLERS if gpus and model.takes.batch is not None else 1
    return DetectorInfo("tensorflow", details, on_gpu=gpus > 0, callers=callers)
