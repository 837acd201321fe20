"""`beam-detect check`: a whole run is whole, and every kind of damage is found and named."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from beam_jobs.cli.main import main
from beam_jobs.formats.tables import DICTIONARY_COLUMNS
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs import layout
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.parts import PartRecord, read_table, write_table
from tests.pictures import BLUE, GREEN, RED, encode, picture

Damage = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of pictures, records, failures and annotated pictures, in three parts."""
    folder = tmp_path_factory.mktemp("in")
    for i in range(5):
        boxes = (((2, 3, 12 + i, 13), RED), ((20, 5, 30, 15), GREEN), ((5, 20, 15, 28), BLUE))
        (folder / f"{i}.png").write_bytes(encode(picture(40, 30, *boxes)))
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    with (folder / "two.tfrecord").open("wb") as out:
        records = [make_example({"image/encoded": [encode(picture(9, 8, ((1, 1, 5, 5), RED)))]}) for _ in range(2)]
        write_records(out, records)
    run = folder.parent / "whole"
    words = ["detect", f"--input={folder}", f"--output={run}", "--model=tests.fake_detectors:colours"]
    assert main([*words, "--part_size=3", "--annotate"]) == 0
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of it, to damage."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


def test_a_whole_run_is_whole(whole, capsys):
    capsys.readouterr()
    assert main(["check", str(whole)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{whole} is whole: ")
    assert "7 pictures, 17 detections, 1 failures" in out


def test_what_is_no_finished_run_is_refused(tmp_path, capsys):
    assert main(["check", str(tmp_path)]) == 2
    assert f"{tmp_path} is not a run of beam-detect" in capsys.readouterr().err


def _unlist_plan(run: Path) -> None:
    manifest = Manifest.read(str(run))
    files = [file for file in manifest.files if file.path != layout.PLAN]
    msgspec.structs.replace(manifest, files=files).write(str(run))
    (run / layout.PLAN).unlink()


def _table(run: Path, name: str, part: int, change: Callable[[pa.Table], pa.Table]) -> None:
    """Changes a table and what is recorded of it, as a program would that writes wrong rows."""
    path = layout.part_table(name, part)
    file = write_table(str(run), path, change(read_table(str(run), path)), DICTIONARY_COLUMNS[name])
    record = PartRecord.read(str(run), layout.part_record(part))
    files = [file if one.path == path else one for one in record.files]
    msgspec.structs.replace(record, files=files).write(str(run))
    _relist(run)


def _relist(run: Path) -> None:
    """Gives the manifest the files as they are."""
    manifest = Manifest.read(str(run))
    data = {file.path: (run / file.path).read_bytes() for file in manifest.files}
    files = [
        msgspec.structs.replace(file, bytes=len(data[file.path]), sha256=hashlib.sha256(data[file.path]).hexdigest())
        for file in manifest.files
    ]
    msgspec.structs.replace(manifest, files=files).write(str(run))


def _set(column: str, value: object, row: int = 0) -> Callable[[pa.Table], pa.Table]:
    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        at = table.schema.get_field_index(column)
        return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))

    return change


def _cut(path: str) -> Damage:
    def damage(run: Path) -> None:
        (run / path).write_bytes((run / path).read_bytes()[:-1])

    return damage


def _flip(run: Path) -> None:
    path = run / "detections" / "part-00000.parquet"
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.write_bytes(data)


def _json(path: str, change: Callable[[list[dict[str, object]]], object]) -> Damage:
    def damage(run: Path) -> None:
        rows = json.loads((run / path).read_text())
        change(rows)
        (run / path).write_text(json.dumps(rows))
        _relist(run)

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "images/part-00001.parquet").unlink(), "images/part-00001.parquet cannot be read"),
        (_unlist_plan, "the manifest has no _plan/plan.json"),
        (_cut("coco/detections.json"), "coco/detections.json has"),
        (_flip, "detections/part-00000.parquet has other content"),
        (_cut("annotated/0.png"), "annotated/0.png has"),
        (lambda run: (run / "annotated/1.png").unlink(), "annotated/1.png cannot be read"),
        (lambda run: (run / "_SUCCESS").unlink(), "_SUCCESS is missing"),
        (lambda run: (run / "images/part-00009.parquet").touch(), "images/part-00009.parquet is not in the manifest"),
        (lambda run: (run / "coco/.tmp-beam-detect-1").touch(), "which a killed writer left"),
        (lambda run: _table(run, "detections", 0, _set("xmax", 41.0)), "1 boxes are not inside their pictures"),
        (lambda run: _table(run, "detections", 0, _set("xmin", float("nan"))), "boxes are not inside"),
        (lambda run: _table(run, "detections", 0, _set("xmax", 2.0)), "1 boxes have no area"),
        (lambda run: _table(run, "detections", 0, _set("area", 7.0)), "1 areas are not those of their boxes"),
        (lambda run: _table(run, "detections", 0, _set("rank", 5)), "ranks"),
        (lambda run: _table(run, "detections", 0, _set("score", 1.5, 2)), "1 scores are not between 0 and 1"),
        (lambda run: _table(run, "detections", 0, _set("score", 0.1)), "better score than the one before"),
        (lambda run: _table(run, "detections", 0, _set("image_id", 7)), "the image_id of some detections"),
        (lambda run: _table(run, "detections", 0, lambda t: t.slice(1)), "8 detections; its record counts 9"),
        (lambda run: _table(run, "detections", 0, lambda t: t.drop_columns(["mask"])), "another schema"),
        (lambda run: _table(run, "images", 0, _set("width", 0)), "1 pictures have no width"),
        (lambda run: _table(run, "images", 0, _set("uri", "/elsewhere.png")), "/elsewhere.png has rows"),
        (lambda run: _table(run, "images", 0, lambda t: pa.concat_tables([t, t.slice(0, 1)])), "4 images; its record"),
        (lambda run: _table(run, "images", 0, lambda t: t.take(pc.sort_indices(t["image_id"]))), "order"),
        (lambda run: _table(run, "failures", 1, lambda t: t.slice(1)), "0 failures; its record counts 1"),
        (lambda run: _table(run, "timings", 0, lambda t: t.slice(1)), "the rows of timings are not those"),
        (_json("coco/detections.json", lambda rows: rows[0].update(score=0.5)), "not what the tables give"),
        (_json("coco/detections.json", lambda rows: rows.pop()), "not what the tables give"),
    ],
)
def test_damage_is_found_and_named(run, damage, said, capsys):
    damage(run)
    assert main(["check", str(run)]) == 1
    out = capsys.readouterr().out
    assert said in out
    assert f"{run} is damaged" in out


@pytest.mark.parametrize("data", [b"", b"\xff", b"{}", b'{"version": 1', b'{"none of ours": ' + b"[" * 100_000])
def test_what_is_no_manifest_is_said(run, data, capsys):
    (run / "run.json").write_bytes(data)
    assert main(["check", str(run)]) == 2
    assert "run.json is not a manifest of beam-detect" in capsys.readouterr().err


def test_an_id_of_two_pictures_is_found_across_parts(run):
    [taken] = read_table(str(run), layout.part_table("images", 0))["image_id"].to_pylist()[:1]
    last = len(list((run / "images").iterdir())) - 1
    n = read_table(str(run), layout.part_table("images", last)).num_rows
    assert n
    _table(run, "images", last, _set("image_id", taken))
    assert any(f"1 image ids are those of several pictures, as {taken}" in problem for problem in check_run(str(run)))


def test_damage_in_one_part_does_not_hide_that_in_another(run, capsys):
    _table(run, "detections", 1, _set("xmax", 99.0))
    _flip(run)
    assert main(["check", str(run)]) == 1
    out = capsys.readouterr().out
    assert "part 0 (3 inputs) is not looked into" in out
    assert "part 1: 1 boxes are not inside their pictures" in out


def test_tables_are_read_without_threads_of_arrows(tmp_path):
    """Such a thread may abort the program when it ends."""
    write_table(str(tmp_path), "a.parquet", pa.table({"a": [1, 2, 3]}), ())
    program = (
        "import os, sys; from beam_jobs.runs.parts import read_table\n"
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = threads(); read_table(sys.argv[1], 'a.parquet'); print(threads() - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
