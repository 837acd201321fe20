"""A model that TensorFlow has loaded, whatever it was stored as; what a detector must have."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from beam_jobs.detectors import api_outputs
from beam_jobs.detectors.model_input import ModelInput
from beam_jobs.errors import UsageError

NEEDED = (
    "A detector has one input, uint8 or float32 [1 or None, height, width, 3] or string [None], "
    f"and the outputs {', '.join(api_outputs.REQUIRED)}"
)

_IS_ABOUT_PLACES = re.compile(
    r"Graph execution error:|Detected at node .* defined at|<stack traces unavailable>|\s*File "
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A function of one tensor, with the API's outputs.

    Args:
        call: gives the outputs for a batch, as tensors by name: those in `outputs`, and perhaps others.
        outputs: the names in `api_outputs.KEYS` that it has.
        function: the concrete function that is called.
        owner: what must live as long as the function, such as its variables.
    """

    call: Callable[[Any], Mapping[str, Any]]
    takes: ModelInput
    outputs: tuple[str, ...]
    function: Any
    owner: Any = None


def outputs_of(names: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of the API's outputs that are among `names`."""
    return tuple(key for key in api_outputs.KEYS if key in names)


def refusal(location: str, found: str, needed: str) -> UsageError:
    """What is at `location` is not a detector."""
    return UsageError(f"{location} is not a detector: {found}. {needed}.")


def first_line(error: Exception) -> str:
    """What an error of TensorFlow's says, which may be pages long: the first line that is not about where it was."""
    lines = [line for line in str(error).splitlines() if line.strip() and not _IS_ABOUT_PLACES.match(line)]
    return (lines or [type(error).__name__])[0].strip()[:500].rstrip(".")
