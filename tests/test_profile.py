"""What a run says of its time and memory; and what a detector process does not spend them on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.cli.main import main
from beam_jobs.cli.profile import profile
from beam_jobs.processes.settings import process_settings
from tests.pictures import write_pictures

STEPS = ["read", "decode", "batch", "infer", "post-process", "write", "Beam overhead", "idle"]
LINE = re.compile(r"^(\S+(?: overhead)?) +([\d.]+) +([\d.]+)%", re.MULTILINE)


@given(st.lists(st.floats(0, 100), min_size=7, max_size=7), st.floats(0.1, 60), st.integers(1, 64))
def test_the_shares_add_up(seconds: list[float], wall_s: float, cores: int) -> None:
    cpu_s = dict(zip(STEPS, seconds, strict=False))
    *lines, (name, whole, all_) = LINE.findall(profile(cpu_s, wall_s, cores, 10))
    assert [line[0] for line in lines] == STEPS
    assert (name, all_) == ("all", "100.0")
    assert round(sum(float(share) for _, _, share in lines), 1) == 100.0
    assert sum(float(ms) for _, ms, _ in lines) == pytest.approx(float(whole), abs=0.05)


def test_a_run_shows_its_profile_and_keeps_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", 12)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:Busy"]
    assert main(["detect", *words, "--profile", "--annotate"]) == 0
    said = capsys.readouterr().out
    lines = {name: float(share) for name, _, share in LINE.findall(said)}
    assert lines.pop("all") == 100.0
    assert set(lines) - {"opening"} == set(STEPS)
    assert round(sum(lines.values()), 1) == 100.0
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    spent = manifest["cpu_s"]
    assert min(spent["read"], spent["decode"], spent["infer"], spent["write"], spent["Beam overhead"]) > 0
    assert sum(spent.values()) < manifest["stage_s"]["detect"] * len(os.sched_getaffinity(0))
    assert 10 < manifest["detector"]["rss_mb"] < 2000
    assert manifest["detector"]["environment"] == process_settings(1)


def test_only_the_local_engine_has_a_profile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", 1)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:colours"]
    runner = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    assert main(["detect", *words, "--profile", runner]) == 2
    assert "leave --runner out" in capsys.readouterr().err


def test_a_detector_process_of_litert_loads_only_what_it_needs() -> None:
    code = """
import sys
import beam_jobs.processes.child, beam_jobs.detectors.litert_detector
from beam_jobs.formats.rows import RowsBuilder
from beam_jobs.processes.settings import keep_pandas_out
keep_pandas_out()
RowsBuilder("model", {}).encode()
print(sorted({"tensorflow", "apache_beam", "pandas", "pyarrow.dataset", "pyarrow.parquet"} & set(sys.modules)))
import pyarrow
print(len(pyarrow.table({"a": [1, 2]}).to_pandas()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["[]", "2", ""]
