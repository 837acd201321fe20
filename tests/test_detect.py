"""The whole job, through the program's own entry point, with a detector that needs no model."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.formats.tables import TABLES
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.records import image_id_of
from beam_jobs.runs import layout
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests.fake_detectors import AWAITED, FATAL_WIDTH
from tests.pictures import BLUE, GREEN, RED, encode, picture, write_pictures

FAKE = "--model=tests.fake_detectors:colours"


def detect(output: Path, *words: str, model: str = FAKE, status: int = 0) -> Manifest:
    assert main(["detect", f"--output={output}", model, *words]) == status
    assert list(check_run(str(output))) == []
    return Manifest.read(str(output))


def refused(output: Path, *words: str) -> None:
    assert main(["detect", f"--output={output}", FAKE, *words]) == 2


def tables(output: Path) -> dict[str, pd.DataFrame]:
    return {name: pd.read_parquet(output / name) for name in TABLES}


def promised(output: Path) -> dict[str, str]:
    """sha256 of every file that the promise of bytes covers."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in ("images", "detections", "failures", "coco", "annotated")
        for path in sorted((output / folder).rglob("*"))
        if path.is_file()
    }


def test_what_is_in_the_pictures_is_in_the_tables(tmp_path, capsys):
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (folder / "a b.png").write_bytes(encode(picture(60, 40, ((5, 6, 25, 26), RED), ((30, 10, 50, 20), BLUE))))
    (folder.parent / "nothing.png").write_bytes(encode(picture(30, 20)))
    manifest = detect(tmp_path / "out", f"--input={folder.parent}")
    found = tables(tmp_path / "out")

    images = found["images"].set_index("file_name")
    assert list(images.index) == ["nothing.png", "sub/a b.png"]
    row = images.loc["sub/a b.png"]
    assert (row.width, row.height, row.format, row.num_detections) == (60, 40, "PNG", 2)
    assert row.image_id == image_id_of("sub/a b.png")
    assert row.uri == str(folder / "a b.png")
    assert row.sha256 == hashlib.sha256((folder / "a b.png").read_bytes()).hexdigest()
    assert row.model == "tests.fake_detectors:colours@" + "c0" * 6

    columns = ["rank", "category_id", "category", "score", "xmin", "ymin", "xmax", "ymax", "area"]
    assert found["detections"][columns].to_numpy().tolist() == [
        [0, 1, "red", 1.0, 5.0, 6.0, 25.0, 26.0, 400.0],
        [1, 3, "blue", 1.0, 30.0, 10.0, 50.0, 20.0, 200.0],
    ]
    assert len(found["failures"]) == 0

    results = json.loads((tmp_path / "out/coco/detections.json").read_text())
    assert results[0] == {"image_id": row.image_id, "category_id": 1, "bbox": [5, 6, 20, 20], "score": 1.0}
    dataset = json.loads((tmp_path / "out/coco/dataset.json").read_text())
    assert [image["file_name"] for image in dataset["images"]] == ["nothing.png", "sub/a b.png"]
    assert dataset["categories"] == [{"id": i, "name": n} for i, n in ((1, "red"), (2, "green"), (3, "blue"))]
    assert dataset["annotations"] == []

    assert manifest.counts.inputs == manifest.counts.images == 2
    assert manifest.counts.images_with_detections == 1
    assert (tmp_path / "out/_SUCCESS").exists()
    printed = capsys.readouterr().out
    assert "2, 1 of them with detections" in printed
    assert ["sub/a", "b.png", "red", "1.00", "5", "6", "25", "26"] in [line.split() for line in printed.splitlines()]


def test_the_manifest_lists_every_file_as_it_is(tmp_path):
    write_pictures(tmp_path / "in", 5)
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in/*", "--annotate", "--part_size=2")
    listed = {file.path: file for file in manifest.files}
    present = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file()}
    annotated = {path for path in present if path.startswith("annotated/")}
    assert len(annotated) == manifest.counts.annotated == 5
    logs = {path for path in present if path.startswith(f"{layout.LOG_FOLDER}/")}
    assert len(logs) == 1
    assert present - annotated - logs == {*listed, layout.MANIFEST, layout.SUCCESS}
    for path, file in listed.items():
        data = (tmp_path / "out" / path).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest()), path
        if path.endswith(".parquet") and file.rows is not None:
            assert len(pd.read_parquet(tmp_path / "out" / path)) == file.rows
    index = pd.concat(pd.read_parquet(p) for p in (tmp_path / "out/_plan/annotated").iterdir())
    assert set(index.path) == annotated


def test_one_process_and_two_give_the_same_bytes(tmp_path):
    write_pictures(tmp_path / "in", 60)
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no picture")
    common = (f"--input={tmp_path}/in", "--part_size=7", "--annotate")
    detect(tmp_path / "one", *common, "--workers=1")
    detect(tmp_path / "two", *common, "--workers=2")
    assert len(promised(tmp_path / "one")) > 60
    assert promised(tmp_path / "one") == promised(tmp_path / "two")


def write_shards(folder: Path, names: list[str], pictures: Path, **extra: str) -> None:
    folder.mkdir(exist_ok=True)
    for shard in range(2):
        records = [
            make_example({"image/encoded": (pictures / name).read_bytes(), **{"image/filename": name, **extra}})
            for name in names[shard::2]
        ]
        write_records(str(folder / f"shard-{shard}.tfrecord"), records)


def test_parts_are_committed_while_others_are_at_work(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 8)
    (tmp_path / "in/z.png").write_bytes(encode(picture(FATAL_WIDTH, 8)))
    monkeypatch.setenv(AWAITED, str(tmp_path / "out/_plan/parts/part-00000.json"))
    words = (f"--input={tmp_path}/in", "--part_size=4", "--workers=2")
    manifest = detect(tmp_path / "out", *words, model="--model=tests.fake_detectors:Awaiting")
    assert (manifest.counts.images, manifest.counts.failures) == (9, {})


def test_the_same_pictures_as_tfrecords_give_the_same_detections(tmp_path):
    names = write_pictures(tmp_path / "in", 40)
    write_shards(tmp_path / "records", names, tmp_path / "in")
    detect(tmp_path / "files", f"--input={tmp_path}/in")
    for format in ("auto", "tfrecord"):
        output = tmp_path / format
        manifest = detect(output, f"--input={tmp_path}/records", f"--input_format={format}", "--workers=2")
        assert (manifest.counts.inputs, manifest.counts.tfrecord_files, manifest.inputs.planned) == (40, 2, 2)
        expected, found = tables(tmp_path / "files"), tables(output)
        pd.testing.assert_frame_equal(found["detections"], expected["detections"])
        pd.testing.assert_frame_equal(found["images"].drop(columns=["uri"]), expected["images"].drop(columns=["uri"]))
        for name in ("detections.json", "dataset.json"):
            assert (output / "coco" / name).read_bytes() == (tmp_path / "files/coco" / name).read_bytes()


def test_records_whose_names_repeat_get_ids_of_their_own(tmp_path):
    names = write_pictures(tmp_path / "in", 6)
    write_shards(tmp_path / "records", names, tmp_path / "in", **{"image/filename": "same.png"})
    (tmp_path / "records" / "same.png").write_bytes((tmp_path / "in" / names[0]).read_bytes())
    for workers in (1, 2):
        output = tmp_path / f"out{workers}"
        manifest = detect(output, f"--input={tmp_path}/records", f"--workers={workers}", "--part_size=1", "--annotate")
        found = tables(output)
        ids = found["images"].image_id
        assert ids.is_unique
        assert len(ids) == 7
        # The file keeps the id that its name asks for; the records are numbered in the order of the plan.
        of_file = found["images"][found["images"].uri.str.endswith("same.png")].image_id.item()
        assert of_file == image_id_of("same.png")
        assert set(ids) == {image_id_of("same.png", 0, n) for n in range(7)}
        assert [(r.file_name, r.image_id) for r in manifest.renamed] == [
            ("same.png", image_id_of("same.png", 0, n)) for n in range(1, 7)
        ]
        counts = found["detections"].groupby("image_id").size()
        assert found["images"].set_index("image_id").num_detections.to_dict() == counts.to_dict()
        assert set(found["timings"].image_id) == set(ids)
        assert manifest.counts.annotated == len([p for p in (output / "annotated").rglob("*") if p.is_file()]) == 7
    assert promised(tmp_path / "out1") == promised(tmp_path / "out2")


def test_records_take_ids_from_the_ground_truth(tmp_path):
    names = write_pictures(tmp_path / "in", 4)
    write_shards(tmp_path / "records", names, tmp_path / "in")
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"images": [{"id": 100 + i, "file_name": f"x/{n}"} for i, n in enumerate(names)]}))
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/records", f"--image_ids={truth}")
    assert manifest.known_image_ids == 4
    assert tables(tmp_path / "out")["images"].image_id.tolist() == [100, 101, 102, 103]


def test_a_record_file_that_breaks_off_keeps_its_good_records(tmp_path):
    names = write_pictures(tmp_path / "in", 6)
    write_shards(tmp_path / "records", names, tmp_path / "in")
    shard = tmp_path / "records" / "shard-1.tfrecord"
    shard.write_bytes(shard.read_bytes()[:-10])
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/records")
    assert (manifest.counts.images, manifest.counts.failures, manifest.counts.inputs) == (5, {"truncated": 1}, 6)
    failure = tables(tmp_path / "out")["failures"].iloc[0]
    assert (failure.file_name, failure.stage) == ("shard-1.tfrecord#2", "expand")


def test_a_hostile_name_in_a_record_stays_below_the_folder(tmp_path):
    names = write_pictures(tmp_path / "in", 1)
    write_shards(tmp_path / "records", names, tmp_path / "in", **{"image/filename": "../../../etc/evil.png"})
    detect(tmp_path / "out", f"--input={tmp_path}/records/shard-0.tfrecord", "--annotate")
    assert [str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/annotated").rglob("*.png")] == [
        "annotated/shard-0.tfrecord/000000-evil.png"
    ]


def test_annotated_pictures_show_the_boxes(tmp_path):
    (tmp_path / "a.png").write_bytes(encode(picture(200, 150, ((40, 60, 140, 120), GREEN))))
    detect(tmp_path / "out", f"--input={tmp_path}/a.png", "--annotate")
    before, after = Image.open(tmp_path / "a.png").convert("RGB"), Image.open(tmp_path / "out/annotated/a.png")
    assert after.size == before.size
    assert after.format == "PNG"
    assert after.getpixel((40, 90)) != before.getpixel((40, 90))
    assert after.getpixel((90, 90)) == (0, 255, 0)


def test_settings_reach_the_detections(tmp_path):
    (tmp_path / "a.png").write_bytes(
        encode(picture(80, 60, ((0, 0, 20, 20), RED), ((30, 0, 40, 20), BLUE), ((0, 40, 9, 49), GREEN)))
    )
    source = f"--input={tmp_path}/a.png"
    detect(tmp_path / "one", source, "--max_detections=1")
    assert tables(tmp_path / "one")["detections"].category.tolist() == ["red"]
    detect(tmp_path / "two", source, "--categories=blue,2")
    assert tables(tmp_path / "two")["detections"].category.tolist() == ["green", "blue"]


def test_classes_without_names_and_empty_boxes_are_counted(tmp_path, capsys):
    write_pictures(tmp_path / "in", 3)
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", model="--model=tests.fake_detectors:Unnamed")
    assert manifest.counts.unnamed_category_ids == {"1": 3, "77": 3}
    assert manifest.counts.empty_boxes == 3
    dataset = json.loads((tmp_path / "out/coco/dataset.json").read_text())
    assert dataset["categories"] == [{"id": 1, "name": "1"}, {"id": 77, "name": "77"}]
    assert "6 detections, of class ids 1, 77" in capsys.readouterr().out
    boxes = tables(tmp_path / "out")["detections"]
    assert boxes[boxes.category_id == 77][["xmin", "ymin", "xmax", "ymax"]].iloc[0].tolist() == [0, 0, 40, 30]


def test_a_fatal_picture_costs_itself_only(tmp_path):
    write_pictures(tmp_path / "in", 12)
    (tmp_path / "in" / "fatal.png").write_bytes(encode(picture(13, 9)))
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", model="--model=tests.fake_detectors:Segfault")
    assert (manifest.counts.images, manifest.counts.failures) == (12, {"crashed": 1})
    assert tables(tmp_path / "out")["failures"].file_name.tolist() == ["fatal.png"]


def test_what_a_killed_process_was_writing_does_not_stay(tmp_path, monkeypatch):
    write_pictures(tmp_path / "in", 12)
    (tmp_path / "in" / "z.png").write_bytes(encode(picture(13, 9)))
    monkeypatch.setenv("BEAM_DETECT_TEST_MARKER", str(tmp_path / "out" / "annotated"))
    words = (f"--input={tmp_path}/in", "--annotate", "--workers=1")
    manifest = detect(tmp_path / "out", *words, model="--model=tests.fake_detectors:LeavesHalfAFile")
    assert (manifest.counts.images, manifest.detector.loads) == (13, 2)
    assert (tmp_path / "out" / "annotated-done").exists()
    assert not list((tmp_path / "out").rglob(".tmp*"))


def test_nothing_but_failures_is_a_failed_run(tmp_path, capsys):
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "b.jpg").write_bytes(b"hello")
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/*.jpg", status=1)
    assert manifest.status == "failed"
    assert not (tmp_path / "out/_SUCCESS").exists()
    assert tables(tmp_path / "out")["failures"].code.tolist() == ["empty", "not_an_image"]
    assert "no input gave a result" in capsys.readouterr().err


def test_max_failure_rate(tmp_path):
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "x.jpg").write_bytes(b"")
    detect(tmp_path / "a", f"--input={tmp_path}/in", "--max_failure_rate=0.25", status=0)
    detect(tmp_path / "b", f"--input={tmp_path}/in", "--max_failure_rate=0.2", status=1)


def test_limit_and_list(tmp_path, monkeypatch):
    names = write_pictures(tmp_path / "in", 5)
    monkeypatch.chdir(tmp_path)
    Path("list.txt").write_text("".join(f"in/{name}\n" for name in reversed(names)) + "in/missing.png\n")
    manifest = detect(tmp_path / "out", "--input_list=list.txt", "--limit=3")
    assert tables(tmp_path / "out")["images"].file_name.tolist() == [f"in/{name}" for name in names[:2]]
    assert manifest.counts.failures == {"not_found": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input=IN", "--min-score=0.5"], "There is no flag --min-score. Did you mean --min_score?"),
        (["--input=IN", "--numworkers=3"], "There is no flag --numworkers. Did you mean --workers?"),
        (["--input=IN", "--nope"], "There is no flag --nope. `beam-detect detect --help` lists the flags."),
        (["--input=IN", "--no-annotat"], "There is no flag --no-annotat. Did you mean --no_annotate?"),
        (["--input=IN", "--temp_locatio=x"], "There is no flag --temp_locatio. Did you mean --temp_location?"),
        (["--input=IN", "--direct_num_workers=3"], "--workers says how many"),
        (["--input=IN", "oops.jpg"], "with quotes around a pattern"),
        (["--input=IN/*.xyz"], "IN/*.xyz"),
        (["--input=IN", "--input=nowhere.jpg"], "nowhere.jpg"),
        ([], "No input"),
        (["--input=IN", "--categories=rde"], "did you mean red?"),
        (["--input=IN", "--model=coco-sdd"], "did you mean coco-ssd?"),
        (["--input=IN", "--image_ids=IN"], "IN"),
        (["--input=IN", "--config=none.toml"], "none.toml cannot be read"),
        (["--input=IN", "--output=IN"], "is not empty"),
        (["--input=IN", "--output=IN", "--overwrite"], "no run of beam-detect"),
        (["--input=IN", "--output=/", "--overwrite"], "folder of its own"),
        (["--input=IN", "--output=~", "--overwrite"], "folder of its own"),
    ],
)
def test_bad_usage_is_one_clear_line(tmp_path, capsys, monkeypatch, words, message):
    write_pictures(tmp_path / "in", 2)
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    words = [w.replace("IN", str(tmp_path / "in")).replace("~", os.path.expanduser("~")) for w in words]
    assert main(["detect", "--output=out", FAKE, *words]) == 2
    error = capsys.readouterr().err
    assert message.replace("IN", str(tmp_path / "in")) in error
    assert len(error.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("words", [["--min_score=2"], ["--workers=0"], ["--input_format=sound"], ["--limit=x"]])
def test_bad_values_are_refused_by_the_parser(tmp_path, capsys, words):
    with pytest.raises(SystemExit) as end:
        main(["detect", f"--output={tmp_path}/out", f"--input={tmp_path}", *words])
    assert end.value.code == 2
    assert words[0].split("=")[0] in capsys.readouterr().err


def test_a_file_of_flags_and_the_command_line_over_it(tmp_path):
    write_pictures(tmp_path / "in", 4)
    config = tmp_path / "job.toml"
    config.write_text(
        f'input = ["{tmp_path}/in/*0.png", "{tmp_path}/in/*1.png"]\nmin_score = 0.4\nannotate = true\nlimit = 1\n'
    )
    manifest = detect(tmp_path / "a", f"--config={config}")
    assert (manifest.counts.inputs, manifest.counts.annotated, manifest.job["min_score"]) == (1, 1, 0.4)
    manifest = detect(
        tmp_path / "b", f"--config={config}", f"--input={tmp_path}/in", "--no_annotate", "--limit=3", "--min_score=0.2"
    )
    assert (manifest.counts.inputs, manifest.counts.annotated, manifest.job["min_score"]) == (3, 0, 0.2)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("minscore = 0.4", "there is no flag --minscore; did you mean min_score?"),
        ("min_score = 2", "min_score: 2 is not a number between 0 and 1"),
        ("limit = 'x'", "limit: 'x' is not a whole number of 1 or more"),
        ("input_format = 'sound'", "input_format: invalid choice: 'sound'"),
        ("annotate = 'yes'", "annotate is true or false, not 'yes'"),
        ("min_score = true", "min_score takes a value, not true"),
        ("[detect]", "detect cannot be set in a file of flags"),
        ("input = [", "job.toml is not TOML: Invalid value (at end of document)"),
    ],
)
def test_what_is_wrong_in_a_file_of_flags_is_said_with_its_line(tmp_path, capsys, line, message):
    write_pictures(tmp_path / "in", 1)
    config = tmp_path / "job.toml"
    config.write_text(f"# of Tuesday\nmax_detections = 5\n{line}\n")
    refused(tmp_path / "out", f"--config={config}", f"--input={tmp_path}/in")
    said = capsys.readouterr().err
    assert message in said
    assert "not TOML" in said or f"--config {config}, line 3: {message}" in said


def test_dry_run_writes_nothing(tmp_path, capsys):
    write_pictures(tmp_path / "in", 12)
    assert main(["detect", f"--output={tmp_path}/out", FAKE, f"--input={tmp_path}/in", "--dry_run"]) == 0
    assert not (tmp_path / "out").exists()
    printed = capsys.readouterr().out
    assert "plan: 12 inputs" in printed
    assert "picture-0000.png" in printed
    assert "engine: python" in printed


def test_overwrite_replaces_the_run_and_nothing_else(tmp_path, problems_of_runs):
    write_pictures(tmp_path / "in", 6)
    output = tmp_path / "out"
    detect(output, f"--input={tmp_path}/in", "--part_size=2", "--annotate")
    (output / "images" / "mine.txt").write_text("keep me")
    (output / "notes").mkdir()
    (output / "notes" / "mine.txt").write_text("keep me")
    assert main(["detect", f"--output={output}", FAKE, f"--input={tmp_path}/in/picture-0000.png", "--overwrite"]) == 0
    assert problems_of_runs == ["images/mine.txt is not in the manifest"]
    problems_of_runs.clear()
    left = {str(p.relative_to(output)) for p in output.rglob("*") if p.is_file()}
    assert {"images/mine.txt", "notes/mine.txt"} <= left
    assert {path for path in left if path.endswith(".parquet")} == {
        *(f"{name}/part-00000.parquet" for name in TABLES), "_plan/inputs-00000.parquet",
    }  # fmt: skip
    assert not (output / "annotated").exists()
    assert len(list((output / layout.LOG_FOLDER).iterdir())) == 1


def test_overwrite_removes_an_unfinished_run(tmp_path, capsys):
    write_pictures(tmp_path / "in", 6)
    output = tmp_path / "out"
    detect(output, f"--input={tmp_path}/in", "--part_size=2", "--annotate")
    for path in ("run.json", "_SUCCESS", "_plan/parts/part-00001.json", "coco/dataset.json"):
        (output / path).unlink()
    (output / "images" / ".tmp-beam-detect-123").write_bytes(b"half")
    refused(output, f"--input={tmp_path}/in")
    assert f"--output {output} holds an unfinished run: give --resume" in capsys.readouterr().err
    assert main(["report", str(output), f"--output={tmp_path}/page.html"]) == 2
    assert f"{output} is a run that is not finished: it has no run.json" in capsys.readouterr().err
    detect(output, f"--input={tmp_path}/in/picture-0000.png", "--overwrite")
    assert not list(output.rglob(".tmp*"))
    assert len(list((output / "images").iterdir())) == 1
    assert not (output / "annotated").exists()


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "beam_jobs", *words]


def test_ctrl_c_and_terminate_end_it_quickly_and_cleanly(tmp_path):
    write_pictures(tmp_path / "in", 200)
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        output = tmp_path / f"out{status}"
        words = ["detect", f"--input={tmp_path}/in", f"--output={output}", "--model=tests.fake_detectors:Slow"]
        process = subprocess.Popen(
            command(*words, "--part_size=5", "--workers=2"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + 60
        while not (output / "_plan/plan.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(2)
        children = _children(process.pid)
        assert children
        process.send_signal(number)
        _, error = process.communicate(timeout=15)
        assert process.returncode == status
        assert error.strip().splitlines()[-1].startswith(f"beam-detect: stopped by {signal.Signals(number).name}")
        assert "Traceback" not in error
        assert not (output / "_SUCCESS").exists()
        assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def test_a_killed_launcher_leaves_no_process(tmp_path):
    write_pictures(tmp_path / "in", 100)
    words = ["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:Slow"]
    process = subprocess.Popen(command(*words, "--workers=2"), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (children := _children(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()] + [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            if task.name != str(pid)
            for child in (task / "children").read_text().split()
        ]
    except FileNotFoundError:
        return []


def test_help_imports_neither_tensorflow_nor_beam():
    code = (
        "import sys; from beam_jobs.cli.main import main\n"
        "try: main(['detect', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('tensorflow', 'apache_beam', 'pyarrow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]")


def test_a_run_does_not_import_tensorflow_in_the_launcher(tmp_path):
    write_pictures(tmp_path / "in", 1)
    words = ["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE]
    code = f"import sys; from beam_jobs.cli.main import main; main({words!r}); print('tensorflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")


def test_an_output_that_cannot_be_written_is_said_before_anything_runs(tmp_path, capsys):
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", f"--input={tmp_path}/in")
    assert "is not a folder" in capsys.readouterr().err
    refused(tmp_path / "file" / "out", f"--input={tmp_path}/in")
    assert "is a file" in capsys.readouterr().err


def test_a_disk_that_fills_up_ends_the_job_incomplete(tmp_path, capsys):
    noise = np.random.default_rng(1).integers(0, 256, (300, 300, 3), np.uint8)
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "in" / "noise.png").write_bytes(encode(noise))
    words = ["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE, "--annotate"]
    # A limit on the size of a file is what comes nearest to a full disk without one.
    code = (
        "import resource, signal, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        f"from beam_jobs.cli.main import main; sys.exit(main({words!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stderr == (
        "beam-detect: incomplete: Cannot write the annotated picture annotated/noise.png: File too large.\n"
    )
    assert not (tmp_path / "out/_SUCCESS").exists()


def test_another_runner_gives_the_same_bytes(tmp_path):
    write_pictures(tmp_path / "in", 30)
    common = (f"--input={tmp_path}/in", "--part_size=7", "--workers=1")
    detect(tmp_path / "default", *common)
    detect(tmp_path / "named", *common, "--runner=DirectRunner")
    runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    manifest = detect(tmp_path / "other", *common, f"--runner={runner}")
    # Not the launcher's own processes: those of the runner's worker.
    assert manifest.detector.loads == 1
    assert promised(tmp_path / "default") == promised(tmp_path / "named") == promised(tmp_path / "other")
