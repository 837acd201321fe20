"""The benchmark script: what it compares is the same, and it runs. How fast anything is, no test says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_jobs.detectors.base import DetectorSpec
from scripts import _benchmark, _benchmark_open
from scripts._benchmark_agreement import Agreement, Found, compare
from scripts._benchmark_contenders import Contender, Job, Run, Script
from scripts._benchmark_open import Opening
from scripts._benchmark_pictures import SIZES, make_pictures
from tests import saved_models

ROOT = Path(__file__).resolve().parent.parent


def rows(*rows: tuple[float, ...]) -> Found:
    return {"a.jpg": np.array(rows, np.float64).reshape(-1, 6)}


BOX = (1, 0.9, 10, 10, 50, 50)


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        (rows(BOX), rows(BOX), Agreement(matched=1)),
        (rows(BOX), rows((1, 0.8995, 10, 10, 50, 50.25)), Agreement(1, 0, 0.25, 0.0005)),
        (rows(BOX), rows((2, 0.9, 10, 10, 50, 50)), Agreement(unmatched=2)),
        (rows(BOX), rows((1, 0.9, 10, 10, 50, 51)), Agreement(unmatched=2)),
        (rows(BOX, BOX), rows(BOX), Agreement(matched=1, unmatched=1)),
        (rows(BOX), rows(BOX, (1, 0.0501, 0, 0, 9, 9)), Agreement(matched=1)),  # at the threshold: may be missing
        (rows(BOX), rows(BOX, (1, 0.3, 0, 0, 9, 9)), Agreement(matched=1, unmatched=1)),
        (rows(BOX), {}, Agreement(unmatched=1)),
    ],
)
def test_detections_are_compared(ours, theirs, expected):
    found = compare(ours, theirs)
    assert (found.matched, found.unmatched) == (expected.matched, expected.unmatched)
    assert (found.box, found.score) == pytest.approx((expected.box, expected.score))


def test_pictures_differ_and_come_again(tmp_path):
    made = []
    for name, count, seed in (("once", 8, 1), ("again", 4, 1), ("other", 4, 2)):
        (tmp_path / name).mkdir()
        made.append([path.read_bytes() for path in make_pictures(tmp_path / name, count, seed)])
    once, again, other = made
    assert once[:4] == again
    assert len(set(once + other)) == 12
    for path in (tmp_path / "once").iterdir():
        with Image.open(path) as picture:
            assert picture.size in SIZES


def test_tables_have_medians_and_ratios():
    contenders: list[Contender] = [
        Script("plain loop", "_plain_loop.py", "somewhere"),
        Job("coco-ssd", ("--workers=1",)),
        Script("limit", "_limit.py", "elsewhere", is_limit=True),
        Script("slower limit", "_limit.py", "elsewhere", is_limit=True),
    ]
    runs = [
        [Run(steady, steady + 2, {}, {}) for steady in (4.0, 5.0, 8.0)],
        [Run(steady, steady + 1, {}, {"infer": 30.0}) for steady in (2.0, 2.5, 2.0)],
        [Run(steady, steady + 1, {}, {}) for steady in (1.0, 1.0, 1.6)],
        [Run(steady, steady + 1, {}, {}) for steady in (0.9, 1.1, 1.6)],
    ]
    *_, loop, job, limit, _ = _benchmark.speed_table(contenders, runs, [10**9, 2 * 10**8, 3, 4], 40)
    assert loop.startswith("| plain loop | 8.0 (5.0–10.0) | 1.00 (1.00–1.00) | 0.20 (0.20–0.25) | 2.0 (2.0–2.0) | 7.0")
    assert job == (
        "| beam-detect --workers=1 | 20.0 (16.0–20.0) | 2.50 (2.00–4.00) | 0.50 (0.40–0.80) | 1.0 (1.0–1.0)"
        " | 3.0 (3.0–3.5) | 200 |"
    )
    assert limit.startswith("| limit | 40.0")
    assert "| beam-detect --workers=1 | 30.00 |" in _benchmark.work_table(contenders, runs)


@pytest.mark.slow
def test_it_runs_and_both_find_the_same(tmp_path):
    saved_models.build_all(tmp_path)
    report = tmp_path / "report.md"
    words = [f"--model={tmp_path / 'zoo'}", "--rounds=1", "--pictures=6", "--video=8"]
    words += ["--memory", "3", "6", f"--output={report}"]
    done = subprocess.run(
        [sys.executable, "-P", ROOT / "scripts/_benchmark.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert report.read_text() == done.stdout
    lines = report.read_text().splitlines()
    assert [line.split(" |")[0] for line in lines if line.startswith("| ")][1:4] == [
        "| plain loop",
        "| Beam RunInference",
        "| beam-detect --engine=tensorflow",
    ]
    assert any("detections in common, 0 only one of them has" in line for line in lines)
    assert any(line.startswith("| 6 | ") for line in lines)
    assert sum(line.startswith(("| loop over the clip |", "| beam-detect, the clip |")) for line in lines) == 2


def test_openings_are_compared_round_by_round():
    spec = DetectorSpec("saved_model", "ssd", "somewhere", "0" * 64, {})
    original = [Opening(8.0, 2.0, 30.0), Opening(9.0, 1.0, 40.0), Opening(16.0, 4.0, 35.0)]
    frozen = [Opening(2.0, 0.0, 28.0), Opening(1.0, 0.0, 20.0), Opening(3.0, 0.0, 29.0)]
    line = _benchmark_open.row(spec, 61.4, {"saved_model": original, "frozen": frozen})
    assert line == "| ssd | 9.0 + 2.0 | 2.0 | 0.15 (0.10–0.20) | 61 | 35 | 28 |"


@pytest.mark.slow
def test_both_forms_of_a_model_are_opened(tmp_path):
    saved_models.build_all(tmp_path)
    words = [tmp_path / "zoo", tmp_path / "random", "--rounds=1"]
    done = subprocess.run(
        [sys.executable, "-P", ROOT / "scripts/_benchmark_open.py", *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^\| zoo \| [\d.]+ \+ [\d.]+ \| [\d.]+ \|", done.stdout, re.MULTILINE)
    assert "| random | it finds something else in picture 1" in done.stdout
