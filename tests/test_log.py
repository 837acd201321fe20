"""The log of a run: what it tells, of all runs and of those that were stopped, and that it stays small."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from beam_jobs import storage
from beam_jobs.cli.main import main
from beam_jobs.runs import layout
from beam_jobs.runs.completion import complete
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.log import ALL_LINES, RunLog
from beam_jobs.runs.manifest import Manifest
from tests.pictures import encode, picture, write_pictures
from tests.test_detect import detect, tables

SECRET = "sEcReT0123456789"


def lines(output: Path) -> list[dict[str, Any]]:
    """All lines of all files of a log, in the order of the files."""
    paths = sorted((output / layout.LOG_FOLDER).iterdir())
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def of(output: Path, code: str) -> list[dict[str, Any]]:
    return [line for line in lines(output) if line["code"] == code]


def test_the_log_tells_what_a_run_did(tmp_path):
    write_pictures(tmp_path / "in", 10)
    (tmp_path / "in" / "fatal.png").write_bytes(encode(picture(13, 9)))
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    words = [f"--input={tmp_path}/in", "--part_size=5", "--workers=1", f"--s3_secret_access_key={SECRET}"]
    manifest = detect(tmp_path / "out", *words, model="--model=tests.fake_detectors:Segfault")
    told = lines(tmp_path / "out")
    assert [line["code"] for line in told[:2]] == ["opened", "started"]
    assert told[-1]["code"] == "finished"
    for line in told:
        assert {"time", "level", "stage", "code", "message"} <= line.keys()
        datetime.fromisoformat(line["time"])
    # A process was lost twice over one picture, and another one opened in its place.
    lost = [line for line in of(tmp_path / "out", "crashed") if "process" in line]
    assert [(line["input"], line["again"]) for line in lost] == [(f"{tmp_path}/in/fatal.png", i) for i in (True, False)]
    opened = [line["process"] for line in of(tmp_path / "out", "opened")]
    assert len(set(opened)) == manifest.detector.loads == 3
    assert {line["process"] for line in lost} == set(opened[:2])
    # Each failure once, as the table has it.
    failed = [line for line in told if line["level"] == "warning" and "part" in line]
    rows = tables(tmp_path / "out")["failures"]
    columns = ["uri", "file_name", "frame", "stage", "code", "message", "attempts"]
    keys = ["input", *columns[1:]]
    assert [[line[key] for key in keys] for line in failed] == rows[columns].to_numpy().tolist()
    committed = of(tmp_path / "out", "committed")
    assert sorted(line["part"] for line in committed) == [0, 1, 2]  # one that waits for another process comes later
    assert sum(line["pictures"] for line in committed) == manifest.counts.images == 10
    assert sum(line["failed"] for line in committed) == manifest.counts.failed == 2
    sample = of(tmp_path / "out", "progress")[-1]
    assert (sample["pictures"], sample["failed"]) == (12, 2)
    assert sample["rate"] > 0
    assert sample["processes"][0]["pid"] == os.getpid()
    assert all(process["rss_mb"] > 10 and process["open_files"] > 3 for process in sample["processes"])
    assert SECRET not in "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json*"))


def test_a_file_that_changes_after_it_was_planned_is_told(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 3)
    late = encode(picture(70, 50))

    def change(*_: object, **__: object) -> None:
        (tmp_path / "in" / "picture-0001.png").write_bytes(late)

    monkeypatch.setattr("beam_jobs.cli.detect.began", change)  # between the plan and the first part
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in")
    assert manifest.counts.images == 3
    (line,) = of(tmp_path / "out", "changed")
    assert line["input"].endswith("picture-0001.png")
    assert line["message"].endswith(f"and {len(late)} when it was read.")


def test_a_run_that_goes_on_adds_to_the_log(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 4)
    output = tmp_path / "out"
    words = [f"--input={tmp_path}/in", "--part_size=2"]
    with monkeypatch.context() as patch:
        patch.setattr("beam_jobs.cli.detect_run.complete", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
        assert main(["detect", f"--output={output}", "--model=tests.fake_detectors:colours", *words]) == 143
    assert [line["code"] for line in lines(output)][-1] == "stopped"
    detect(output, *words, "--resume")
    assert len(list((output / layout.LOG_FOLDER).iterdir())) == 2
    assert len(of(output, "resumed")) == len(of(output, "finished")) == 1
    listed = {file.path for file in Manifest.read(str(output)).files}
    assert not [path for path in listed if path.startswith(layout.LOG_FOLDER)]


def test_what_ended_a_run_is_told_without_what_is_secret(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 2)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError(f"no answer from https://user:{SECRET}@host/path")

    monkeypatch.setattr("beam_jobs.cli.detect_run.complete", broken)
    words = [f"--input={tmp_path}/in", "--model=tests.fake_detectors:colours"]
    assert main(["detect", f"--output={tmp_path}/out", *words]) == 3
    (line,) = of(tmp_path / "out", "incomplete")
    assert (line["level"], line["stage"]) == ("error", "launch")
    assert line["message"] == "no answer from https://host/path"


def test_another_runner_s_workers_tell_too(tmp_path):
    write_pictures(tmp_path / "in", 6)
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    detect(tmp_path / "out", f"--input={tmp_path}/in", "--part_size=3", "--workers=1", f"--runner={runner}")
    codes = Counter(line["code"] for line in lines(tmp_path / "out"))
    assert (codes["started"], codes["finished"], codes["committed"]) == (1, 1, 2)
    assert codes["progress"] >= 1


def test_many_lines_of_a_code_are_thinned_out(tmp_path):
    log = RunLog()
    log.open(str(tmp_path))
    for i in range(25 * ALL_LINES):
        log.warning("decode", "corrupt", "The file is corrupt.", input=str(i))
    log.info("write", "committed", "Part 0.")
    log.close()
    told = lines(tmp_path)
    numbers = [line["number"] for line in told if "number" in line]
    assert len(told) == ALL_LINES + 9 * ALL_LINES // 10 + 15 * ALL_LINES // 100 + 1
    assert numbers[0] == ALL_LINES + 10
    assert numbers[-1] == 25 * ALL_LINES
    assert told[-1]["code"] == "committed"


def test_a_full_disk_leaves_no_half_line(tmp_path):
    log = RunLog()
    log.open(str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))  # as a disk that takes a part of a write
    try:
        for i in range(50):
            log.info("write", "committed", f"Part {i}.")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.close()
    assert 5 < len(lines(tmp_path)) < 50


@pytest.mark.parametrize("words", [[], ["--resume"]])
def test_times_and_counts_add_up(tmp_path, words, monkeypatch):
    write_pictures(tmp_path / "in", 12)
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    output = tmp_path / "out"
    given = [f"--input={tmp_path}/in", "--part_size=4", "--workers=1"]
    if words:
        detect(output, *given)
        launch = Launch.read(str(output))
        for path in ("_SUCCESS", "run.json", layout.part_record(1)):
            (output / path).unlink()
        yesterday = msgspec.structs.replace(launch, started=launch.started - timedelta(days=1))
        yesterday.write(str(output))
    manifest = detect(output, *given, *words)
    stage_s = dict(manifest.stage_s)
    total = stage_s.pop("total")
    assert sum(stage_s.values()) == pytest.approx(total, abs=1e-6)
    assert stage_s["other"] < 0.5 * total < 50
    timings = tables(output)["timings"]
    for step, seconds in manifest.work_s.items():
        assert seconds == pytest.approx(timings[f"{step}_ms"].sum() / 1e3, abs=1e-3)
    counts = manifest.counts
    assert counts.inputs == counts.images + counts.failed == manifest.inputs.planned == 13
    done = 4 if words else 13
    assert manifest.pictures_per_s == pytest.approx(done / stage_s["detect"], rel=0.01)
    assert manifest.cpu_s is not None
    assert sum(manifest.cpu_s.values()) <= stage_s["detect"] * len(os.sched_getaffinity(0)) * 1.1


def test_a_clock_that_jumps_harms_nothing(tmp_path):
    write_pictures(tmp_path / "in", 2)
    output = tmp_path / "out"
    detect(output, f"--input={tmp_path}/in")
    later = datetime.now(UTC) + timedelta(hours=3)
    launch = msgspec.structs.replace(Launch.read(str(output)), started=later, submitted=later)
    manifest = complete(str(output), launch)
    stage_s = dict(manifest.stage_s)
    assert stage_s["detect"] == 0
    assert stage_s.pop("total") == pytest.approx(sum(stage_s.values()))
    assert min(stage_s.values()) >= 0
    assert manifest.pictures_per_s == 0


def test_in_a_store_a_log_is_objects(tmp_path):
    log = RunLog()
    log.open("memory://none/run")  # nobody has such a file system: nothing is in the way of the run
    log.info("write", "committed", "Part 0.")
    log.close()
    assert storage.is_remote("memory://none/run")
