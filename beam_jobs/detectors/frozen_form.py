"""Opened fast: which models have a frozen form in this machine's cache, and whether a job uses it. No TensorFlow here.

`tf.saved_model.load` builds every function of a model anew, in Python, and the first call optimises them: 10 to 30 s
for a model of the zoo. The frozen form is one graph that is optimised already (see `freezing`). It is made once a host,
in a Python of its own, which opens the original once, and compares the two; where they do not agree, that is what is
kept, and the original is used.

The results of the two may differ in their last bits. So the launcher decides for the whole job, `DetectorSpec.form`
carries it, and a worker that cannot have that form refuses to work.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import cache
from beam_jobs.detectors.base import DetectorSpec, Picture
from beam_jobs.detectors.fetch import run_quietly
from beam_jobs.detectors.graph_size import count_nodes
from beam_jobs.detectors.scenes import scenes
from beam_jobs.errors import UsageError

#: Raise it when what `freezing` makes changes, or what it is compared with.
RECIPE_VERSION = 1
_PREFIX = "frozen-"
#: A graph of fewer nodes opens within a second or two as it is.
FEW_NODES = 2000
#: Below the patience of a pool with a process that opens its detector.
_MAKE_SECONDS = 840.0

#: Files of an entry, and of the folder in which it is ordered.
GRAPH, WEIGHTS, VERDICT = "graph.pb", "weights.npz", "verdict.json"
SPEC, PICTURES = "spec.pickle", "pictures.npz"


class FrozenGraph(msgspec.Struct, frozen=True):
    """The nodes of `graph.pb` that are fed and fetched; `weights.npz` is in the order of `weights`."""

    input: str
    outputs: tuple[str, ...]
    weights: tuple[str, ...]

    def given(self, weights: Iterable[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The weights by the names of their nodes."""
        return dict(zip(self.weights, weights, strict=True))


class Verdict(msgspec.Struct, frozen=True):
    """What making a frozen form came to: why it is not used, or None, and then the graph is there.

    Args:
        made_by: the version of this program.
        cut_short: how often it took too long, or its process was killed.
    """

    reason: str | None
    graph: FrozenGraph | None = None
    made_by: str = ""
    cut_short: int = 0

    @property
    def stands(self) -> bool:
        """Whether a job goes by it: another version of this program may do better, and so may a second try."""
        return self.reason is None or (self.made_by == program_version() and self.cut_short != 1)


def choose(spec: DetectorSpec, pictures: Callable[[], Sequence[Picture]], report: cache.Report) -> DetectorSpec:
    """`spec` with the form that the job shall use; makes and checks the frozen one first where that is worth it.

    Args:
        pictures: gives a few of the job's pictures, uint8 [height, width, 3], to check it on, besides made ones; called
            only when it is made.
        report: takes a line before it is made.
    """
    if not _opens_slowly(spec):
        return spec
    try:
        _, verdict = ensure(spec, pictures, report)
    except UsageError as error:
        # No cache, no time …; if the model itself is at fault, then opening the original says so.
        return replace(spec, form_note=f"no frozen form: {error}")
    if verdict.reason:
        return replace(spec, form_note=f"the frozen form is not used: {verdict.reason}")
    return replace(spec, form="frozen")


def ensure(spec: DetectorSpec, pictures: Callable[[], Sequence[Picture]], report: cache.Report) -> tuple[Path, Verdict]:
    """The cache entry with the frozen form of `spec`, or with the verdict against it; made first when it is missing.

    Raises:
        UsageError: the original is refused, or the cache cannot be written.
    """
    name = f"{_PREFIX}{_digest(spec.fingerprint, _processor())[:16]}"
    earlier = verdict_of(name)
    cut_short = earlier.cut_short if earlier is not None else 0
    entry = cache.ensure(
        name,
        _digest(spec.fingerprint, _processor(), _tensorflow_version(), str(RECIPE_VERSION)),
        lambda folder: _build(folder, spec, pictures, report, cut_short),
        report,
        accept=lambda entry: _read(entry).stands,
        about=f"the frozen form of {spec.name}",
        made_of=cache.entry_of(spec.location),
    )
    return entry, _read(entry)


def verdict_of(name: str) -> Verdict | None:
    """The verdict in an entry of the cache, whoever made it; None where there is none that can be read."""
    try:
        return _read(cache.models_folder() / name) if name.startswith(_PREFIX) else None
    except (OSError, msgspec.MsgspecError):
        return None


def _read(entry: Path) -> Verdict:
    return msgspec.json.decode((entry / VERDICT).read_bytes(), type=Verdict)


def obtain(spec: DetectorSpec) -> tuple[Path, FrozenGraph]:
    """The frozen form of a spec that asks for it, on whatever host that is.

    Raises:
        UsageError: it cannot be had here, and the job's other hosts use it.
    """
    entry, verdict = ensure(spec, lambda: (), cache.report_to_stderr)
    if verdict.graph is None or verdict.reason:
        raise UsageError(
            f"The job uses the frozen form of {spec.name}, and on this host, {_processor()} with TensorFlow "
            f"{_tensorflow_version()}, there is none: {verdict.reason}. Start the job on a host of the workers' kind."
        )
    return entry, verdict.graph


def _opens_slowly(spec: DetectorSpec) -> bool:
    if spec.kind not in ("saved_model", "frozen_graph"):
        return False
    path = Path(spec.location)
    try:
        return count_nodes(path if spec.kind == "frozen_graph" else path / "saved_model.pb") >= FEW_NODES
    except (OSError, ValueError):  # whoever opens it says what is wrong
        return False


def _build(
    folder: Path,
    spec: DetectorSpec,
    pictures: Callable[[], Sequence[Picture]],
    report: cache.Report,
    cut_short: int,
) -> None:
    """Has it made, or leaves a verdict against it; `cut_short` times it has been tried, and did not come to one."""
    report(f"preparing {spec.name} to open quickly (a minute or so, once) …")
    work = folder / "work"
    work.mkdir()
    (work / SPEC).write_bytes(pickle.dumps(spec))
    np.savez(work / PICTURES, *scenes(), *pictures())
    command = [sys.executable, "-P", "-m", "beam_jobs.detectors.freezing", str(work), str(folder)]
    try:
        status, said = run_quietly(command, work, _MAKE_SECONDS, _environment())
        failure = f"making it ended with status {status}: {(said.strip().splitlines() or ['?'])[-1][:300]}"
    except TimeoutError:
        status, said, failure = None, "", f"making it took longer than {_MAKE_SECONDS:g} s"
    if status == 1:
        raise UsageError(said.strip().splitlines()[-1] if said.strip() else failure)
    if status != 0:
        for name in (GRAPH, WEIGHTS):
            (folder / name).unlink(missing_ok=True)
        verdict = Verdict(failure, made_by=program_version(), cut_short=cut_short + 1)
        (folder / VERDICT).write_bytes(msgspec.json.encode(verdict))
    for path in work.iterdir():
        path.unlink()
    work.rmdir()


def _environment() -> Mapping[str, str]:
    # The package's own place is named, since -P keeps the current folder out.
    search = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search)), "TF_CPP_MIN_LOG_LEVEL": "3"}


def _digest(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def program_version() -> str:
    """Of this program."""
    return version("beam-detect")


def _tensorflow_version() -> str:
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _processor() -> str:
    """The kind of CPU: constants that are computed ahead may differ in their last bits from one to another."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.machine()
