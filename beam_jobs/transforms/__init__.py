"""Beam steps. They wire; the functions that work are in the rooms below.

For pipelines of one's own there are `Detect`, and `DetectorModelHandler` for Beam's RunInference. Each is imported when
it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beam_jobs.transforms.model_handler import DetectorModelHandler
    from beam_jobs.transforms.pictures import Detect, Detected, DetectedObject, DetectedPicture, FailedPicture

__all__ = ["Detect", "Detected", "DetectedObject", "DetectedPicture", "DetectorModelHandler", "FailedPicture"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "model_handler" if name == "DetectorModelHandler" else "pictures"
    return getattr(import_module(f"{__name__}.{home}"), name)
