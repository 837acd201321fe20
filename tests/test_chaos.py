"""The short form of `scripts/chaos`: real runs that meet each local fault twice. Stores: see `test_bucket_runs`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts._chaos_faults import LOCAL

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_whatever_meets_a_run_it_ends_with_the_same_bytes(tmp_path: Path) -> None:
    only = [f"--only={name}" for name in LOCAL]
    words = ["--seeds=2", "--pictures=40", "--pause=1", *only]
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "_chaos.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert ran.returncode == 0, ran.stderr
    table = ran.stdout.partition("|---|")[2]
    rows = re.findall(r"^\| (.+) \| (\d+) \| (\d+) \| [\d.]+ \| [\d.-]+% \|$", table, re.M)
    expected = [(name, "2", "2") for name in LOCAL if name != "disk full" or os.getuid() == 0]
    assert rows == expected
