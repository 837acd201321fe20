"""TFLite detectors, through LiteRT: models that end in the operator TFLite_Detection_PostProcess.

They are what the Object Detection API's `export_tflite_graph_tf2.py` (TF1: `export_tflite_ssd_graph.py`) and the TFLite
converter make. TensorFlow is not needed, and is not imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec, Picture
from beam_jobs.detectors.flatbuffer import FlatbufferError
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.tflite_model import POSTPROCESS, Normalisation, TfliteModel, TfliteTensor, read_model
from beam_jobs.errors import UsageError
from beam_jobs.records import Detections

_NEEDED = (
    "A TFLite detector has one input, uint8, int8 or float32 [1, height, width, 3], and gives the four outputs of the "
    f"operator {POSTPROCESS}."
)
#: The names of the operator's outputs, in its order.
_OUTPUTS = (api_outputs.BOXES, api_outputs.CLASSES, api_outputs.SCORES, api_outputs.COUNT)
#: What the API's SSDs with a MobileNet take: -1 to 1.
_API_NORMALISATION: Normalisation = (127.5,), (127.5,)
#: An integer input whose levels differ by at most this from the pixels' own takes the pixels as they are. Scales and
#: zero points are rounded, and a training that counts in 128ths (TF1's) is a level off at white.
_MAX_LEVELS_OFF = 1.5


@dataclass(frozen=True, slots=True)
class _Input:
    """How a picture becomes the input tensor: resized, then `pixel * gain + offset`, then rounded if it is an integer.

    Args:
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
        """[1, height, width, 3] of the input's dtype."""
        values = resize_bilinear(picture, self.height, self.width)
        values *= self.gain
        values += self.offset
        if self.dtype.kind != "f":
            limits = np.iinfo(self.dtype)
            values = np.clip(np.rint(values), limits.min, limits.max)
        return values.astype(self.dtype, copy=False)[np.newaxis]


class TfliteDetector:
    """A loaded TFLite model, called with one picture at a time, resized to its input; boxes come back in its pixels."""

    info: DetectorInfo

    def __init__(self, interpreter: Any, takes: _Input, outputs: Sequence[int], info: DetectorInfo) -> None:
        self._interpreter = interpreter
        self._takes = takes
        self._outputs = outputs
        self.info = info

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, as `api_outputs.detections_of` has them.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
            ValueError: the outputs have other shapes than a detector's.
        """
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Picture) -> Detections:
        height, width = picture.shape[:2]
        tensor = self._takes.tensor_of(picture)
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


def _read_input(spec: DetectorSpec, model: TfliteModel) -> _Input:
    """The graph's input; refuses what is not a detector's graph."""
    if not model.postprocess:
        raise _refusal(spec, model, f"it does not have the operator {POSTPROCESS}")
    if len(model.postprocess) != len(_OUTPUTS) or not set(model.postprocess) <= {each.index for each in model.outputs}:
        raise _refusal(spec, model, f"it does not give all that {POSTPROCESS} does")
    tensor = model.inputs[0] if len(model.inputs) == 1 else None
    if tensor is None or len(tensor.shape) != 4 or tensor.dtype not in ("uint8", "int8", "float32"):
        raise _refusal(spec, model)
    batch, height, width, channels = tensor.shape
    if batch not in (1, -1) or height < 1 or width < 1 or channels != 3:
        raise _refusal(spec, model)
    if tensor.dtype == "int8" and tensor.quantisation is None:
        raise _refusal(spec, model, "its int8 input has no scale and zero point")
    if not _is_usable(model.normalisation):
        raise _refusal(spec, model, "its metadata give no usable mean and std")
    gain, offset, words = _scaling(tensor, model.normalisation)
    return _Input(tensor.index, height, width, np.dtype(tensor.dtype), gain, offset, words)


def _is_usable(normalisation: Normalisation | None) -> bool:
    if normalisation is None:
        return True
    mean, std = (np.array(each) for each in normalisation)
    return len(mean) in (1, 3) and len(std) in (1, 3) and bool(np.isfinite(mean).all() and (std > 0).all())


def _scaling(
    tensor: TfliteTensor, normalisation: Normalisation | None
) -> tuple[NDArray[np.float32], NDArray[np.float32], str]:
    """Gain and offset from pixels of 0 to 255 to the input's values, and in words."""
    mean, std = map(np.array, normalisation or _API_NORMALISATION)
    source = "by its metadata" if normalisation else "assumed, as for the API's SSD MobileNets: the file does not say"
    words = f"(pixel - {_listed(mean)}) / {_listed(std)}, {source}"
    if tensor.dtype == "float32":
        return (1 / std).astype(np.float32), (-mean / std).astype(np.float32), words
    lowest = int(np.iinfo(tensor.dtype).min)
    as_they_are = (
        np.ones(1, np.float32),
        np.full(1, lowest, np.float32),
        "as they are" if lowest == 0 else "pixel - 128",
    )
    if tensor.quantisation is None:
        return as_they_are
    scale, zero = tensor.quantisation
    # Without metadata the range of an integer input says what it takes: -1 to 1 as above, 0 to 1, or 0 to 255.
    others = [] if normalisation else [(np.zeros(1), np.full(1, 255.0)), (np.zeros(1), np.ones(1))]
    for real_mean, real_std in [(mean, std), *others]:
        black, white = (zero + (value - real_mean) / (real_std * scale) for value in (0, 255))
        if max(np.abs(black - lowest).max(), np.abs(white - lowest - 255).max()) <= _MAX_LEVELS_OFF:
            return as_they_are
    gain, offset = 1 / (std * scale), zero - mean / (std * scale)
    return gain.astype(np.float32), offset.astype(np.float32), f"{words}; in steps of {scale:.6g} around {zero}"


def _refusal(spec: DetectorSpec, model: TfliteModel, found: str = "") -> UsageError:
    inputs, outputs = (", ".join(map(str, each)) or "none" for each in (model.inputs, model.outputs))
    what = f"{found}; " * bool(found) + f"its inputs are {inputs}; its outputs are {outputs}"
    return UsageError(f"{spec.location} is not a detector: {what}. {_NEEDED}")


def _listed(numbers: NDArray[Any]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)


def _in_one_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return ("; ".join(lines) or type(error).__name__)[:500].rstrip(".")
