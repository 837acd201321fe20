"""The page of an evaluation and `beam-detect report`, through the program's own entry point."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from beam_jobs.cli.main import main
from beam_jobs.evaluation.outputs import Metrics
from tests.pictures import write_pictures
from tests.test_evaluate import FAKE, evaluate, truth_of
from tests.test_report import Reader

EVIL_CLASS = "<script>alert(1)</script>"
EVIL_FILE = '"><img src=x onerror=alert(1)>.png'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the fake detector with its evaluation: a hostile class, a hostile file, two classes of one name."""
    folder = tmp_path_factory.mktemp("report")
    names = write_pictures(folder / "in", 8)
    (folder / "in" / names[0]).rename(folder / "in" / EVIL_FILE)
    truth: dict[str, Any] = truth_of([EVIL_FILE, *names[1:]])
    truth["categories"] = [{"id": 1, "name": EVIL_CLASS}, {"id": 2, "name": "twin"}, {"id": 3, "name": "twin"}]
    (folder / "truth.json").write_text(json.dumps(truth))
    words = [f"--input={folder}/in", f"--output={folder}/run", FAKE, f"--ground_truth={folder}/truth.json"]
    assert main(["detect", *words]) == 0
    return folder


def texts(page: Path) -> str:
    return " ".join(Reader(page.read_bytes()).texts)


def test_page_holds_numbers_classes_and_pictures(folder):
    page = folder / "run/evaluation/report.html"
    shown = texts(page)
    found = Metrics.read(str(folder / "run/evaluation"))
    assert f"{found.metrics['AP']:.3f}" in shown
    assert f"{found.metrics['AP50']:.3f}" in shown
    assert "twin (2)" in shown
    assert "twin (3)" in shown
    assert "report.html" in found.files
    images = [a for name, a in Reader(page.read_bytes()).elements if name == "img"]
    assert {str(a["src"])[:22] for a in images} == {"data:image/jpeg;base64"}
    kinds = {a["data-kind"] for name, a in Reader(page.read_bytes()).elements if name == "figure" and "data-kind" in a}
    assert {"missed", "hit"} <= kinds
    assert "twin (3), 25 square pixels" in shown


def test_page_asks_for_nothing_and_keeps_names_as_text(folder):
    page = (folder / "run/evaluation/report.html").read_text()
    assert not re.search(r"https?:", re.sub(r"base64,[\w+/=]+", "", re.sub(r"\s//.*", "", page)))
    assert EVIL_CLASS not in page
    assert EVIL_FILE not in page
    shown = texts(folder / "run/evaluation/report.html")
    assert EVIL_CLASS in shown
    assert EVIL_FILE in shown


def test_same_evaluation_gives_the_same_page(folder, tmp_path):
    evaluate(tmp_path / "again", f"--detections={folder}/run", f"--ground_truth={folder}/truth.json")
    assert (tmp_path / "again/report.html").read_bytes() == (folder / "run/evaluation/report.html").read_bytes()


def test_without_a_run_there_are_no_pictures_and_it_says_so(folder, tmp_path):
    source = folder / "run/coco/detections.json"
    evaluate(tmp_path / "out", f"--detections={source}", f"--ground_truth={folder}/truth.json")
    page = tmp_path / "out/report.html"
    assert "<img" not in page.read_text()
    assert "No pictures: the detections are not the folder of a run" in texts(page)


def test_pictures_that_are_gone_are_said_to_be(folder, tmp_path):
    write_pictures(tmp_path / "in", 3)
    names = sorted(path.name for path in (tmp_path / "in").iterdir())
    (tmp_path / "truth.json").write_text(json.dumps(truth_of(names)))
    assert main(["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/run", FAKE]) == 0
    (tmp_path / "in" / names[0]).unlink()
    evaluate(tmp_path / "out", f"--detections={tmp_path}/run", f"--ground_truth={tmp_path}/truth.json")
    page = tmp_path / "out/report.html"
    assert "The picture cannot be read: No such file" in texts(page)
    assert "<img" in page.read_text()


@pytest.mark.parametrize(
    "words",
    [
        ["--iou_thresholds=0.6,0.9", "--area_ranges=all:0:1e10,tiny:0:90", "--max_detections=1,5"],
        ["--iou_thresholds=0.5", "--categories=" + EVIL_CLASS, "--area_ranges=some:10:200"],
    ],
)
def test_settings_of_ones_own(folder, tmp_path, words):
    evaluate(tmp_path / "out", f"--detections={folder}/run", f"--ground_truth={folder}/truth.json", *words)
    shown = texts(tmp_path / "out/report.html")
    assert "up to 90 square pixels" in shown or "10 to 200 square pixels" in shown


def test_nothing_was_detected(folder, tmp_path):
    (tmp_path / "results.json").write_text("[]")
    evaluate(tmp_path / "out", f"--detections={tmp_path}/results.json", f"--ground_truth={folder}/truth.json")
    assert "results.json against truth.json" in texts(tmp_path / "out/report.html")


def test_masks_are_shown_as_boxes_of_many_classes(tmp_path):
    images = [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}]
    square = {"bbox": [10, 10, 20, 20], "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}
    annotations = [
        {"id": i, "image_id": 1, "category_id": i, "iscrowd": 0, "area": 400, **square} for i in range(1, 1001)
    ]
    categories = [{"id": i, "name": f"class {i}"} for i in range(1, 1001)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    results = [{"image_id": 1, "category_id": i, "score": 0.5, **square} for i in range(1, 501)]
    pixels = np.zeros((100, 100), np.uint8, order="F")
    pixels[10:30, 10:30] = 1
    counts = mask.encode(pixels)["counts"].decode()
    for result in results:
        result["segmentation"] = {"size": [100, 100], "counts": counts}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps(results))
    words = [f"--detections={tmp_path}/results.json", f"--ground_truth={tmp_path}/truth.json"]
    for iou_type in ("segm", "bbox"):
        evaluate(tmp_path / iou_type, *words, f"--iou_type={iou_type}")
        assert "class 1000" in texts(tmp_path / iou_type / "report.html")


def test_keypoints_are_shown_as_boxes(tmp_path):
    points = [10 * (i % 3) + i for i in range(17)]
    keypoints = [value for x in points for value in (x, 2 * x, 2)]
    image = {"id": 1, "file_name": "a.png", "width": 100, "height": 100}
    person = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 2000, "bbox": [0, 0, 40, 80]}
    person |= {"keypoints": keypoints, "num_keypoints": 17}
    truth = {"images": [image], "annotations": [person], "categories": [{"id": 1, "name": "person"}]}
    result = {"image_id": 1, "category_id": 1, "score": 0.9, "keypoints": keypoints}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "results.json").write_text(json.dumps([result]))
    words = [f"--detections={tmp_path}/results.json", f"--ground_truth={tmp_path}/truth.json", "--iou_type=keypoints"]
    evaluate(tmp_path / "out", *words)
    assert "average recall, OKS 0.75, area all, at most 20 detections" in texts(tmp_path / "out/report.html")


def test_report_of_a_run(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(folder / "run"), f"--output={page}"]) == 0
    assert str(page) in capsys.readouterr().out
    assert "data:image/jpeg" in page.read_text()
    assert main(["report", str(folder / "run"), f"--output={page}"]) == 2
    assert "give --overwrite" in capsys.readouterr().err
    assert main(["report", str(folder / "run"), f"--output={page}", "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "--output FILE is missing"),
        (["RUN", "--output=RUN"], "is a folder: name a file"),
        (["RUN/coco", "--output=OUT"], "coco is not a run of beam-detect: it has no run.json. Name a folder that"),
        (["RUN/in/none", "--output=OUT"], "none does not exist. Name a folder that `beam-detect detect` wrote to."),
        (["RUN/run.json", "--output=OUT"], "run.json is a file, not the folder of a run"),
        (["BROKEN", "--output=OUT"], "is not a whole run"),
    ],
)
def test_bad_usage_of_report_is_one_clear_line(folder, tmp_path, capsys, words, message):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/run.json").write_bytes((folder / "run/run.json").read_bytes())
    for key, path in {"RUN": folder / "run", "BROKEN": tmp_path / "broken", "OUT": tmp_path / "a.html"}.items():
        words = [word.replace(key, str(path)) for word in words]
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1
