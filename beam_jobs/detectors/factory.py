"""A detector of one's own: `module:factory`, where `factory()` gives an object with `info` and `detect`."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from beam_jobs.detectors.base import Detector, DetectorInfo, DetectorSpec
from beam_jobs.errors import UsageError

_LOCATION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def is_location(model: str) -> bool:
    """Whether `model` reads as `module:factory`; dots are allowed on both sides."""
    return _LOCATION.fullmatch(model) is not None


def load_factory(location: str) -> Callable[[], Any]:
    """The factory that `module:factory` names; the current folder is searched first.

    Raises:
        UsageError: the module cannot be imported, or has no such callable.
    """
    module_name, _, path = location.partition(":")
    # As gunicorn and uvicorn do: an installed program's sys.path lacks the folder that it is run in.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory: Any = importlib.import_module(module_name)
    except Exception as error:
        raise UsageError(
            f"--model {location}: the module {module_name} cannot be imported: {type(error).__name__}: {error}. "
            "It must be installed or lie in the current folder."
        ) from error
    for name in path.split("."):
        if not hasattr(factory, name):
            near = difflib.get_close_matches(name, dir(factory), 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            raise UsageError(f"--model {location}: {module_name} has no {path}{hint}")
        factory = getattr(factory, name)
    if not callable(factory):
        raise UsageError(
            f"--model {location}: {path} is of type {type(factory).__name__}. It must be a function or class that is "
            "called without arguments and gives a detector."
        )
    return cast(Callable[[], Any], factory)


def fingerprint_of(location: str, factory: Callable[[], Any]) -> str:
    """sha256 (hex) for the factory: of its attribute `fingerprint`, or else of its module's source file.

    The attribute is taken as it is when it is a sha256 already; a detector with weights should have one that covers
    them.

    Raises:
        UsageError: neither is there, or the attribute is not a non-empty text.
    """
    said = getattr(factory, "fingerprint", None)
    if said is None:
        file = getattr(sys.modules[location.partition(":")[0]], "__file__", None)
        if file is None:
            raise UsageError(f"--model {location}: the module has no source file. Give the factory a `fingerprint`.")
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    if not isinstance(said, str) or not said:
        raise UsageError(f"--model {location}: its `fingerprint` must be a non-empty text, got {said!r}.")
    return said if _SHA256.fullmatch(said) else hashlib.sha256(said.encode()).hexdigest()


def categories_of(location: str, factory: Callable[[], Any]) -> dict[int, str]:
    """The factory's attribute `categories`, category_id to name; empty when it has none.

    Raises:
        UsageError: it is something else.
    """
    said = getattr(factory, "categories", {})
    if not isinstance(said, Mapping) or not all(isinstance(k, int) and isinstance(v, str) for k, v in said.items()):
        raise UsageError(f"--model {location}: its `categories` must be a dict of int to str, got {said!r:.200}.")
    return dict(said)


def open_factory(spec: DetectorSpec) -> Detector:
    """Calls the factory.

    Raises:
        UsageError: it raised, or what it gave is not a detector.
    """
    try:
        detector = load_factory(spec.location)()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"--model {spec.location}: the factory raised {type(error).__name__}: {error}") from error
    if not callable(getattr(detector, "detect", None)) or not isinstance(getattr(detector, "info", None), DetectorInfo):
        raise UsageError(
            f"--model {spec.location}: the factory gave a {type(detector).__name__}, which is not a detector: it needs "
            "`info`, a beam_jobs.detectors.base.DetectorInfo, and `detect(pictures)`."
        )
    return cast(Detector, detector)
