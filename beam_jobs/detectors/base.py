"""What a detector is: the protocol that every kind implements, and the description of one to open."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from beam_jobs.records import Detections

if TYPE_CHECKING:
    from beam_jobs.detectors.resizing import Resizer

Picture = NDArray[np.uint8]
Engine = Literal["auto", "tensorflow", "litert"]


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """What an opened detector says of itself: shown to people and recorded in `run.json`.

    Args:
        engine: what runs it: `tensorflow`, `litert`, or `python` for a detector of one's own.
        details: its signature and settings as plain strings (input, outputs, batch, threads …).
        on_gpu: it works on a GPU, where several pictures a call are quicker.
        callers: so many threads may call it at a time, and gain by it.
    """

    engine: str
    details: Mapping[str, str] = field(default_factory=dict)
    on_gpu: bool = False
    callers: int = 1


class Detector(Protocol):
    """A loaded model.

    `detect` takes upright RGB pictures, each uint8 [height, width, 3], and gives one `Detections` a picture, in order:
    boxes in pixels of that picture. Raises what it likes: an exception costs the pictures of that call.
    """

    info: DetectorInfo

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]: ...


class BatchKey(NamedTuple):
    """Which pictures may share a call: those of one key.

    Args:
        shape: height and width in which they are fed.
        pixels: of each, as the network sees it: what memory a call takes grows with their sum.
    """

    shape: tuple[int, int]
    pixels: int


@runtime_checkable
class BatchingDetector(Detector, Protocol):
    """A detector whose calls several pictures may share; one without `batch_key` is given one at a time.

    `detect` is called with pictures of one key, and gives for each what it gives for it alone, but for the last bits.
    May raise `DoesNotFitError`.
    """

    def batch_key(self, height: int, width: int) -> BatchKey | None:
        """The key of pictures of this size; None for those that stay alone."""


class CallSplit:
    """CPU seconds of a detector's calls that the network itself did not take; thread-safe.

    A detector that has one as its attribute `split` shows in profiles where its calls spend their time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._batch_s = self._post_s = 0.0

    def add(self, batch_s: float, post_s: float) -> None:
        """So much for making the network's input of pictures, and for making detections of its output."""
        with self._lock:
            self._batch_s += batch_s
            self._post_s += post_s

    def take(self) -> tuple[float, float]:
        """The two sums since this was last called."""
        with self._lock:
            sums = self._batch_s, self._post_s
            self._batch_s = self._post_s = 0.0
        return sums


class DoesNotFitError(Exception):
    """The pictures of a call need more memory than there is. Fewer may do."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a model was fetched from, and what it was: what another host needs to have the same.

    Args:
        name: what people call the model.
        entry: the name of its entry in a cache.
        urls: where it may be; none for a model of the catalogue, which knows how to make it.
        contents_sha256: of its files (hex).
        archive_sha256: of the archive that it came in (hex); None when it was a folder.
        inside: the detector's location below the entry.
    """

    name: str
    entry: str
    urls: tuple[str, ...] = ()
    contents_sha256: str | None = None
    archive_sha256: str | None = None
    inside: str = ""


@dataclass(frozen=True, slots=True)
class DetectorSpec:
    """A detector that is known but not loaded: small, picklable, the same on every worker.

    Args:
        kind: which loader opens it.
        name: what people call it; in the tables' `model` column, with the fingerprint.
        location: the folder of a SavedModel, a frozen graph's or TFLite model's file, or `module:factory`.
        fingerprint: sha256 (hex) that identifies the weights and code, whatever the folder is called.
        categories: category_id to name, as the label map has it.
        threads: threads inside one call. Results depend on it in the last bits, so it is part of the job.
        origin: of a model in the cache: `location` is then of this host, and another host fetches it for itself.
        resizer: what the model does with a picture first, where that is known.
        gpu_memory_limit_mb: the most that a process takes of its GPU; None to take what it needs, as it goes.
        form: `litert` for the form of a SavedModel that LiteRT runs, `frozen` for that of a SavedModel or a graph that
            opens quickly, `original` for itself. Part of the job for the same reason: who starts it decides, by
            `forms.choose`, and all others obey.
        form_note: why another form is not used, where it was wanted.
        min_score: detections of a lower score are not asked for: a detector may leave them out.
    """

    kind: Literal["saved_model", "frozen_graph", "tflite", "factory"]
    name: str
    location: str
    fingerprint: str
    categories: Mapping[int, str]
    threads: int = 1
    origin: Origin | None = None
    resizer: Resizer | None = None
    gpu_memory_limit_mb: int | None = None
    form: Literal["original", "frozen", "litert"] = "original"
    form_note: str = ""
    min_score: float = 0.0

    @property
    def engine(self) -> str:
        """What runs it: `tensorflow`, `litert`, or `python` for a detector of one's own."""
        if self.kind == "factory":
            return "python"
        return "litert" if self.kind == "tflite" or self.form == "litert" else "tensorflow"

    @property
    def label(self) -> str:
        """The value of the tables' `model` column."""
        return f"{self.name}@{self.fingerprint[:12]}"


def with_note(spec: DetectorSpec, note: str) -> DetectorSpec:
    """`spec` as its original form, with a further note."""
    return replace(spec, form="original", form_note="; ".join(filter(None, (spec.form_note, note))))
