"""What the benchmark lets run over the same pictures: scripts that use nothing of the job, the job, and the limit."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from beam_jobs.detectors import catalogue, litert_forms
from beam_jobs.runs.manifest import Manifest
from scripts._benchmark_agreement import MIN_SCORE, Found
from scripts._benchmark_measuring import Watch, call


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a contender.

    Args:
        steady_s: seconds of the steady part.
        total_s: seconds of the whole process.
        found: what it saw.
        work_ms: CPU milliseconds a picture, by step, where the contender can tell.
    """

    steady_s: float
    total_s: float
    found: Found
    work_ms: dict[str, float]


class Contender(Protocol):
    """Something that detects on the pictures of a list, in processes of its own."""

    @property
    def name(self) -> str: ...

    @property
    def is_limit(self) -> bool:
        """Whether it does only what no job can leave out. Of several the quickest is the limit."""
        ...

    def run(self, listing: Path, output: Path, watch: Watch | None = None) -> Run:
        """Does the pictures of `listing`, one path a line; `output` does not exist yet."""
        ...


@dataclass(frozen=True, slots=True)
class Script:
    """A script of this folder, called with MODEL LIST OUTPUT and more. It writes `steady_s` and what it found.

    Args:
        model: a folder, as the script wants it.
        more: words.
    """

    name: str
    file: str
    model: str
    more: tuple[str, ...] = ()
    is_limit: bool = False

    def run(self, listing: Path, output: Path, watch: Watch | None = None) -> Run:
        """One run."""
        words = (str(Path(__file__).with_name(self.file)), self.model, str(listing), str(output), *self.more)
        total_s = call(words, watch)
        said = json.loads(output.read_text())
        return Run(said["steady_s"], total_s, {each["path"]: _in_pixels(each) for each in said["found"]}, {})


@dataclass(frozen=True, slots=True)
class Job:
    """`beam-detect detect`.

    Args:
        flags: further flags of it.
    """

    model: str
    flags: tuple[str, ...] = ()
    is_limit: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The command, as far as it matters here."""
        return " ".join(("beam-detect", *self.flags))

    def command(self, listing: Path, output: Path) -> list[str]:
        """The words after `python`."""
        words = ["-P", "-m", "beam_jobs", "detect", f"--model={self.model}", f"--min_score={MIN_SCORE}"]
        return [*words, f"--input_list={listing}", f"--output={output}", *self.flags]

    def run(self, listing: Path, output: Path, watch: Watch | None = None) -> Run:
        """One run."""
        total_s = call(self.command(listing, output), watch)
        manifest = Manifest.read(str(output))
        if manifest.counts.failed:
            raise SystemExit(
                f"benchmark: pictures failed: {manifest.counts.failures}; the comparison would not be fair."
            )
        found: Found = {path: np.empty((0, 6)) for path in _column(output / "images", "file_name")}
        names = _column(output / "detections", "file_name")
        columns = ("category_id", "score", "xmin", "ymin", "xmax", "ymax")
        rows = np.array([_column(output / "detections", name) for name in columns], np.float64).T
        # The rows of a picture are next to each other.
        starts = [i for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
        for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
            found[names[start]] = rows[start:end]
        return Run(manifest.stage_s["detect"], total_s, found, _work_ms(manifest))


def _work_ms(manifest: Manifest) -> dict[str, float]:
    """The CPU time of the detect stage, a picture."""
    return {step: seconds * 1e3 / manifest.counts.images for step, seconds in (manifest.cpu_s or {}).items()}


def _column(table: Path, name: str) -> list[Any]:
    column: list[Any] = pq.read_table(table, columns=[name])[name].to_pylist()
    return column


def _in_pixels(each: dict[str, Any]) -> NDArray[np.float64]:
    """The rows of a picture of the loop's: the boxes are normalised ymin, xmin, ymax, xmax there."""
    size = np.array([each["width"], each["height"]] * 2)
    boxes = np.array(each["boxes"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]] * size
    boxes = boxes.clip(0, size)
    # The job leaves boxes out that have no area inside the picture.
    full = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows: NDArray[np.float64] = np.column_stack([each["classes"], each["scores"], boxes])[full]
    return rows


def contenders(model: str, flags: Sequence[str]) -> list[Contender]:
    """Those of a detector, the plain loop first, the limit last.

    Where it has no form for LiteRT, the job has TensorFlow alone, and so has the limit: one process with as many
    threads as there are cores, or as many processes of one thread.

    Args:
        flags: further flags of the job.
    """
    saved_model = catalogue.resolve(model, label_map=None, threads=1, engine="tensorflow").location
    best = catalogue.resolve(model, label_map=None, threads=1)
    others: list[Contender] = [
        Script("plain loop", "_plain_loop.py", saved_model),
        Script("Beam RunInference", "_run_inference.py", saved_model),
    ]
    if best.engine != "litert":
        cores = len(os.sched_getaffinity(0))
        limits = [_bare_loop(saved_model, 1, cores), _bare_loop(saved_model, cores, 1)]
        return [*others, Job(model, ("--engine=tensorflow", *flags)), *limits]
    jobs = [Job(model, (f"--engine={engine}", *flags)) for engine in ("litert", "tensorflow")]
    return [*others, *jobs, Script("limit", "_limit.py", str(litert_forms.obtain(best)), is_limit=True)]


def _bare_loop(saved_model: str, processes: int, threads: int) -> Script:
    name = f"bare loop, processes × threads {processes}×{threads}"
    return Script(name, "_tensorflow_loop.py", saved_model, (str(processes), str(threads)), is_limit=True)
