"""`python -m beam_jobs`, and the command `beam-detect`."""

from __future__ import annotations

import signal
import sys


def main() -> int:
    """Runs the command line; see `beam_jobs.cli.main`."""
    # Until the program listens for it, Ctrl-C ends it without a traceback through the imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from beam_jobs.cli.main import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
