"""Detectors that TensorFlow runs: opening one of any kind, and calling it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from time import thread_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs, frozen_form
from beam_jobs.detectors.base import BatchKey, CallSplit, DetectorInfo, DetectorSpec, DoesNotFitError, Picture
from beam_jobs.detectors.feeding import Feeding, Sharing, alike
from beam_jobs.detectors.frozen_graph import import_graph, load_frozen_graph, read_graph
from beam_jobs.detectors.gpu import GPU_CALLERS, claim_gpus
from beam_jobs.detectors.halves import cut
from beam_jobs.detectors.loaded_model import NEEDED, LoadedModel, first_line
from beam_jobs.detectors.model_input import Content, fed
from beam_jobs.detectors.resizing import Resizer, Size
from beam_jobs.detectors.saved_model import load_saved_model
from beam_jobs.detectors.scenes import scenes
from beam_jobs.detectors.tensorflow_runtime import set_threads, tf
from beam_jobs.errors import InputError, UsageError
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
        self._found: Sharing | None = None
        self.split = CallSplit()

    def batch_key(self, height: int, width: int) -> BatchKey | None:
        """Of pictures that come to the same shape, where the model takes several."""
        return self._sharing().key(Size(height, width))

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
            if len(keys) == 1 and None not in keys:
                return self._together(self._sharing(), pictures)
        return [self._alone(picture) for picture in pictures]

    def _alone(self, picture: Picture) -> Detections:
        outputs = call(self.model, picture)
        (found,) = self._detections(outputs, [picture])
        return found

    def _together(self, sharing: Sharing, pictures: Sequence[Picture]) -> list[Detections]:
        """Of pictures of one key, in one call."""
        start = thread_time()
        with _fitting():
            ready = [sharing.ready(picture) for picture in pictures]
        self.split.add(thread_time() - start, 0.0)
        outputs = _fetched(lambda: sharing.call(ready), self.model.outputs, len(pictures))
        return self._detections(outputs, pictures)

    def _detections(self, outputs: Mapping[str, NDArray[Any]], pictures: Sequence[Picture]) -> list[Detections]:
        start = thread_time()
        found = [
            api_outputs.detections_of({key: array[i] for key, array in outputs.items()}, *picture.shape[1::-1])
            for i, picture in enumerate(pictures)
        ]
        self.split.add(0.0, thread_time() - start)
        return found

    def _sharing(self) -> Sharing:
        """How pictures come to share calls, after a look whether that changes what the model finds."""
        if self._found is None:
            halves, feeding = cut(self.model), Feeding(self.model, self._resizer)
            if halves is not None and self._finds_the_same(halves):
                self._found = halves
            elif feeding.resizes and not self._finds_the_same(feeding):
                self._found = replace(feeding, resizer=None)
            else:
                self._found = feeding
        return self._found

    def _finds_the_same(self, sharing: Sharing) -> bool:
        """Whether the same is found in made pictures as alone, by shared calls of those of one key."""
        by_key: dict[BatchKey | None, list[Picture]] = {}
        for picture in scenes():
            by_key.setdefault(sharing.key(Size(*picture.shape[:2])), []).append(picture)
        by_key.pop(None, None)
        for pictures in by_key.values():
            alone = [self._alone(picture) for picture in pictures]
            try:
                together = self._together(sharing, pictures)
            except (tf.errors.OpError, ValueError, InputError, DoesNotFitError):
                return False
            sizes = [Size(*picture.shape[:2]) for picture in pictures]
            if not all(map(alike, alone, together, sizes)):
                return False
        return True


def call(model: LoadedModel, picture: Picture) -> dict[str, NDArray[Any]]:
    """The outputs that are read, each with its batch dimension, for one picture.

    Raises:
        DoesNotFitError: there is not enough memory.
        ValueError: they have other shapes than a detector's.
    """
    return _fetched(lambda: model.call(fed(model.takes, [picture])), model.outputs, 1)


def _fetched(run: Callable[[], Mapping[str, Any]], outputs: Sequence[str], pictures: int) -> dict[str, NDArray[Any]]:
    with _fitting():
        given = run()
        found = {key: given[key].numpy() for key in outputs}
    api_outputs.check_shapes(found, pictures)
    return found


@contextmanager
def _fitting() -> Iterator[None]:
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise DoesNotFitError(first_line(error)) from error


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
            call(tried, np.zeros((320, 320, 3), np.uint8))
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
