"""`python -m beam_jobs`, and the command `beam-detect`."""

from __future__ import annotations

import sys

from beam_jobs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
