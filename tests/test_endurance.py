"""The endurance script: that it runs, and sees what grows."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from scripts._endurance import Sample, report, slope

ROOT = Path(__file__).resolve().parent.parent


def test_a_slope_is_over_100_000_pictures() -> None:
    assert slope([0, 50_000, 100_000], [10, 15, 20]) == pytest.approx(10)
    assert slope([7, 7], [1, 2]) == 0


def test_what_grows_is_seen() -> None:
    samples = [Sample(i, 5, {"launcher": 200 + i}, {"launcher": 9}, {"launcher": 4}) for i in range(1, 101)]
    # The log says less often how many pictures were done.
    log = [
        {"code": "progress", "pictures": 1000 * i, "time": datetime.fromtimestamp(i, UTC).isoformat()}
        for i in range(0, 101, 20)
    ]
    memory, files, *_, rate = report(samples, [{"code": "began"}, *log])[2:]
    assert memory == "| memory of launcher (RSS) | 210.0 MB | 300.0 MB | 300.0 MB | +100.00 MB |"
    assert files == "| open files of launcher | 9 | 9 | 9 | -0.00 |" or files.endswith("| +0.00 |")
    assert rate.startswith("| pictures a second | 1,000.0 | 1,000.0 | 1,000.0 |")


def test_a_short_run_has_exact_counts() -> None:
    words = [sys.executable, str(ROOT / "scripts" / "_endurance.py"), "--pictures=2000", "--every=0.2", "--workers=1"]
    ran = subprocess.run(words, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert ran.returncode == 0, ran.stderr
    assert "1,998 pictures and 2 failures of 2,000 inputs (exact)" in ran.stdout
    assert "`beam-detect check` finds nothing" in ran.stdout
