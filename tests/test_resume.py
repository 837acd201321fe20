"""A run that was stopped, at any moment, goes on and ends with the bytes of one that was not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from beam_jobs import storage
from beam_jobs.cli import flags
from beam_jobs.cli.detect_begin import KNOWN_LATER, check_same
from beam_jobs.cli.detect_job import job_of
from beam_jobs.cli.main import main
from beam_jobs.errors import UsageError
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs import layout
from beam_jobs.runs.check import check_run
from beam_jobs.runs.completion import complete
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.manifest import Manifest, mark_success
from beam_jobs.runs.resume import read_begun
from tests.pictures import RED, encode, picture, write_pictures
from tests.test_detect import command, detect, promised

SLOW = "--model=tests.fake_detectors:Slow"


class _Killed(BaseException):
    """Stands for the end of the process: nothing catches it, and nothing is done afterwards."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("in")
    write_pictures(folder, 24)
    return folder


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_killed_run_goes_on_and_does_only_what_is_missing(pictures, tmp_path, capsys):
    clean, output = tmp_path / "clean", tmp_path / "out"
    words = [f"--input={pictures}", "--part_size=3", "--annotate", "--workers=1"]
    detect(clean, *words, model=SLOW)
    process = subprocess.Popen(command("detect", *words, SLOW, f"--output={output}"), stderr=subprocess.DEVNULL)
    _wait_for(output / layout.part_record(1), process)
    process.kill()
    process.wait()
    assert not (output / "run.json").exists()
    (output / "images" / f"{storage.TEMP_PREFIX}1").write_bytes(b"half")
    before = {part: (output / layout.part_record(part)).stat().st_mtime_ns for part in (0, 1)}

    assert main(["detect", *words, SLOW, f"--output={output}"]) == 2
    assert "unfinished run: give --resume" in capsys.readouterr().err

    manifest = detect(output, *words, "--resume", model=SLOW)
    assert promised(output) == promised(clean)
    assert manifest.resumed == 1
    assert before == {part: (output / layout.part_record(part)).stat().st_mtime_ns for part in before}
    assert not list(output.rglob(".tmp*"))

    stamps = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    capsys.readouterr()
    assert main(["detect", *words, SLOW, f"--output={output}", "--resume"]) == 0
    assert "is complete: there is nothing left to do" in capsys.readouterr().out
    assert stamps == {path: path.stat().st_mtime_ns for path in output.rglob("*")}


def test_ctrl_c_says_how_to_go_on(pictures, tmp_path):
    output = tmp_path / "out"
    words = ["detect", f"--input={pictures}", "--part_size=3", SLOW, f"--output={output}", "--workers=1"]
    process = subprocess.Popen(command(*words), stderr=subprocess.PIPE)
    _wait_for(output / layout.part_record(0), process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 130
    assert b"--resume goes on with it" in said
    assert (output / layout.part_record(0)).exists()
    assert main([*words, "--resume"]) == 0


def test_without_a_run_it_starts_afresh(pictures, tmp_path):
    manifest = detect(tmp_path / "out", f"--input={pictures}", "--resume", "--limit=2")
    assert manifest.counts.images == 2
    assert manifest.resumed == 0


@pytest.fixture(scope="module")
def one_stopped(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that lacks a part and its end."""
    output = tmp_path_factory.mktemp("runs") / "stopped"
    detect(output, f"--input={pictures}", "--part_size=10", "--min_score=0.2")
    for path in ("_SUCCESS", "run.json", "coco/dataset.json", layout.part_record(1)):
        (output / path).unlink()
    return output


@pytest.fixture
def stopped(one_stopped: Path, tmp_path: Path) -> Path:
    """A copy of it, to change."""
    return Path(shutil.copytree(one_stopped, tmp_path / "stopped"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min_score=0.3"], "--min_score was 0.2 and is 0.3"),
        (["--part_size=5"], "--part_size was 10 and is 5"),
        (["--limit=7"], "--limit was nothing and is 7"),
        (["--model=tests.fake_detectors:BoxesOnly"], "--model was"),
        (["--input=elsewhere"], "--input was"),
        (["--annotate"], "--annotate was nothing and is given"),
        (["--overwrite"], "leave one of them out"),
        (["--dry_run"], "leave one of them out"),
    ],
)
def test_another_job_is_refused(one_stopped, pictures, words, said, capsys):
    stopped = one_stopped
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    given = ["detect", f"--output={stopped}", f"--input={pictures}", "--part_size=10", "--min_score=0.2"]
    if any(word.startswith("--input") for word in words):
        given.remove(f"--input={pictures}")
    assert main([*given, "--model=tests.fake_detectors:colours", *words, "--resume"]) == 2
    assert said in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}


def test_what_is_chosen_later_is_no_other_job_yet(one_stopped, pictures):
    root = str(one_stopped)
    words = ["detect", f"--input={pictures}", f"--output={root}", "--part_size=10", "--min_score=0.2"]
    options, _ = flags.parse([*words, "--model=tests.fake_detectors:colours", "--resume"])
    job, begun = job_of(options, root), read_begun(root)
    assert begun is not None
    job = replace(job, settings=replace(job.settings, batch_pixels=0))  # as an open detector on a CPU has it
    check_same(options, begun, job)
    # The launcher chose LiteRT after the model was resolved.
    chosen = {**begun.plan.job, "engine": "litert", "form": "litert"}
    begun = replace(begun, plan=msgspec.structs.replace(begun.plan, job=chosen))
    check_same(options, begun, job, leave_out=KNOWN_LATER)
    with pytest.raises(
        UsageError, match="--engine was litert and is python; the form of the model was litert and is original"
    ):
        check_same(options, begun, job)


def test_the_plan_stands_though_the_folder_has_changed(stopped, pictures, tmp_path):
    late = pictures / "late.png"
    late.write_bytes(encode(picture(20, 20)))
    try:
        words = [f"--input={pictures}", "--part_size=10", "--min_score=0.2"]
        manifest = detect(stopped, *words, "--resume")
    finally:
        late.unlink()
    assert manifest.counts.inputs == 24


def test_one_of_two_writes_and_the_other_says_so(stopped, pictures, capsys):
    words = ["detect", f"--input={pictures}", "--model=tests.fake_detectors:colours", "--part_size=10"]
    with storage.exclusive(str(stopped)) as free:
        assert free
        assert main([*words, "--min_score=0.2", f"--output={stopped}", "--resume"]) == 2
    assert "another beam-detect is writing to it" in capsys.readouterr().err


def test_what_a_stopped_planning_leaves_is_in_nobody_s_way(pictures, tmp_path):
    for words in ([], ["--resume"], ["--overwrite"]):
        output = tmp_path / "out"
        (output / "_plan").mkdir(parents=True)
        for name in ("inputs-00000.parquet", "inputs-00007.parquet", f"{storage.TEMP_PREFIX}1"):
            (output / "_plan" / name).write_bytes(b"half")
        (output / "images").mkdir()
        detect(output, f"--input={pictures}", "--limit=2", *words)
        assert not (output / "_plan" / "inputs-00007.parquet").exists()
        shutil.rmtree(output)


def test_a_plan_of_which_nothing_was_begun_is_made_again(stopped, pictures):
    (stopped / layout.LAUNCH).unlink()
    manifest = detect(stopped, f"--input={pictures}", "--limit=3", "--resume")
    assert manifest.counts.inputs == 3


def _ending(at: int) -> Callable[[str, str], None]:
    """A rename that ends the process: the `at // 2`th, before it is done or after it."""
    rename, number = os.replace, 0

    def rename_or_end(source: str, target: str) -> None:
        nonlocal number
        if number == at // 2 and at % 2 == 0:
            raise _Killed
        rename(source, target)
        if number == at // 2:
            raise _Killed
        number += 1

    return rename_or_end


def test_the_end_of_a_run_may_be_stopped_anywhere(tmp_path, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in "ab":
        with (folder / f"{name}.tfrecord").open("wb") as out:
            example = {"image/encoded": [encode(picture(9, 8, ((1, 1, 5, 5), RED)))], "image/filename": [b"same.png"]}
            write_records(out, [make_example(example)] * 2)
    write_pictures(folder, 3)
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:  # a run that was stopped when its last part was committed
        patch.setattr("beam_jobs.cli.detect_run.complete", _kill)
        with pytest.raises(_Killed):
            _run(folder, parts)
    clean = shutil.copytree(parts, tmp_path / "clean")
    complete(str(clean), Launch.read(str(clean)))
    renamed = Manifest.read(str(clean)).renamed
    assert len(renamed) == 3
    steps = 0
    while True:
        output = shutil.copytree(parts, tmp_path / f"out{steps}")
        try:
            with monkeypatch.context() as patch:
                patch.setattr("beam_jobs.storage.local.os.replace", _ending(steps))
                complete(str(output), Launch.read(str(output)))
        except _Killed:
            steps += 1
        else:
            break
        complete(str(output), Launch.read(str(output)))
        mark_success(str(output))
        assert promised(output) == promised(clean)
        assert list(check_run(str(output))) == []
        shutil.rmtree(output)
    assert steps == 16  # eight renames


def _kill(*_: object, **__: object) -> None:
    raise _Killed


def _run(folder: Path, output: Path) -> int:
    from beam_jobs.cli import detect as command_of

    words = ["detect", f"--input={folder}", f"--output={output}", "--model=tests.fake_detectors:colours"]
    options, beam_args = flags.parse([*words, "--part_size=2", "--annotate"])
    return command_of.run(options, beam_args, words)
