"""The program: its commands, and the exit status of each end it can come to."""

from __future__ import annotations

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
    interrupt.install()
    try:
        options, beam_args = flags.parse(words)
        if options.command == "demo":
            from beam_jobs.cli import demo

            return demo.run(options)
        from beam_jobs.cli import detect

        return detect.run(options, beam_args, ["beam-detect", *words])
    except BrokenPipeError:
        # Whoever read our output has gone; there is nobody to tell.
        sys.stderr.close()
        return INCOMPLETE
    except (Exception, interrupt.Interrupted) as error:
        return _end(interrupt.received() or error, verbose)


def _end(error: BaseException, verbose: bool) -> int:
    """Says in one line why the program ends; returns its exit status."""
    match error:
        case interrupt.Interrupted():
            message, status = f"stopped by {error}; the parts that are finished are kept.", error.exit_status
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
