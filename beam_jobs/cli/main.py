"""The program: its commands, and the exit status of each end it can come to."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Sequence

from beam_jobs.cli import flags, interrupt
from beam_jobs.errors import JobError, UsageError

BAD_USAGE, INCOMPLETE = 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line.

    Returns:
        0 done, 1 nothing succeeded or too much failed, 2 bad usage, 3 incomplete, 130 interrupted, 143 terminated.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "--verbose" in words
    _prepare_streams()
    interrupt.install()
    _set_up_logging(verbose)
    try:
        options, beam_args = flags.parse(words)
        if options.command == "demo":
            from beam_jobs.cli import demo

            return demo.run(options)
        if options.command == "evaluate":
            from beam_jobs.cli import evaluate

            return evaluate.run(options, beam_args)
        if options.command == "compare":
            from beam_jobs.cli import compare

            return compare.run(options, beam_args)
        if options.command == "models":
            from beam_jobs.cli import models

            return models.run(options, beam_args)
        if options.command == "report":
            from beam_jobs.cli import report

            return report.run(options, beam_args)
        if options.command == "check":
            from beam_jobs.cli import check

            return check.run(options, beam_args)
        if options.command == "export":
            from beam_jobs.cli import export

            return export.run(options)
        from beam_jobs.cli import detect

        return detect.run(options, beam_args, ["beam-detect", *words])
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        sys.stderr.close()
        return INCOMPLETE
    except (Exception, interrupt.Interrupted) as error:
        return _end(interrupt.received() or error, verbose)


def _prepare_streams() -> None:
    """Makes the three usable, whatever the caller has given us.

    One that was closed is opened: else a file of ours would get its number, and be written to.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
        if getattr(sys, name) is None:  # Python's way to say that it was closed
            setattr(sys, name, open(os.devnull, "w" if descriptor else "r"))  # noqa: SIM115
        if isinstance(stream := getattr(sys, name), io.TextIOWrapper) and descriptor:
            stream.reconfigure(errors="backslashreplace")  # names of files may hold what a terminal's encoding lacks


def _set_up_logging(verbose: bool) -> None:
    ours = logging.getLogger("beam_jobs")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("beam-detect: %(message)s"))
    ours.handlers = [handler]  # one that a caller before this one left writes to another's standard error
    ours.propagate = False
    ours.setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        # Beam warns, while it is imported, of packages that nobody asked for. What it logs later, we say ourselves.
        logging.getLogger().setLevel(logging.CRITICAL)


def _end(error: BaseException, verbose: bool) -> int:
    """Says in one line why the program ends; returns its exit status."""
    match error:
        case interrupt.Interrupted():
            message, status = " ".join([f"stopped by {error}.", *interrupt.left_behind]), error.exit_status
        case UsageError():
            message, status = f"error: {error}", BAD_USAGE
        case JobError():
            message, status = f"incomplete: {error}", INCOMPLETE
        case _:
            lines = [type(error).__name__, *str(error).strip().splitlines()]
            message, status = f"incomplete: {': '.join(lines[:2])} (--verbose shows where)", INCOMPLETE
    if verbose:
        traceback.print_exc()
    print(f"beam-detect: {message}", file=sys.stderr)
    return status
