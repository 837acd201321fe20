"""The demo, and the promise of bytes, with the real detector."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest

from beam_jobs.cli import demo
from beam_jobs.cli.main import main
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records

pytestmark = pytest.mark.model


def hashes(run: Path) -> dict[str, str]:
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("images", "detections", "failures", "coco", "annotated")
        for path in (run / folder).rglob("*")
        if path.is_file()
    }


def test_the_demo_finds_the_person_the_cat_and_the_cup(tmp_path, capsys):
    run = tmp_path / "demo"
    assert main(["demo", f"--output={run}"]) == 0
    found = pd.read_parquet(run / "detections")
    sure = set(found[found.score >= 0.3][["file_name", "category"]].itertuples(index=False, name=None))
    assert {("astronaut.png", "person"), ("chelsea.png", "cat"), ("coffee.png", "cup")} <= sure
    printed = capsys.readouterr().out
    assert all(name in printed for name in demo.PHOTOGRAPHS)
    assert f"{run}/coco/detections.json" in printed
    assert sorted(os.listdir(run / "annotated")) == sorted(demo.PHOTOGRAPHS)


def test_files_and_records_one_process_and_two_give_the_same(tmp_path):
    folder = demo.photographs()
    common = ["detect", *(f"--input={folder / name}" for name in demo.PHOTOGRAPHS), f"--root={folder}", "--annotate"]
    assert main([*common, f"--output={tmp_path}/one", "--workers=1"]) == 0
    assert main([*common, f"--output={tmp_path}/two", "--workers=2"]) == 0
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")

    records = [
        make_example({"image/encoded": (folder / name).read_bytes(), "image/filename": name})
        for name in demo.PHOTOGRAPHS
    ]
    write_records(str(tmp_path / "photographs.tfrecord.gz"), records, compress=True)
    assert main(["detect", f"--input={tmp_path}/photographs.tfrecord.gz", f"--output={tmp_path}/records"]) == 0
    of_files, of_records = hashes(tmp_path / "one"), hashes(tmp_path / "records")
    for name in ("detections/part-00000.parquet", "coco/detections.json", "coco/dataset.json"):
        assert of_files[name] == of_records[name], name
