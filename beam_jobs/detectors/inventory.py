"""The models that have a name or are in the cache: listed, fetched, verified and removed by what people call them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from beam_jobs.detectors import cache, coco_ssd, fetched, form_making, sources
from beam_jobs.detectors.base import Origin
from beam_jobs.detectors.cache import Report
from beam_jobs.detectors.catalogue import CATALOGUE, DEFAULT
from beam_jobs.detectors.download import Watch
from beam_jobs.detectors.pins import lock_path, read_pin
from beam_jobs.detectors.zoo import ZOO, ZooModel
from beam_jobs.errors import UsageError


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the list of models.

    Args:
        name: what `--model` takes.
        published: what the zoo says of it; None for a model that somebody fetched by its URL.
        urls: where it is fetched from; none for one that is made here.
    """

    name: str
    published: ZooModel | None
    urls: tuple[str, ...]
    is_cached: bool
    is_default: bool


def listed() -> list[Listed]:
    """Every model that has a name, the default first, then those that were fetched by their URLs."""
    rows = [Listed(name, known.card, (), cache.is_cached(name), name == DEFAULT) for name, known in CATALOGUE.items()]
    for name, model in ZOO.items():
        source = sources.find(name)
        assert source is not None
        rows.append(Listed(name, model, source.urls, cache.is_cached(name), is_default=False))
    for entry in cache.entries():
        if entry not in CATALOGUE and entry not in ZOO:
            found = _provenance(entry)
            if found is not None:
                rows.append(Listed(found.given, None, (found.url,), is_cached=True, is_default=False))
    return rows


@dataclass(frozen=True, slots=True)
class Fetched:
    """A model in the cache: its folder, and the sha256 (hex) of what it came as."""

    name: str
    folder: Path
    sha256: str


def fetch(model: str, report: Report, watch: Watch, sha256: str | None = None) -> Fetched:
    """Has `model` in the cache.

    Args:
        sha256: (hex) that its archive must have.

    Raises:
        UsageError: it has no source, cannot be fetched, or is not what is expected.
    """
    if known := CATALOGUE.get(model):
        pinned = coco_ssd.SOURCE.archive_sha256
        if sha256 not in (None, pinned):
            raise UsageError(f"{model} has the sha256 {pinned} in every version of this program, not {sha256}.")
        return Fetched(model, known.locate(report), pinned)
    source = sources.find(model)
    if source is None:
        raise UsageError(_unknown(model))
    origin = fetched.fetch(source, report, watch, sha256)
    folder = cache.models_folder() / origin.entry / origin.name
    return Fetched(model, folder, origin.archive_sha256 or origin.contents_sha256 or "")


@dataclass(frozen=True, slots=True)
class Verified:
    """An entry of the cache.

    Args:
        name: what `remove` takes.
        about: what it is, where the name does not tell.
        fault: why it cannot be used; None when it is whole.
        note: what follows from it, where it is whole and not used.
        fetched: whether `fetch` brings it.
    """

    name: str
    about: str
    fault: str | None
    note: str
    fetched: bool


def verify(models: Sequence[str]) -> list[Verified]:
    """What is wrong with each of these models in the cache, or with all that is there.

    Raises:
        UsageError: one is not in the cache.
    """
    return [_verified(entry) for entry in [_entry_of(model) for model in models] or cache.entries()]


def _verified(entry: str) -> Verified:
    name, verdict = _name_of(entry), form_making.verdict_of(entry)
    note = f"not used: {verdict.reason}" if verdict is not None and verdict.reason else ""
    is_fetched = entry in CATALOGUE or sources.find(name) is not None
    return Verified(name, cache.said_of(entry).get("about", ""), _fault_of(entry), note, is_fetched)


def remove(model: str, report: Report) -> int:
    """Removes a model from the cache, with what was made of it; gives the number of bytes that they had.

    Raises:
        UsageError: it is not there, or the cache cannot be written.
    """
    return cache.remove(_entry_of(model, unfinished=True), report)


def _fault_of(entry: str) -> str | None:
    path = cache.models_folder() / entry
    recipe = CATALOGUE[entry].fingerprint if entry in CATALOGUE else None
    fault = cache.fault_of(path, recipe)
    found = _provenance(entry)
    if fault is not None or found is None:
        return fault
    contents, pin = fetched.contents_of(path, found.name), read_pin(entry)
    if pin is not None and pin.contents_sha256 != contents:
        return f"its contents have the sha256 {contents}, {lock_path()} has {pin.contents_sha256}"
    return None


def came_from(origin: Origin) -> str:
    """Where a fetched model really came from: of several places the one that had it, or a mirror."""
    found = _provenance(origin.entry)
    return found.url if found else origin.urls[0]


def _provenance(entry: str) -> fetched.Provenance | None:
    """Where an entry was fetched from; None when it was made here, or cannot be read."""
    try:
        return fetched.provenance(cache.models_folder() / entry)
    except (OSError, ValueError):
        return None


def _name_of(entry: str) -> str:
    found = _provenance(entry)
    return found.given if found else entry


def _entry_of(model: str, *, unfinished: bool = False) -> str:
    """The entry in the cache of what people call `model`; with `unfinished` also one that is not all there yet."""
    entries = cache.entries()
    source = sources.find(model)
    if source is None and model not in (*CATALOGUE, *entries):
        raise UsageError(_unknown(model, [_name_of(entry) for entry in entries]))
    entry = source.entry if source else model
    if entry in entries or (unfinished and cache.has_leftovers(entry)):
        return entry
    raise UsageError(f"{model} is not in the cache, {cache.cache_folder()}: beam-detect models fetch {model}")


def _unknown(model: str, others: Sequence[str] = ()) -> str:
    near = difflib.get_close_matches(model, [*CATALOGUE, *ZOO, *others], 1, 0.5)
    problem = f"did you mean {near[0]}?" if near else "there is no such model."
    return f"{model}: {problem} `beam-detect models` lists them; a URL of a model's .tar.gz or folder is taken, too."
