"""`beam-detect report`: a page of what a run found."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from urllib.parse import quote

import pyarrow as pa

from beam_jobs import storage
from beam_jobs.cli.progress import status
from beam_jobs.cli.summary import say
from beam_jobs.errors import UsageError

#: A picture that is larger is not read for a page.
_MOST_BYTES = 1 << 28


def run(options: argparse.Namespace, beam_args: Sequence[str]) -> int:
    """Writes the page; returns the exit status.

    Raises:
        UsageError: there is no finished run, or the page cannot be written.
    """
    from beam_jobs.report.from_run import run_content
    from beam_jobs.report.run_page import run_page

    if beam_args:
        storage.set_options(beam_args)
    _check_output(options.output, overwrite=options.overwrite)
    try:
        with status("reading the run …"):
            content = run_content(
                options.run,
                lambda uri: storage.read_bytes(uri, _MOST_BYTES),
                min_score=options.min_score,
                folder=_link(options.run, options.output),
            )
            page = run_page(content)
    except (OSError, pa.ArrowException, KeyError) as error:
        why = storage.reason(error) if isinstance(error, OSError) else str(error).splitlines()[0].rstrip(".")
        raise UsageError(f"{options.run} is not a whole run: {why}. Run it again.") from error
    try:
        storage.write_atomic(options.output, page)
    except OSError as error:
        raise UsageError(f"--output {options.output} cannot be written: {storage.reason(error)}.") from error
    say(f"the report is {options.output}")
    return 0


def _link(run: str, page: str) -> str:
    """The run's folder as a page links to it, so that both can be moved together; empty if that is not possible."""
    if storage.is_remote(run) or storage.is_remote(page):
        return ""
    return quote(os.path.relpath(run, os.path.dirname(os.path.abspath(page))))


def _check_output(output: str, *, overwrite: bool) -> None:
    if output.endswith("/") or storage.is_dir(output):
        raise UsageError(f"--output {output} is a folder: name a file (report.html).")
    if storage.exists(output) and not overwrite:
        raise UsageError(f"--output {output} exists: name another file, or give --overwrite.")
