"""Runs in buckets, where there are no locks, that are started twice: by two jobs at a time, or taken up again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from beam_jobs import storage
from beam_jobs.cli import detect, detect_run
from beam_jobs.cli.main import main
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs import completion, layout, parts
from beam_jobs.runs.check import check_run
from beam_jobs.runs.folder import files_of_parts
from beam_jobs.runs.manifest import Manifest
from tests.buckets import FAKE, put_pictures, tree
from tests.pictures import RED, encode, picture
from tests.store_server import BUCKET, Store


@pytest.mark.parametrize(("module", "when"), [(detect, "began"), (detect_run, "complete")])
def test_of_two_jobs_in_one_folder_one_ends_and_the_other_says_so(
    s3: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    module: ModuleType,
    when: str,
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 4)
    words = ["detect", FAKE, f"--input={top}/in", f"--output={top}/out", "--part_size=2", "--workers=1"]
    original = getattr(module, when)

    def after_another(*given: Any, **more: Any) -> object:
        command = [sys.executable, "-m", "beam_jobs", *words, "--min_score=0.2", "--overwrite"]
        subprocess.run(command, check=True, capture_output=True)
        return original(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(module, when, after_another)
        assert main(words) == 3
    assert "Another beam-detect has begun" in capsys.readouterr().err
    assert list(check_run(f"{top}/out")) == []
    assert Manifest.read(f"{top}/out").job["min_score"] == 0.2


def test_a_job_that_loses_its_folder_while_it_writes_overwrites_nothing(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 4)
    words = ["detect", FAKE, f"--input={top}/in", f"--output={top}/out", "--part_size=2", "--workers=1"]
    original = parts._write_tables

    def after_another(*given: Any) -> object:
        if len(others) == 0:
            command = [sys.executable, "-m", "beam_jobs", *words, "--min_score=0.2", "--overwrite"]
            others.append(subprocess.run(command, check=True, capture_output=True))
        return original(*given)

    others: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_write_tables", after_another)
        assert main(words) == 3
    assert "Another beam-detect has begun" in capsys.readouterr().err
    assert list(check_run(f"{top}/out")) == []
    assert Manifest.read(f"{top}/out").job["min_score"] == 0.2


def test_what_a_job_left_that_lost_its_folder_is_not_the_others(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 4)
    words = ["detect", FAKE, f"--input={top}/in", "--part_size=2", "--workers=1"]
    assert main([*words, "--min_score=0.999", f"--output={top}/theirs"]) == 0
    theirs = [entry.path for entry in storage.walk_remote(f"{top}/theirs") if "/part-" in entry.path]
    assert len(theirs) == 10, "four tables and a record of each part"
    original = completion.complete

    def after_another(*given: Any, **more: Any) -> object:
        for path in theirs:
            storage.write_atomic(path.replace("/theirs/", "/out/"), storage.read_bytes(path))
        return original(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(detect_run, "complete", after_another)
        assert main([*words, f"--output={top}/out"]) == 0
    assert list(check_run(f"{top}/out")) == []
    assert len([entry for entry in storage.walk_remote(f"{top}/out") if "/part-" in entry.path]) == 10
    assert main([*words, f"--output={tmp_path}/local"]) == 0
    assert tree(f"{top}/out") == tree(f"{tmp_path}/local")


def test_a_run_in_a_bucket_that_is_taken_up_has_the_files_of_both_starts(s3: Store, tmp_path: Path) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 3)
    data = encode(picture(40, 30, ((1, 1, 9, 9), RED)))
    write_records(f"{top}/in/r.tfrecord", [make_example({"image/encoded": data, "image/filename": "a 1.png"})] * 3)
    words = ["detect", FAKE, f"--input={top}/in", "--part_size=2", "--workers=1", "--annotate"]
    assert main([*words, f"--output={tmp_path}/local"]) == 0
    assert main([*words, f"--output={top}/out"]) == 0
    (first,) = {layout.mark_of(path) for path in parts.committed(f"{top}/out").values()}
    for path in ("_SUCCESS", "run.json", parts.committed(f"{top}/out")[0]):
        storage.remove(f"{top}/out/{path}")
    assert main([*words, f"--output={top}/out", "--resume"]) == 0
    marks = {part: layout.mark_of(path) for part, path in parts.committed(f"{top}/out").items()}
    assert marks[0] != first
    assert first in marks.values()
    assert list(check_run(f"{top}/out")) == []
    assert tree(f"{top}/out") == tree(f"{tmp_path}/local")
    assert main([*words, f"--output={top}/out", "--limit=1", "--overwrite"]) == 0
    assert list(check_run(f"{top}/out")) == []
    left = set(files_of_parts(f"{top}/out"))
    assert {layout.part_of(path) for path in left} == {0}
