"""`beam-detect evaluate` and `detect --ground_truth`, through the program's own entry point."""

from __future__ import annotations

import contextlib
import io
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from beam_jobs.cli.main import main
from beam_jobs.evaluation.groups import finish_group
from beam_jobs.evaluation.outputs import Metrics
from beam_jobs.evaluation.shards import store_results
from beam_jobs.formats.evaluated import EVALUATION_FILES
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests.pictures import GREEN, RED, encode, picture, write_pictures

FAKE = "--model=tests.fake_detectors:colours"
CATEGORIES = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}, {"id": 3, "name": "blue"}]
NAMES = (
    "AP",
    "AP50",
    "AP75",
    "APsmall",
    "APmedium",
    "APlarge",
    "AR1",
    "AR10",
    "AR100",
    "ARsmall",
    "ARmedium",
    "ARlarge",
)


def truth_of(names: list[str]) -> dict[str, Any]:
    """A truth for `write_pictures`: the red boxes right, the green ones shifted, and one class that is never seen."""
    images = [{"id": 40 + 3 * i, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)]
    annotations: list[dict[str, Any]] = []
    for i, image in enumerate(images):
        red = (i % 7, i % 5, 10, 8)
        green = (20 + i % 4, 10 + i % 3, 12, 18 - i % 3)
        for category_id, box in ((1, red), (2, green)):
            annotations.append({"image_id": image["id"], "category_id": category_id, "bbox": box, "iscrowd": 0})
    annotations.append({"image_id": 40, "category_id": 3, "bbox": (0, 0, 5, 5), "iscrowd": 0})
    for i, annotation in enumerate(annotations):
        annotation |= {"id": i + 1, "area": annotation["bbox"][2] * annotation["bbox"][3]}
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}


def pycocotools_says(truth: Path, results: Path) -> dict[str, float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return dict(zip(NAMES, evaluation.stats.tolist(), strict=True))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in `in`, their truth, and a run of the fake detector in `run` with `--ground_truth`."""
    folder = tmp_path_factory.mktemp("evaluate")
    names = write_pictures(folder / "in", 20)
    (folder / "truth.json").write_text(json.dumps(truth_of(names)))
    words = [f"--input={folder}/in", f"--output={folder}/run", FAKE, f"--ground_truth={folder}/truth.json"]
    assert main(["detect", *words]) == 0
    return folder


def evaluate(output: Path, *words: str, status: int = 0) -> None:
    assert main(["evaluate", f"--output={output}", *words]) == status


def test_one_pass_and_two_give_what_pycocotools_gives(folder, tmp_path, capsys):
    evaluate(tmp_path / "two", f"--detections={folder}/run", f"--ground_truth={folder}/truth.json")
    one, two = Metrics.read(str(folder / "run/evaluation")), Metrics.read(str(tmp_path / "two"))
    assert one.metrics == two.metrics == pycocotools_says(folder / "truth.json", folder / "run/coco/detections.json")
    assert 0.5 < one.metrics["AP50"] < 1
    for name in EVALUATION_FILES[1:]:
        assert (folder / "run/evaluation" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    printed = capsys.readouterr().out
    assert " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 0." in printed
    assert not (tmp_path / "two" / "_shards").exists()


def test_the_run_lists_its_evaluation_and_keeps_low_scores(folder):
    assert list(check_run(str(folder / "run"))) == []
    manifest = Manifest.read(str(folder / "run"))
    listed = {file.path for file in manifest.files if file.path.startswith("evaluation/")}
    assert listed == {f"evaluation/{name}" for name in EVALUATION_FILES}
    assert manifest.job["min_score"] == 0
    assert manifest.known_image_ids == 20
    assert sorted(pd.read_parquet(folder / "run/images").image_id) == [40 + 3 * i for i in range(20)]
    assert (folder / "run/_SUCCESS").exists()


@pytest.mark.parametrize("kind", ["results", "parquet", "pycocotools"])
def test_every_source_and_engine_gives_the_same(folder, tmp_path, kind):
    source = {
        "results": folder / "run/coco/detections.json",
        "parquet": f"{folder}/run/detections/*.parquet",
        "pycocotools": folder / "run",
    }[kind]
    engine = ["--engine=pycocotools"] if kind == "pycocotools" else []
    evaluate(tmp_path / "out", f"--detections={source}", f"--ground_truth={folder}/truth.json", *engine)
    expected, found = Metrics.read(str(folder / "run/evaluation")), Metrics.read(str(tmp_path / "out"))
    assert found.metrics == expected.metrics
    assert found.counts["detections"] == expected.counts["detections"]


@pytest.mark.parametrize("seed", [0, 1])
def test_small_parts_in_any_order_give_the_same(folder, tmp_path, monkeypatch, seed):
    words = [f"--detections={folder}/run/coco/detections.json", f"--ground_truth={folder}/truth.json"]
    evaluate(tmp_path / "together", *words)
    groups = []

    def finish(settings, encoded, at_once):
        parts = list(encoded)
        groups.append(len(parts))
        return finish_group(settings, random.Random(seed).sample(parts, len(parts)), at_once)

    def store(root, results):
        pieces = store_results(root, results)
        return random.Random(seed).sample(pieces, len(pieces))

    monkeypatch.setattr("beam_jobs.evaluation.shards.IMAGES_A_SHARD", 3)
    monkeypatch.setattr("beam_jobs.evaluation.shards._ROWS_A_PIECE", 5)
    monkeypatch.setattr("beam_jobs.evaluation.groups.IMAGES_A_GROUP", 10)
    monkeypatch.setattr("beam_jobs.evaluation.work.ROWS_AT_ONCE", 4)
    monkeypatch.setattr("beam_jobs.evaluation.work.finish_group", finish)
    monkeypatch.setattr("beam_jobs.cli.evaluate.store_results", store)
    evaluate(tmp_path / "apart", *words)
    assert groups == [7, 7]
    for name in EVALUATION_FILES:
        together, apart = tmp_path / "together" / name, tmp_path / "apart" / name
        if name == "matches.parquet":  # its row groups are the shards
            assert pd.read_parquet(together).equals(pd.read_parquet(apart))
        else:
            assert together.read_bytes() == apart.read_bytes(), name


def as_records(folder: Path, truth: dict[str, Any], pictures: Path) -> str:
    """The truth as two TFRecord files with what the API's own converter writes of it: class names, no class ids."""
    records = []
    names = {one["id"]: one["name"] for one in truth["categories"]}
    for image in truth["images"]:
        found = [one for one in truth["annotations"] if one["image_id"] == image["id"]]
        sides = np.array([one["bbox"] for one in found], np.float64).reshape(-1, 4)
        low, high = sides[:, :2], sides[:, :2] + sides[:, 2:]
        size = (image["width"], image["height"])
        features: dict[str, Any] = {
            "image/filename": image["file_name"],
            "image/source_id": str(image["id"]),
            "image/width": image["width"],
            "image/height": image["height"],
            "image/encoded": (pictures / image["file_name"]).read_bytes(),
            "image/object/class/text": [names[one["category_id"]] for one in found],
            "image/object/is_crowd": [one["iscrowd"] for one in found],
            "image/object/area": [float(one["area"]) for one in found],
        }
        for at, axis in enumerate("xy"):
            features[f"image/object/bbox/{axis}min"] = (low[:, at] / size[at]).tolist()
            features[f"image/object/bbox/{axis}max"] = (high[:, at] / size[at]).tolist()
        records.append(make_example(features))
    for shard in range(2):
        write_records(str(folder / f"truth-{shard:05d}-of-00002.tfrecord"), records[shard::2])
    return f"{folder}/truth-*.tfrecord"


def test_truth_as_tfrecords_gives_the_same(folder, tmp_path):
    truth = json.loads((folder / "truth.json").read_text())
    source = as_records(tmp_path, truth, folder / "in")
    names = f"--label_map={folder}/truth.json"
    evaluate(tmp_path / "out", f"--detections={folder}/run", f"--ground_truth={source}", names)
    expected = Metrics.read(str(folder / "run/evaluation")).metrics
    # Normalised float32 in the records moves a box by parts of a thousandth.
    assert Metrics.read(str(tmp_path / "out")).metrics == pytest.approx(expected, abs=1e-6)


def test_one_pass_and_two_with_json_and_records_give_the_same_to_the_last_bit(tmp_path):
    # Sides that are powers of two: records then hold the boxes exactly.
    (tmp_path / "in").mkdir()
    names = [f"{number}.png" for number in range(6)]
    for number, name in enumerate(names):
        red = ((number % 7, number % 5, number % 7 + 10, number % 5 + 8), RED)
        green = ((20, 10 + number % 3, 32, 28), GREEN)
        (tmp_path / "in" / name).write_bytes(encode(picture(64, 32, red, green)))
    truth = truth_of(names)
    truth["images"] = [{**image, "width": 64, "height": 32} for image in truth["images"]]
    truth["annotations"][3]["iscrowd"] = 1
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    truths = [f"{tmp_path}/truth.json", as_records(tmp_path, truth, tmp_path / "in")]
    found: list[Metrics] = []
    for number, source in enumerate(truths):
        run = tmp_path / f"run-{number}"
        assert main(["detect", f"--input={tmp_path}/in", f"--output={run}", FAKE, f"--ground_truth={source}"]) == 0
        found.append(Metrics.read(str(run / "evaluation")))
    # Without the truth at hand ids are digests of the names: images join by name.
    run = tmp_path / "alone"
    assert main(["detect", f"--input={tmp_path}/in", f"--output={run}", FAKE, "--min_score=0"]) == 0
    for number, source in enumerate(truths):
        label_map = f"--label_map={tmp_path}/truth.json"
        evaluate(tmp_path / f"two-{number}", f"--detections={run}", f"--ground_truth={source}", label_map)
        found.append(Metrics.read(str(tmp_path / f"two-{number}")))
    assert 0 < found[0].metrics["AP"] < 1
    assert found[0].counts["crowds"] == 1
    for other in found[1:]:
        assert other.metrics == found[0].metrics
    assert [one.counts["joined_by_name"] for one in found] == [0, 0, 6, 6]


def test_matches_say_what_became_of_each(folder):
    matches = pd.read_parquet(folder / "run/evaluation/matches.parquet")
    truth = json.loads((folder / "truth.json").read_text())
    assert (matches.kind == "truth").sum() == len(truth["annotations"])
    assert (matches.kind == "detection").sum() == 40
    red = matches[(matches.category == "red") & (matches.kind == "detection")]
    assert set(red.outcome) == {"TP"}
    assert set(red.iou) == {1.0}
    blue = matches[matches.category == "blue"]
    assert blue.outcome.tolist() == ["missed"]
    assert set(matches.file_name) == {image["file_name"] for image in truth["images"]}


def test_tables_by_class_and_of_curves(folder):
    table = pd.read_parquet(folder / "run/evaluation/per_category.parquet").set_index("category")
    assert table.loc["red", "AP"] == 1
    assert table.loc["blue", "AP"] == 0
    green: Any = table.loc["green"]
    assert (green.num_truths, green.num_detections) == (20, 20)
    pd.testing.assert_frame_equal(
        pd.read_csv(folder / "run/evaluation/per_category.csv").set_index("category"), table, check_dtype=False
    )
    curves = pd.read_parquet(folder / "run/evaluation/curves.parquet")
    assert len(curves) == 3 * 10 * 101
    assert set(curves[curves.category == "red"].precision) == {1.0}


def test_images_and_classes_that_one_side_lacks_are_counted_and_named(folder, tmp_path, capsys):
    truth = json.loads((folder / "truth.json").read_text())
    unseen = {"id": 900, "file_name": "unseen.png", "width": 9, "height": 9}
    gone = truth["images"][0]
    truth["images"] = [*truth["images"][1:], unseen]
    truth["annotations"] = [
        one for one in truth["annotations"] if one["image_id"] != gone["id"] and one["category_id"] != 2
    ]
    truth["categories"] = [one for one in CATEGORIES if one["id"] != 2]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    evaluate(tmp_path / "out", f"--detections={folder}/run", f"--ground_truth={tmp_path}/truth.json")
    found = Metrics.read(str(tmp_path / "out"))
    assert found.unseen_images == ["unseen.png"]
    assert found.unknown_images == [gone["file_name"]]
    assert found.counts["unknown_categories"] == 19
    assert found.counts["unknown_images"] == 2
    printed = capsys.readouterr().out
    assert f"1 image of the detections is not in the ground truth: {gone['file_name']}" in printed
    assert "19 detections were left out: their classes are not in the ground truth" in printed


def test_detections_that_are_there_twice_are_told(folder, tmp_path, capsys):
    results = json.loads((folder / "run/coco/detections.json").read_text())
    truth = f"--ground_truth={folder}/truth.json"
    # One differs in its score alone.
    for more, told in (
        ([], None),
        (results[:1], "1 detection of {} repeats others"),
        (results, "{n} detections of {}"),
    ):
        other = [{**results[0], "score": 0.123}]
        (tmp_path / "results.json").write_text(json.dumps([*results, *other, *more]))
        evaluate(tmp_path / "out", f"--detections={tmp_path}/results.json", truth, "--overwrite")
        printed = capsys.readouterr().out
        assert Metrics.read(str(tmp_path / "out")).counts["repeated_detections"] == len(more)
        assert ("repeat" in printed) == bool(more)
        assert told is None or told.format("the detections", n=len(results)) in printed
    words = ["compare", f"{folder}/run", f"{tmp_path}/results.json", truth, f"--output={tmp_path}/both"]
    assert main([*words, "--samples=2"]) == 0
    assert f"warning: {len(results)} detections of B repeat others" in capsys.readouterr().out


def test_settings_of_ones_own(folder, tmp_path):
    words = [
        "--iou_thresholds=0.5,0.9",
        "--area_ranges=all:0:1e10,tiny:0:90",
        "--max_detections=1,5",
        "--categories=red",
    ]
    evaluate(tmp_path / "out", f"--detections={folder}/run", f"--ground_truth={folder}/truth.json", *words)
    found = Metrics.read(str(tmp_path / "out"))
    assert found.metrics["AP90"] == found.metrics["APtiny"] == 1
    assert found.settings["categories"] == {"1": "red"}
    assert found.counts["other_categories"] == 20


def test_nothing_was_detected(folder, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    evaluate(tmp_path / "out", f"--detections={tmp_path}/results.json", f"--ground_truth={folder}/truth.json")
    found = Metrics.read(str(tmp_path / "out"))
    assert found.metrics["AP"] == 0
    assert found.counts["truths"] == 41


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--detections=RUN"], "--ground_truth SOURCE is missing"),
        (["--detections=RUN", "--ground_truth=RUN/coco/detections.json"], "detections.json"),
        (["--detections=TRUTH", "--ground_truth=TRUTH"], "truth.json"),
        (["--detections=RUN", "--ground_truth=nowhere.json"], "nowhere.json"),
        (["--detections=nowhere", "--ground_truth=TRUTH"], "nowhere"),
        (["--detections=OTHER", "--ground_truth=TRUTH"], "none of its images is in"),
        (["--detections=CLASSES", "--ground_truth=TRUTH"], "no class in common"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--output=RUN"], "what it holds is no evaluation"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--iou_type=keypoints"], "truth.json has no keypoints, which"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--iou_type=segm"], "truth.json has no masks, which"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--categories=rde"], "did you mean red?"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--area_ranges=a:1:2,a:3:4"], "distinct"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--iou_treshold=1"], "Did you mean --iou_thresholds?"),
        (["--detection=RUN", "--ground_truth=TRUTH"], "Did you mean --detections?"),
        (["RUN", "--ground_truth=TRUTH"], "Detections are given as --detections SOURCE"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--images=nowhere"], "--images nowhere is not a folder"),
        (["--detections=RUN", "--ground_truth=TRUTH", "--output=/proc/out"], "--output /proc/out cannot be made"),
    ],
)
def test_bad_usage_is_one_clear_line(folder, tmp_path, capsys, words, message):
    result = {"image_id": 5, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}
    (tmp_path / "other.json").write_text(json.dumps([result]))
    (tmp_path / "classes.json").write_text(json.dumps([{**result, "image_id": 40, "category_id": 99}]))
    places = {
        "RUN": folder / "run", "TRUTH": folder / "truth.json",
        "OTHER": tmp_path / "other.json", "CLASSES": tmp_path / "classes.json",
    }  # fmt: skip
    for key, path in places.items():
        words = [word.replace(f"={key}", f"={path}") for word in words]
    evaluate(tmp_path / "out", *words, status=2)
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_ctrl_c_ends_it_and_says_what_is_left(folder, tmp_path):
    words = [f"--detections={folder}/run", f"--ground_truth={folder}/truth.json", f"--output={tmp_path}/out"]
    command = [sys.executable, "-P", "-m", "beam_jobs", "evaluate", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as program:
        while program.poll() is None and not (tmp_path / "out/_shards").exists():
            time.sleep(0.01)
        program.send_signal(signal.SIGINT)
        error = program.communicate(timeout=60)[1]
    assert program.returncode == 130
    left = f"{tmp_path}/out holds an unfinished evaluation: --overwrite starts it afresh."
    assert error == f"beam-detect: stopped by SIGINT. {left}\n"
    evaluate(tmp_path / "out", *words[:2], "--overwrite")


def test_overwrite(folder, tmp_path, capsys):
    words = [f"--detections={folder}/run", f"--ground_truth={folder}/truth.json"]
    evaluate(tmp_path / "out", *words)
    evaluate(tmp_path / "out", *words, status=2)
    assert "give --overwrite" in capsys.readouterr().err
    evaluate(tmp_path / "out", *words, "--categories=blue", "--overwrite")
    assert Metrics.read(str(tmp_path / "out")).metrics["AP"] == 0


def test_a_run_with_its_evaluation_is_overwritten_whole(folder, tmp_path):
    (tmp_path / "a.png").write_bytes(encode(picture(40, 30, ((0, 0, 9, 9), (255, 0, 0)))))
    names = write_pictures(tmp_path / "in", 3)
    (tmp_path / "truth.json").write_text(json.dumps(truth_of(names)))
    common = ["detect", f"--output={tmp_path}/out", FAKE]
    assert main([*common, f"--input={tmp_path}/in", f"--ground_truth={tmp_path}/truth.json"]) == 0
    assert main([*common, f"--input={tmp_path}/a.png", "--overwrite"]) == 0
    assert not (tmp_path / "out/evaluation").exists()


def test_a_bad_truth_is_said_before_anything_is_detected(tmp_path, capsys):
    write_pictures(tmp_path / "in", 3)
    (tmp_path / "truth.json").write_text('{"images": [], "annotations": [{"id": 1}], "categories": []}')
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE, f"--ground_truth={tmp_path}/truth.json"]
    assert main(["detect", *words]) == 2
    assert "annotations[0]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
