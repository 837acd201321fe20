"""`beam-detect models`: the detectors that have a name, and those in the cache."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beam_jobs import storage
from beam_jobs.cli.progress import Transfer, status
from beam_jobs.cli.summary import say
from beam_jobs.detectors import cache, catalogue, inventory
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.detectors.cache import report_to_stderr
from beam_jobs.detectors.inventory import Listed, Verified
from beam_jobs.errors import UsageError

DONE, FAILED = 0, 1

_SHOWN_CLASSES = 5


def run(options: argparse.Namespace, beam_args: Sequence[str]) -> int:
    """Does one of the actions; returns the exit status.

    Raises:
        UsageError: there is no such model, or it cannot be had.
        JobError: the process that opens it dies.
    """
    if beam_args:
        storage.set_options(beam_args)
    match options.action:
        case "show":
            return _show(options, beam_args)
        case "fetch":
            return _fetch(options)
        case "verify":
            return _verify(options)
        case "remove":
            return _remove(options)
    rows = inventory.listed()
    say(json.dumps([_plain(row) for row in rows], indent=1) if options.json else _table(rows))
    return DONE


def _table(rows: Sequence[Listed]) -> str:
    """One model a line, within 80 columns, so that no name is broken; what a name tells is not said again."""
    lines = [("NAME", "MS", "MAP", "NOTE", "STATE")]
    for row in rows:
        card = row.published
        speed_ms = str(card.speed_ms) if card and card.speed_ms else "-"
        box_map = f"{card.box_map:.1f}" if card and card.box_map else "-"
        lines.append((row.name, speed_ms, box_map, _note(row), "cached" if row.is_cached else ""))
    # A URL may be very long: it does not push the others' columns away.
    widths = [max(len(line[i]) for line in lines if not storage.is_remote(line[0])) for i in range(len(lines[0]))]
    right = (1, 2)
    return "\n".join(
        " ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _note(row: Listed) -> str:
    """The mAP of what it finds besides boxes, or the size of its input where the name lacks that."""
    card = row.published
    if row.is_default:
        return "default"
    if card is None:
        return "-"
    if card.extra != "boxes":
        return f"{'kpts' if card.extra == 'keypoints' else 'mask'} {card.extra_map:.1f}"
    return "-" if card.input_size in row.name else card.input_size


def _plain(row: Listed) -> dict[str, Any]:
    card = row.published
    return {
        "name": row.name,
        "family": card.family if card else None,
        "input_size": card.input_size if card else None,
        "speed_ms": card.speed_ms if card else None,
        "box_map": card.box_map if card else None,
        "masks_or_keypoints": card.extra if card and card.extra != "boxes" else None,
        "masks_or_keypoints_map": card.extra_map if card else None,
        "urls": list(row.urls),
        "cached": row.is_cached,
        "default": row.is_default,
    }


@dataclass(frozen=True, slots=True)
class _Opened:
    info: DetectorInfo
    seconds: float


def _open(spec: DetectorSpec, beam_args: Sequence[str], *, verbose: bool) -> _Opened:
    """Opens the detector in a process of its own, as a job does, and asks it what it is."""
    from beam_jobs.processes.pool import DetectorPool
    from beam_jobs.processes.work import PictureSettings

    pool = DetectorPool(spec, PictureSettings(), 1, beam_args=beam_args, verbose=verbose)
    try:
        with status(f"opening {spec.name} …"):
            return _Opened(pool.ready(), pool.loads[0].seconds)
    finally:
        pool.close()


def _show(options: argparse.Namespace, beam_args: Sequence[str]) -> int:
    with Transfer() as transfer:
        spec = catalogue.resolve(options.model, label_map=options.label_map, threads=1, watch=transfer)
    opened = _open(spec, beam_args, verbose=options.verbose)
    folder = cache.models_folder() / spec.origin.entry if spec.origin else Path(spec.location)
    shown: dict[str, Any] = {
        "name": spec.name,
        "location": spec.location,
        **({"fetched_from": inventory.came_from(spec.origin)} if spec.origin and spec.origin.urls else {}),
        "fingerprint": spec.fingerprint,
        "bytes": cache.size_of(folder) if folder.exists() else None,
        "engine": opened.info.engine,
        **opened.info.details,
        "classes": {str(i): name for i, name in sorted(spec.categories.items())},
        "open_s": round(opened.seconds, 2),
    }
    say(json.dumps(shown, indent=1) if options.json else _description(shown))
    return DONE


def _description(shown: Mapping[str, Any]) -> str:
    words = dict(shown)
    names: Mapping[str, str] = words["classes"]
    first = ", ".join(f"{i} {name}" for i, name in itertools.islice(names.items(), _SHOWN_CLASSES))
    more = ", …" if len(names) > _SHOWN_CLASSES else ""
    words["classes"] = f"{len(names)}: {first}{more}" if names else "their names are not known: --label_map gives them"
    words["bytes"] = "-" if words["bytes"] is None else f"{words['bytes'] / 1e6:,.1f} MB"
    words["open_s"] = f"{words['open_s']:.2f} s"
    titles = {"fetched_from": "fetched from", "bytes": "size", "open_s": "opened in"}
    width = max(len(titles.get(name, name)) for name in words)
    return "\n".join(f"{titles.get(name, name):<{width}}  {value}" for name, value in words.items())


def _fetch(options: argparse.Namespace) -> int:
    if options.sha256 and len(options.model) > 1:
        raise UsageError("--sha256 is of one model: fetch the others by a command of their own.")
    for model in options.model:
        with Transfer() as transfer:
            found = inventory.fetch(model, report_to_stderr, transfer, options.sha256)
        say(f"{found.name}: {found.folder}, {cache.size_of(found.folder) / 1e6:,.1f} MB, sha256 {found.sha256}")
    return DONE


def _verify(options: argparse.Namespace) -> int:
    with status("reading the models …"):
        entries = inventory.verify(options.model)
    if not entries:
        say(f"There are no models in {cache.cache_folder()}.")
    for entry in entries:
        say(f"{entry.name}{', ' * bool(entry.about)}{entry.about}: {_state(entry)}")
    return FAILED if any(entry.fault for entry in entries) else DONE


def _state(entry: Verified) -> str:
    if entry.fault is None:
        again = f"; to try again: beam-detect models remove {entry.name}"
        return f"whole; {entry.note}{again}" if entry.note else "whole"
    again = f", or: beam-detect models fetch {entry.name}" if entry.fetched else ""
    return f"damaged: {entry.fault}; it is made again when it is used{again}"


def _remove(options: argparse.Namespace) -> int:
    for model in options.model:
        size = inventory.remove(model, report_to_stderr)
        say(f"removed {model}, {size / 1e6:,.1f} MB")
    return DONE
