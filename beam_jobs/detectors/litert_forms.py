"""Which models LiteRT runs besides those made for it, and whether a job uses that form. No TensorFlow here.

The form of a SavedModel (`litert_form`) lies beside it, where `beam-detect export --engine litert` puts it, or in this
machine's cache, where the first job that asks for it has it made (`litert_making`). Either is looked at once a host: it
must find what the original finds in pictures of the job's. That is kept in the cache; where they differ, the original
is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import msgspec

from beam_jobs.detectors import cache, form_making, litert_form, pipeline_config
from beam_jobs.detectors.base import DetectorSpec, Picture, with_note
from beam_jobs.detectors.form_making import VERDICT, Verdict, tensorflow_version
from beam_jobs.errors import UsageError

#: Raise it when what `litert_making` makes changes, or what it is compared with.
RECIPE_VERSION = 1


def if_beside(spec: DetectorSpec) -> DetectorSpec:
    """The spec of a SavedModel in the form `litert`, where that lies beside it; else as it is, perhaps with a note."""
    location = Path(spec.location)
    if litert_form.beside(location):
        return replace(spec, form="litert")
    verdict = location.with_name(litert_form.FOLDER) / VERDICT
    if location.name == "saved_model" and verdict.is_file():
        return with_note(spec, f"no LiteRT form: {_read(verdict).reason}")
    return spec


def choose(spec: DetectorSpec, pictures: Callable[[], Sequence[Picture]], report: cache.Report) -> DetectorSpec:
    """A spec of the form `litert`, as it is, or of the original, with the reason.

    Args:
        pictures: gives a few of the job's pictures, uint8 [height, width, 3], to check the form on, besides made ones;
            called only when it is checked.
        report: takes a line before it is made or checked.
    """
    # What has a name here was made for it, from the same weights.
    if spec.origin is not None and not spec.origin.urls:
        return spec
    try:
        _, verdict = ensure(spec, pictures, report)
    except UsageError as error:
        # No cache, no time …; if the model itself is at fault, then opening the original says so.
        return with_note(spec, f"no LiteRT form: {error}")
    return with_note(spec, f"the LiteRT form is not used: {verdict.reason}") if verdict.reason else spec


def ensure(spec: DetectorSpec, pictures: Callable[[], Sequence[Picture]], report: cache.Report) -> tuple[Path, Verdict]:
    """The cache entry with the verdict on the LiteRT form of `spec`, and with the form where none lies beside it.

    Raises:
        UsageError: the original is refused, or the cache cannot be written.
    """
    form = litert_form.beside(Path(spec.location))

    def build(folder: Path) -> None:
        done = "comparing the LiteRT form of" if form else "preparing for LiteRT:"
        report(f"{done} {spec.name} (a minute or so, once) …")
        form_making.make("beam_jobs.detectors.litert_making", spec, pictures(), folder, cut_short)

    name = f"{form_making.LITERT}{_digest(spec.fingerprint)[:16]}"
    cut_short = form_making.cut_short(name)
    parts = [pipeline_config.root_of(Path(spec.location)) / pipeline_config.NAME]
    parts += [form / litert_form.NETWORK, form / litert_form.DESCRIPTION] if form else []
    facts = [cache.sha256_of(path) if path.is_file() else "none" for path in parts]
    facts += [spec.fingerprint, tensorflow_version(), version("ai-edge-litert"), str(RECIPE_VERSION)]
    entry = cache.ensure(
        name,
        _digest(*facts),
        build,
        report,
        accept=lambda entry: _read(entry / VERDICT).stands,
        about=f"the LiteRT form of {spec.name}",
        made_of=cache.entry_of(spec.location),
    )
    return entry, _read(entry / VERDICT)


def obtain(spec: DetectorSpec) -> Path:
    """The folder of the LiteRT form of a spec that asks for it, on whatever host that is.

    Raises:
        UsageError: it cannot be had here.
    """
    if form := litert_form.beside(Path(spec.location)):
        return form
    entry, verdict = ensure(spec, lambda: (), cache.report_to_stderr)
    if verdict.reason:
        raise UsageError(f"The job runs {spec.name} in LiteRT, and on this host that cannot be: {verdict.reason}.")
    return entry


def make_beside(spec: DetectorSpec, report: cache.Report) -> str | None:
    """Makes the LiteRT form of a SavedModel beside it; why there is none, in words, or None.

    Raises:
        UsageError: the model itself is refused.
    """
    report("making the LiteRT form, and comparing it with the SavedModel …")
    folder = Path(spec.location).with_name(litert_form.FOLDER)
    folder.mkdir()
    form_making.make("beam_jobs.detectors.litert_making", spec, (), folder)
    return _read(folder / VERDICT).reason


def _read(verdict: Path) -> Verdict:
    return msgspec.json.decode(verdict.read_bytes(), type=Verdict)


def _digest(*facts: str) -> str:
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()
