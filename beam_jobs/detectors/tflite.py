"""TFLite detectors, through LiteRT: models that end in the operator TFLite_Detection_PostProcess.

They are what the Object Detection API's `export_tflite_graph_tf2.py` (TF1: `export_tflite_ssd_graph.py`) and the TFLite
converter make. TensorFlow is not needed, and is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs
from beam_jobs.detectors.base import CallSplit, DetectorInfo, DetectorSpec, Picture
from beam_jobs.detectors.flatbuffer import FlatbufferError
from beam_jobs.detectors.tflite_input import TfliteInput, input_of
from beam_jobs.detectors.tflite_model import POSTPROCESS, TfliteModel, read_model
from beam_jobs.errors import UsageError
from beam_jobs.records import Detections

_NEEDED = (
    "A TFLite detector has one input, uint8, int8 or float32 [1, height, width, 3], and gives the four outputs of the "
    f"operator {POSTPROCESS}."
)
#: The names of the operator's outputs, in its order.
_OUTPUTS = (api_outputs.BOXES, api_outputs.CLASSES, api_outputs.SCORES, api_outputs.COUNT)


class TfliteDetector:
    """A loaded TFLite model, called with one picture at a time, resized to its input; boxes come back in its pixels."""

    info: DetectorInfo

    def __init__(self, interpreter: Any, takes: TfliteInput, outputs: Sequence[int], info: DetectorInfo) -> None:
        self._interpreter = interpreter
        self._takes = takes
        self._outputs = outputs
        self.info = info
        self.split = CallSplit()

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, as `api_outputs.detections_of` has them.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
            ValueError: the outputs have other shapes than a detector's.
        """
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Picture) -> Detections:
        height, width = picture.shape[:2]
        start = thread_time()
        tensor = self._takes.tensor_of(picture)
        self.split.add(thread_time() - start, 0.0)  # what follows the network is part of it
        named = dict(zip(_OUTPUTS, invoke(self._interpreter, self._takes.index, tensor, self._outputs), strict=True))
        api_outputs.check_shapes(named)
        count = float(np.ravel(named[api_outputs.COUNT])[0])
        # The operator leaves the rows past its count as the memory was: they may be anything, also not numbers.
        n = min(max(int(count), 0), named[api_outputs.SCORES].shape[1]) if np.isfinite(count) else 0
        found = {key: named[key][0, :n] for key in api_outputs.REQUIRED}
        found[api_outputs.CLASSES] = found[api_outputs.CLASSES] + 1  # it counts classes from 0
        return api_outputs.detections_of(found | {api_outputs.COUNT: named[api_outputs.COUNT]}, width, height)


def open_interpreter(file: str, threads: int) -> Any:
    """A LiteRT interpreter with XNNPACK, ready to be called.

    Raises:
        ValueError, RuntimeError: LiteRT does not open the file, or lacks an operator.
    """
    interpreter = Interpreter(model_path=file, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def invoke(interpreter: Any, index: int, tensor: NDArray[Any], outputs: Sequence[int]) -> list[NDArray[Any]]:
    """One call: copies of the tensors `outputs` for the input `tensor`, all by the interpreter's numbers."""
    interpreter.set_tensor(index, tensor)
    interpreter.invoke()
    return [interpreter.get_tensor(output) for output in outputs]


def open_tflite(spec: DetectorSpec) -> TfliteDetector:
    """Loads the file at `spec.location` and calls it once, so that nothing is left to be refused later.

    Raises:
        UsageError: it cannot be loaded, or is no detector; the message says what was found and what is needed.
    """
    try:
        model = read_model(Path(spec.location).read_bytes())
    except FlatbufferError as error:
        raise UsageError(f"{spec.location} is cut off or damaged: {error}. Fetch or make it again.") from error
    except OSError as error:
        raise UsageError(f"{spec.location} cannot be read: {error.strerror}.") from error
    takes = _read_input(spec, model)
    try:
        interpreter = open_interpreter(spec.location, spec.threads)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"LiteRT cannot open {spec.location}: {_in_one_line(error)}") from error
    details = {
        "input": str(model.inputs[0]),
        "pixels": takes.words,
        "outputs": ", ".join(_OUTPUTS),
        "batch": "1",
        "threads": str(spec.threads),
        "litert": version("ai-edge-litert"),
    }
    detector = TfliteDetector(interpreter, takes, model.postprocess, DetectorInfo("litert", details))
    try:
        detector.detect([np.zeros((320, 320, 3), np.uint8)])
    except Exception as error:
        raise UsageError(f"{spec.location} fails on a black picture: {_in_one_line(error)}. {_NEEDED}") from error
    return detector


def _read_input(spec: DetectorSpec, model: TfliteModel) -> TfliteInput:
    """The graph's input; refuses what is not a detector's graph."""
    if not model.postprocess:
        raise _refusal(spec, model, f"it does not have the operator {POSTPROCESS}")
    if len(model.postprocess) != len(_OUTPUTS) or not set(model.postprocess) <= {each.index for each in model.outputs}:
        raise _refusal(spec, model, f"it does not give all that {POSTPROCESS} does")
    if len(model.inputs) != 1:
        raise _refusal(spec, model)
    try:
        return input_of(model.inputs[0], model.normalisation)
    except ValueError as error:
        raise _refusal(spec, model, str(error)) from error


def _refusal(spec: DetectorSpec, model: TfliteModel, found: str = "") -> UsageError:
    inputs, outputs = (", ".join(map(str, each)) or "none" for each in (model.inputs, model.outputs))
    what = f"{found}; " * bool(found) + f"its inputs are {inputs}; its outputs are {outputs}"
    return UsageError(f"{spec.location} is not a detector: {what}. {_NEEDED}")


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ("; ".join(lines) or type(error).__name__)[:500].rstrip(".")
