"""`python -m beam_jobs`, and the command `beam-detect`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Runs the command line; see `beam_jobs.cli.main`."""
    # Until the program listens for it, Ctrl-C ends it without a traceback through the imports.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from beam_jobs.cli.main import main as run

    status = run()
    if status > 128:
        # A pipeline that was interrupted leaves threads of Beam's, for which Python would wait.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


if __name__ == "__main__":
    sys.exit(main())
