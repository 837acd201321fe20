"""Incremental runs: what is done again, and that all runs together are one table."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from beam_jobs.cli.main import main
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs import layout
from beam_jobs.runs.manifest import Manifest
from tests.pictures import BLUE, RED, encode, picture, write_pictures
from tests.test_detect import detect, promised

FAKE = "--model=tests.fake_detectors:colours"


def blue(width: int) -> bytes:
    return encode(picture(width, 30, ((1, 1, 9, 9), BLUE)))


def together(*runs: Path) -> dict[str, pd.DataFrame]:
    """The tables of runs, oldest first, as the README joins them."""
    images = [f"SELECT {i} AS run, * FROM '{run}/images/*.parquet'" for i, run in enumerate(runs)]
    detections = [f"SELECT {i} AS run, * FROM '{run}/detections/*.parquet'" for i, run in enumerate(runs)]
    failures = [f"SELECT {i} AS run, * FROM '{run}/failures/*.parquet'" for i, run in enumerate(runs)]
    gone = [f"SELECT {i + 1} AS run, uri FROM '{run}/superseded/*.parquet'" for i, run in enumerate(runs[1:])]
    newer = f"SELECT 1 FROM ({' UNION ALL '.join(gone)}) s WHERE s.uri = t.uri AND s.run > t.run"
    kept = {
        name: f"SELECT * FROM ({' UNION ALL '.join(tables)}) t WHERE NOT EXISTS ({newer})"
        for name, tables in (("images", images), ("failures", failures))
    }
    found = f"({' UNION ALL '.join(detections)})"
    kept["detections"] = f"SELECT d.* FROM {found} d SEMI JOIN ({kept['images']}) i USING (run, image_id)"
    return {name: duckdb.sql(query).df().drop(columns=["run"]) for name, query in kept.items()}


def same_as(runs: tuple[Path, ...], whole: Path) -> None:
    """Several runs together are what one run over everything is."""
    order = {"images": ["uri", "file_name"], "failures": ["uri"], "detections": ["image_id", "rank"]}
    for name, table in together(*runs).items():
        expected = duckdb.sql(f"SELECT * FROM '{whole}/{name}/*.parquet'").df()
        pd.testing.assert_frame_equal(
            table.sort_values(order[name], ignore_index=True), expected.sort_values(order[name], ignore_index=True)
        )


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A run over ten pictures and a broken one."""
    write_pictures(tmp_path / "in", 10)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    detect(tmp_path / "a", f"--input={tmp_path}/in", "--part_size=4")
    return tmp_path / "a"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, `a`, that nobody changes."""
    folder = tmp_path_factory.mktemp("since")
    write_pictures(folder / "in", 2)
    detect(folder / "a", f"--input={folder}/in", "--part_size=4")
    return folder


def since(run: Path, output: Path, *words: str) -> Manifest:
    return detect(output, f"--input={output.parent}/in", "--part_size=4", f"--since={run}", *words)


def superseded(run: Path) -> dict[str, str]:
    table = pd.read_parquet(run / "superseded")
    return dict(zip(table.file_name, table.reason, strict=True))


def test_only_what_is_new_or_changed_is_done_and_all_runs_are_one_table(first, tmp_path):
    inputs = tmp_path / "in"
    (inputs / "picture-0001.png").write_bytes(blue(50))  # another size
    data = (inputs / "picture-0002.png").read_bytes()
    (inputs / "picture-0002.png").write_bytes(data)  # another time, the same content
    os.utime(inputs / "picture-0002.png", ns=(1, 1))
    (inputs / "picture-0003.png").unlink()
    (inputs / "new.png").write_bytes(blue(40))
    (inputs / "broken.jpg").write_bytes(blue(30))  # a failure no more
    manifest = since(first, tmp_path / "b")
    planned = manifest.inputs
    assert (planned.planned, planned.changed, planned.gone, planned.unchanged) == (3, 2, 1, 8)
    assert superseded(tmp_path / "b") == {"broken.jpg": "changed", "picture-0001.png": "changed",
                                          "picture-0003.png": "gone"}  # fmt: skip
    detect(tmp_path / "whole1", f"--input={inputs}")
    same_as((first, tmp_path / "b"), tmp_path / "whole1")

    # And a third run, since the second: what each of them did last counts.
    (inputs / "picture-0001.png").write_bytes(blue(60))
    (inputs / "picture-0003.png").write_bytes(blue(70))  # came back
    (inputs / "new.png").unlink()
    (inputs / "picture-0005.png").write_bytes(b"")
    manifest = since(tmp_path / "b", tmp_path / "c")
    assert manifest.inputs.planned == 3
    assert superseded(tmp_path / "c") == {
        "new.png": "gone", "picture-0001.png": "changed", "picture-0005.png": "changed"}  # fmt: skip
    detect(tmp_path / "whole2", f"--input={inputs}")
    same_as((first, tmp_path / "b", tmp_path / "c"), tmp_path / "whole2")


def test_the_same_size_and_another_content_is_read_and_found(first, tmp_path):
    path = tmp_path / "in" / "picture-0004.png"
    other = encode(picture(40, 30, ((3, 3, 9, 9), BLUE)))
    old = path.read_bytes()
    assert len(other) < len(old)
    path.write_bytes(other + b"\0" * (len(old) - len(other)))
    assert superseded_names(since(first, tmp_path / "b"), tmp_path / "b") == ["picture-0004.png"]


def superseded_names(manifest: Manifest, run: Path) -> list[str]:
    assert manifest.inputs.planned == len(superseded(run))
    return list(superseded(run))


def test_nothing_new_is_a_run_too(first, tmp_path, capsys):
    manifest = since(first, tmp_path / "b")
    assert (manifest.inputs.planned, manifest.inputs.unchanged, manifest.status) == (0, 11, "succeeded")
    same_as((first, tmp_path / "b"), first)
    assert "11 left out: that run has them" in capsys.readouterr().out
    since(tmp_path / "b", tmp_path / "c")
    same_as((first, tmp_path / "b", tmp_path / "c"), first)
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    since(first, tmp_path / "d", f"--runner={runner}", "--workers=1")


def test_it_goes_on_like_any_run(first, tmp_path):
    for i in range(9):
        (tmp_path / "in" / f"new{i}.png").write_bytes(blue(40 + i))
    since(first, tmp_path / "b")
    stopped = Path(shutil.copytree(tmp_path / "b", tmp_path / "stopped"))
    for path in ("_SUCCESS", "run.json", layout.part_record(1)):
        (stopped / path).unlink()
    words = ["detect", f"--input={tmp_path}/in", "--part_size=4", f"--output={stopped}", FAKE, "--resume"]
    assert main(words) == 2  # it was made since another
    assert main([*words, f"--since={first}"]) == 0
    assert promised(stopped) == promised(tmp_path / "b")
    since(first, tmp_path / "b", "--overwrite")
    assert promised(stopped) == promised(tmp_path / "b")


def test_records_do_not_take_ids_of_earlier_runs(tmp_path):
    (tmp_path / "in").mkdir()
    example = make_example({"image/encoded": [encode(picture(9, 8, ((1, 1, 5, 5), RED)))], "image/filename": b"s.png"})
    for name in ("a", "b"):
        with (tmp_path / "in" / f"{name}.tfrecord").open("wb") as out:
            write_records(out, [example] * 2)
        if name == "a":
            detect(tmp_path / "old", f"--input={tmp_path}/in")
    (tmp_path / "in" / "s.png").write_bytes(blue(20))
    detect(tmp_path / "new", f"--input={tmp_path}/in", f"--since={tmp_path}/old")
    images = together(tmp_path / "old", tmp_path / "new")["images"]
    assert len(images) == 5
    assert images.image_id.is_unique


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min_score=0.3"], "was made by another job: --min_score was 0.05 and is 0.3"),
        (["--model=tests.fake_detectors:BoxesOnly"], "--model was"),
        (["--annotate"], "--annotate was nothing"),
        (["--root=/"], "--root was nothing and is /"),
        (["--since=nowhere"], "there is no finished run in"),
        (["--ground_truth=x.json"], "give it as --image_ids"),
        (["--output=a"], "name another folder"),
    ],
)
def test_what_does_not_go_together_is_refused(folder, words, said, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    given = ["detect", f"--input={folder}/in", "--output=b", FAKE, "--part_size=4", "--since=a"]
    before = sorted(folder.rglob("*"))
    assert main([*given, *words]) == 2
    assert said in capsys.readouterr().err
    assert sorted(folder.rglob("*")) == before


def test_an_unfinished_run_is_refused(first, tmp_path, capsys):
    (first / "run.json").unlink()
    assert main(["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/b", FAKE, f"--since={first}"]) == 2
    assert f"there is no finished run in {first}" in capsys.readouterr().err
