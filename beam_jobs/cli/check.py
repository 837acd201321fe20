"""`beam-detect check`: whether a finished run is whole."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from beam_jobs import storage
from beam_jobs.cli.progress import status
from beam_jobs.cli.summary import printable, say
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest

#: Problems that are shown; a damaged disk has millions.
_SHOWN = 100

WHOLE, DAMAGED = 0, 1


def run(options: argparse.Namespace, beam_args: Sequence[str]) -> int:
    """Says what is wrong with a run; returns the exit status, 1 if anything is.

    Raises:
        UsageError: there is no finished run.
    """
    if beam_args:
        storage.set_options(beam_args)
    shown, number = [], 0
    with status("reading the run …"):
        for problem in check_run(options.run):
            number += 1
            if number <= _SHOWN:
                shown.append(printable(f"{problem}."))
    if not number:
        manifest = Manifest.read(options.run)
        counts = manifest.counts
        say(
            f"{options.run} is whole: {len(manifest.files):,} files, {counts.images:,} pictures,"
            f" {counts.detections:,} detections, {counts.failed:,} failures."
        )
        return WHOLE
    if number > _SHOWN:
        shown.append(f"… and {number - _SHOWN:,} more.")
    say("\n".join([*shown, f"{options.run} is damaged: {number:,} of its promises do not hold."]))
    return DAMAGED
