"""SavedModels with the TF Object Detection API's signature, through TensorFlow.

Signatures: the API's `exporter_lib_v2` with input types `image_tensor` and `float_image_tensor`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs
from beam_jobs.detectors.base import BatchKey, DetectorInfo, DetectorSpec, DoesNotFitError, Picture
from beam_jobs.detectors.feeding import Feeding, trial_picture
from beam_jobs.detectors.resizing import Resizer, Size
from beam_jobs.errors import UsageError
from beam_jobs.records import Detections

# TensorFlow reads it once, on import; a job's own lines would drown in its start-up notes.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf

from beam_jobs.detectors.gpu import GPU_CALLERS, claim_gpus

_SIGNATURE = "serving_default"
_NEEDED = (
    f"A detector has a signature {_SIGNATURE} with one input, uint8 or float32 [1 or None, height, width, 3], "
    f"and the outputs {', '.join(api_outputs.REQUIRED)}."
)


@dataclass(frozen=True, slots=True)
class _Input:
    """The signature's only input; None is free.

    Args:
        dtype: `uint8` or `float32`; both take values of 0 to 255, the model normalises them itself.
    """

    name: str
    dtype: str
    batch: int | None
    height: int | None
    width: int | None


class SavedModelDetector:
    """A loaded SavedModel, called with one picture at a time, or with several where it has a free batch dimension.

    A model of a fixed input size gets pictures resized to it (bilinear, as the API's own resizers do); boxes are
    normalised, so they come back in the picture's own pixels.
    """

    info: DetectorInfo

    def __init__(self, model: Any, signature: Any, takes: _Input, info: DetectorInfo, resizer: Resizer | None) -> None:
        # The signature's variables live only as long as the loaded model does.
        self._model = model
        self._signature = signature
        self._takes = takes
        self.info = info
        self._resizer = resizer
        self._feeding: Feeding | None = None

    def batch_key(self, height: int, width: int) -> BatchKey | None:
        """Of pictures that come to the same shape, where the model takes several."""
        takes = self._takes
        if takes.batch is not None:
            return None
        if takes.height is not None and takes.width is not None:
            return BatchKey((takes.height, takes.width), takes.height * takes.width)
        if self._feeding is None:
            self._feeding = self._safe_feeding()
        return self._feeding.key(Size(height, width))

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        """The detections of each picture, uint8 [height, width, 3] RGB, as `api_outputs.detections_of` has them.

        Several pictures share a call where they have the same `batch_key`.

        Raises:
            InputError: the model gave numbers that cannot be trusted.
            DoesNotFitError: they need more memory than there is.
            ValueError: the outputs have other shapes than a detector's.
        """
        keys = {self.batch_key(*picture.shape[:2]) for picture in pictures}
        shared = len(keys) == 1 and None not in keys
        calls = [pictures] if shared else [[picture] for picture in pictures]
        return [found for call in calls for found in self._detect(call)]

    def _detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        outputs = self._call(self._prepare(pictures))
        return [
            api_outputs.detections_of({key: array[i] for key, array in outputs.items()}, *picture.shape[1::-1])
            for i, picture in enumerate(pictures)
        ]

    def _safe_feeding(self) -> Feeding:
        """How pictures are brought to one shape, after a look whether that changes what the model finds."""
        if self._resizer is None or self._takes.dtype != "float32":
            return Feeding(self._resizer, resizes=False)
        feeding = Feeding(self._resizer, resizes=True)
        picture = trial_picture()
        own = self._call(picture[np.newaxis])
        fed = self._call(feeding.fed(picture)[np.newaxis])
        alike = all(np.allclose(own[key], fed[key], atol=1e-3) for key in own)
        return feeding if alike else Feeding(self._resizer, resizes=False)

    def _prepare(self, pictures: Sequence[Picture]) -> Any:
        """What the model is fed: [N, height, width, 3]."""
        takes = self._takes
        if takes.height is None and takes.width is None:
            if len(pictures) == 1 or self._feeding is None:
                return pictures[0][np.newaxis]
            return np.stack([self._feeding.fed(picture) for picture in pictures])

        def fit(picture: Picture) -> Any:
            size = (takes.height or picture.shape[0], takes.width or picture.shape[1])
            return tf.round(tf.image.resize(picture, size))

        return tf.stack([fit(picture) for picture in pictures])

    def _call(self, batch: Any) -> dict[str, NDArray[Any]]:
        """The outputs for [N, height, width, 3], with their batch dimension of N."""
        try:
            given = self._signature(**{self._takes.name: tf.cast(batch, self._takes.dtype)})
            outputs = {key: given[key].numpy() for key in api_outputs.KEYS if key in given}
        except tf.errors.ResourceExhaustedError as error:
            raise DoesNotFitError(_first_line(error)) from error
        api_outputs.check_shapes(outputs, len(batch))
        return outputs


def open_saved_model(spec: DetectorSpec) -> SavedModelDetector:
    """Loads the SavedModel at `spec.location` and calls it once, so that nothing is left to be refused later.

    Raises:
        UsageError: it cannot be loaded or is no detector, or TensorFlow is in use with another number of threads.
    """
    _set_threads(spec.threads)
    gpus = claim_gpus(spec.gpu_memory_limit_mb)
    try:
        model = tf.saved_model.load(spec.location)
    except Exception as error:  # OSError, ValueError, RuntimeError, OpError …: depends on which byte is wrong
        raise UsageError(f"{spec.location} cannot be loaded as a SavedModel: {_first_line(error)}") from error
    signature = model.signatures.get(_SIGNATURE)
    if signature is None:
        raise _refusal(spec, f"its signatures are: {', '.join(model.signatures) or 'none'}")
    takes = _read_input(spec, signature)
    shape = [takes.batch, takes.height, takes.width, 3]
    details = {
        "input": f"{takes.name} {takes.dtype} {shape}",
        "outputs": ", ".join(key for key in api_outputs.KEYS if key in signature.structured_outputs),
        "batch": "free" if takes.batch is None else "1",
        "device": "GPU" if gpus else "CPU",
        "threads": str(spec.threads),
        "tensorflow": tf.__version__,
    }
    callers = GPU_CALLERS if gpus and takes.batch is not None else 1
    info = DetectorInfo("tensorflow", details, on_gpu=gpus > 0, callers=callers)
    detector = SavedModelDetector(model, signature, takes, info, spec.resizer)
    try:
        detector._call(detector._prepare([np.zeros((320, 320, 3), np.uint8)]))
    except Exception as error:
        raise UsageError(f"{spec.location} fails on a black picture: {_first_line(error)}. {_NEEDED}") from error
    return detector


def _set_threads(threads: int) -> None:
    """One thread pool of `threads`, and one operation at a time: results depend on how sums are split."""
    config = tf.config.threading
    wanted = (threads, 1)
    if (config.get_intra_op_parallelism_threads(), config.get_inter_op_parallelism_threads()) == wanted:
        return
    try:
        config.set_intra_op_parallelism_threads(threads)
        config.set_inter_op_parallelism_threads(1)
    except RuntimeError as error:
        raise UsageError(
            f"TensorFlow already runs in this process with other threads than the {threads} asked for: "
            "open the detector first, or in a process of its own."
        ) from error


def _read_input(spec: DetectorSpec, signature: Any) -> _Input:
    """The signature's input; refuses what is not a detector's signature."""
    inputs: Mapping[str, Any] = signature.structured_input_signature[1]
    outputs: Mapping[str, Any] = signature.structured_outputs
    found = f"its inputs are {_described(inputs)}; its outputs are {_described(outputs)}"
    if len(inputs) != 1 or not all(key in outputs for key in api_outputs.REQUIRED):
        raise _refusal(spec, found)
    (tensor,) = inputs.values()
    if tensor.dtype == tf.string:
        raise _refusal(spec, f"{found}; it takes encoded pictures: export it with --input_type image_tensor")
    shape = tensor.shape.as_list() if tensor.shape.rank == 4 else [0]
    if tensor.dtype not in (tf.uint8, tf.float32) or shape[0] not in (1, None) or shape[-1] != 3:
        raise _refusal(spec, found)
    # The keyword is the dictionary's key; the tensor's own name may differ from it.
    return _Input(next(iter(inputs)), tensor.dtype.name, *shape[:3])


def _refusal(spec: DetectorSpec, found: str) -> UsageError:
    return UsageError(f"{spec.location} is not a detector: {found}. {_NEEDED}")


def _described(tensors: Mapping[str, Any]) -> str:
    return _listed(
        {
            key: f"{tensor.dtype.name} {tensor.shape.as_list() if tensor.shape.rank is not None else 'of any shape'}"
            for key, tensor in sorted(tensors.items())
        }
    )


def _listed(items: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {item}" for key, item in items.items()) or "none"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:500].rstrip(".")
