"""`run.json`: what a run did, with which versions, and every file that belongs to it."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal

import msgspec

from beam_jobs import storage
from beam_jobs.errors import DECODE_ERRORS, UsageError
from beam_jobs.runs import layout
from beam_jobs.runs.parts import Counts, FileRecord
from beam_jobs.runs.plan import Renamed
from beam_jobs.runs.records import InputsRecord, ModelRecord

MANIFEST_VERSION = 1

#: Packages whose version may change a byte of the results.
_PACKAGES = ("ai-edge-litert", "apache-beam", "numpy", "pillow", "pyarrow", "tensorflow")


class DetectorRecord(msgspec.Struct, frozen=True):
    """Detector processes that gave a result, detectors that were loaded for them, and the mean seconds of a load.

    Args:
        largest_call: the most pictures that shared a call.
        shrunk_calls: calls that did not fit into memory and were made smaller.
        model_mb: by how much opening the detector made a process larger, on average; None on another runner, as next.
        rss_mb: the most memory that a process had, pages that it shares with others included.
        environment: what decides the threads and the memory of a process.
    """

    processes: int
    loads: int
    load_s: float
    largest_call: int = 1
    shrunk_calls: int = 0
    model_mb: int | None = None
    rss_mb: int | None = None
    environment: dict[str, str] = {}


class Manifest(msgspec.Struct, frozen=True):
    """The whole of `run.json`. `counts`, `model` and the `files` (but for timings) are the same on every run."""

    version: int
    #: `evaluating`: the tables are whole, but what `--ground_truth` asks for is not there, or not yet.
    status: Literal["succeeded", "failed", "evaluating"]
    program_version: str
    command: list[str]
    job: dict[str, Any]
    model: ModelRecord
    inputs: InputsRecord
    counts: Counts
    #: Pictures whose id is that of `--image_ids`; null without it.
    known_image_ids: int | None
    renamed: list[Renamed]
    detector: DetectorRecord
    #: Wall-clock seconds of the stages of the launcher, and between them (`other`); they add up to `total`.
    stage_s: dict[str, float]
    #: Seconds of all detector processes together, as a clock shows them.
    work_s: dict[str, float]
    pictures_per_s: float
    started: str
    ended: str
    versions: dict[str, str]
    machine: dict[str, str]
    files: list[FileRecord]
    #: Whether the same job gives the same bytes again. Not where calls did not fit: which ones do may change.
    repeatable: bool = True
    #: CPU seconds of the detect stage, of all processes together, by step; null on another runner than the local one.
    cpu_s: dict[str, float] | None = None
    #: How often the run was taken up again after a stop; `stage_s`, `cpu_s` and the speed are those of the last time.
    resumed: int = 0
    #: Annotated videos; fewer than `counts.clips` where some could not be made, and the log says why. Null without any.
    annotated_clips: int | None = None

    @staticmethod
    def read(root: str) -> Manifest:
        """The manifest of a finished run.

        Raises:
            UsageError: there is none, or it is not one of ours.
        """
        path = storage.join(root, layout.MANIFEST)
        try:
            return msgspec.json.decode(storage.read_bytes(path), type=Manifest)
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(_no_manifest(root)) from None
        except DECODE_ERRORS as error:
            raise UsageError(f"{path} is not a manifest of beam-detect: {error}") from None

    def write(self, root: str) -> None:
        """Writes `run.json`."""
        data = msgspec.json.format(msgspec.json.encode(self), indent=1)
        storage.write_atomic(storage.join(root, layout.MANIFEST), data + b"\n")


def _no_manifest(root: str) -> str:
    shown = storage.display_name(root)
    if storage.exists(storage.join(root, layout.PLAN)):
        unfinished = f"{shown} is a run that is not finished: it has no {layout.MANIFEST}."
        return f"{unfinished} Go on with it (detect … --resume), or begin it afresh (--overwrite)."
    if storage.is_dir(root):
        what = f"is not a run of beam-detect: it has no {layout.MANIFEST}"
    else:
        what = "is a file, not the folder of a run" if storage.exists(root) else "does not exist"
    return f"{shown} {what}. Name a folder that `beam-detect detect` wrote to."


def mark_success(root: str) -> None:
    """Writes `_SUCCESS`, the last file of a run."""
    # Not empty: not every store takes an object without bytes.
    storage.write_atomic(storage.join(root, layout.SUCCESS), b"\n")


def program_version() -> str:
    """The version of the installed package."""
    return metadata.version("beam-detect")


def versions() -> dict[str, str]:
    """Versions that may change a byte of the results; without importing any of the packages."""
    return {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}}


def machine() -> dict[str, str]:
    """What the launcher runs on."""
    return {"system": platform.platform(), "processor": _processor(), "cores": str(len(os.sched_getaffinity(0)))}


def table_files(files: Sequence[FileRecord], table: str) -> list[str]:
    """The paths of a table's files, in order."""
    return [file.path for file in files if file.path.startswith(f"{table}/")]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
