"""SavedModels with the signature of the TF Object Detection API, of TF2 and of TF1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from beam_jobs.detectors import api_outputs
from beam_jobs.detectors.loaded_model import NEEDED, LoadedModel, first_line, outputs_of, refusal
from beam_jobs.detectors.model_input import read_input
from beam_jobs.detectors.tensorflow_runtime import tf
from beam_jobs.errors import UsageError

_SIGNATURE = "serving_default"
_NEEDED = f"{NEEDED}, in a signature {_SIGNATURE}"


def load_saved_model(location: str) -> LoadedModel:
    """Loads the SavedModel in the folder `location`.

    Raises:
        UsageError: it cannot be loaded, or its signature is not a detector's.
    """
    try:
        model = tf.saved_model.load(location)
    except Exception as error:  # OSError, ValueError, RuntimeError, OpError …: depends on which byte is wrong
        raise UsageError(f"{location} cannot be loaded as a SavedModel: {first_line(error)}") from error
    signature = model.signatures.get(_SIGNATURE)
    if signature is None:
        raise refusal(location, f"its signatures are: {', '.join(model.signatures) or 'none'}", _NEEDED)
    inputs: Mapping[str, Any] = signature.structured_input_signature[1]
    outputs: Mapping[str, Any] = signature.structured_outputs
    # The keyword is the dictionary's key; the tensor's own name may differ from it.
    takes = read_input(*next(iter(inputs.items()))) if len(inputs) == 1 else None
    if takes is None or not all(key in outputs for key in api_outputs.REQUIRED):
        found = f"its inputs are {_described(inputs)}; its outputs are {_described(outputs)}"
        raise refusal(location, found, _NEEDED)
    name = takes.name
    # The signature's variables live only as long as the loaded model does.
    return LoadedModel(
        lambda tensor: signature(**{name: tensor}), takes, outputs_of(outputs), function=signature, owner=model
    )


def _described(tensors: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_kind(tensor)}" for key, tensor in sorted(tensors.items())) or "none"


def _kind(tensor: Any) -> str:
    return f"{tensor.dtype.name} {tensor.shape.as_list() if tensor.shape.rank is not None else 'of any shape'}"
