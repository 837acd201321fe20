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
import platform
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from beam_jobs.detectors import cache, form_making
from beam_jobs.detectors.base import DetectorSpec, Picture, with_note
from beam_jobs.detectors.form_making import VERDICT, tensorflow_version
from beam_jobs.detectors.graph_size import count_nodes
from beam_jobs.errors import UsageError

#: Raise it when what `freezing` makes changes, or what it is compared with.
RECIPE_VERSION = 1
#: A graph of fewer nodes opens within a second or two as it is.
FEW_NODES = 2000

#: Files of an entry.
GRAPH, WEIGHTS = "graph.pb", "weights.npz"


class FrozenGraph(msgspec.Struct, frozen=True):
    """The nodes of `graph.pb` that are fed and fetched; `weights.npz` is in the order of `weights`."""

    input: str
    outputs: tuple[str, ...]
    weights: tuple[str, ...]

    def given(self, weights: Iterable[NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The weights by the names of their nodes."""
        return dict(zip(self.weights, weights, strict=True))


class Verdict(form_making.Verdict, frozen=True, kw_only=True):
    """What making a frozen form came to, and the graph that is there if it is used."""

    graph: FrozenGraph | None = None


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
        return with_note(spec, f"no frozen form: {error}")
    if verdict.reason:
        return with_note(spec, f"the frozen form is not used: {verdict.reason}")
    return replace(spec, form="frozen")


def ensure(spec: DetectorSpec, pictures: Callable[[], Sequence[Picture]], report: cache.Report) -> tuple[Path, Verdict]:
    """The cache entry with the frozen form of `spec`, or with the verdict against it; made first when it is missing.

    Raises:
        UsageError: the original is refused, or the cache cannot be written.
    """
    name = f"{form_making.FROZEN}{_digest(spec.fingerprint, _processor())[:16]}"
    cut_short = form_making.cut_short(name)
    entry = cache.ensure(
        name,
        _digest(spec.fingerprint, _processor(), tensorflow_version(), str(RECIPE_VERSION)),
        lambda folder: _build(folder, spec, pictures, report, cut_short),
        report,
        accept=lambda entry: _read(entry).stands,
        about=f"the frozen form of {spec.name}",
        made_of=cache.entry_of(spec.location),
    )
    return entry, _read(entry)


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
            f"{tensorflow_version()}, there is none: {verdict.reason}. Start the job on a host of the workers' kind."
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
    report(f"preparing {spec.name} to open quickly (a minute or so, once) …")
    form_making.make("beam_jobs.detectors.freezing", spec, pictures(), folder, cut_short)


def _digest(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def _processor() -> str:
    """The kind of CPU: constants that are computed ahead may differ in their last bits from one to another."""
    try:
        names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    return names[0] if names else platform.machine()
