"""What a pool and its detector processes say to each other, besides `Work` and `Reply`."""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.processes.work import PictureSettings


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to a detector process.

    Args:
        search_path: `sys.path` of the parent, so that a detector of one's own is found.
        beam_args: flags of Beam's, which hold the options of remote file systems.
    """

    spec: DetectorSpec
    settings: PictureSettings
    search_path: tuple[str, ...]
    beam_args: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ready:
    """The detector is open, and took so long.

    Args:
        shares_calls: see `PictureWorker.shares_calls`.
        model_bytes: by how much the process's memory has grown.
    """

    info: DetectorInfo
    load_ms: float
    shares_calls: bool
    model_bytes: int


@dataclass(frozen=True, slots=True)
class Refused:
    """The job cannot go on: the user must change something (`usage`), or something around it failed."""

    message: str
    usage: bool
