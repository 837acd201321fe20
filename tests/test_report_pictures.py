"""The pictures of the pages: where they come from, and the masks and keypoints that are drawn on them."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask

from beam_jobs.cli.main import main
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.imaging.decode import decode
from beam_jobs.report.gallery import BUDGET, Marked, render
from beam_jobs.report.shapes import Shape
from tests.evaluation_problems import dataset_of, result, truth
from tests.pictures import encode, write_pictures
from tests.test_evaluate import FAKE, evaluate, truth_of
from tests.test_report_evaluation import texts

GREY = 90


def shown(page: Path) -> list[np.ndarray]:
    """The pictures of a page."""
    found = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page.read_text())
    return [decode(base64.b64decode(one)).pixels for one in found]


def hues(pixels: np.ndarray) -> dict[str, int]:
    """How many pixels are clearly blue, green or orange."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return {
        "missed": int(((blue > red + 50) & (blue > green + 30)).sum()),
        "right": int(((green > red + 50) & (green > blue + 20)).sum()),
        "wrong": int(((red > blue + 50) & (red > green + 30)).sum()),
    }


@pytest.mark.parametrize("compress", [False, True])
def test_pictures_of_records_are_found_again(tmp_path, compress):
    names = write_pictures(tmp_path / "in", 3)
    (tmp_path / "truth.json").write_text(json.dumps(truth_of(names)))
    records = [
        make_example({"image/filename": name, "image/encoded": (tmp_path / "in" / name).read_bytes()}) for name in names
    ]
    write_records(str(tmp_path / "all.tfrecord"), [b"no example", *records], compress=compress)
    words = [f"--input={tmp_path}/all.tfrecord", f"--output={tmp_path}/run", FAKE]
    assert main(["detect", *words, f"--ground_truth={tmp_path}/truth.json"]) == 0
    assert "cannot be shown" not in texts(tmp_path / "run/evaluation/report.html")
    assert len(shown(tmp_path / "run/evaluation/report.html")) > 3
    write_records(str(tmp_path / "all.tfrecord"), records[:1], compress=compress)
    evaluate(tmp_path / "out", f"--detections={tmp_path}/run", f"--ground_truth={tmp_path}/truth.json")
    assert "The picture cannot be shown: it is gone" in texts(tmp_path / "out/report.html")
    assert shown(tmp_path / "out/report.html")


@pytest.mark.parametrize("prefix", ["", "val/"])
def test_pictures_of_results_that_are_no_run_are_in_the_folder_that_is_named(tmp_path, prefix):
    names = write_pictures(tmp_path / "in", 3)
    (tmp_path / "truth.json").write_text(json.dumps(truth_of([prefix + name for name in names])))
    (tmp_path / "results.json").write_text(json.dumps([result(40, 1, 0.9, bbox=[0, 0, 10, 8])]))
    words = [f"--detections={tmp_path}/results.json", f"--ground_truth={tmp_path}/truth.json"]
    evaluate(tmp_path / "with", *words, f"--images={tmp_path}/in")
    assert len(shown(tmp_path / "with/report.html")) >= 6
    evaluate(tmp_path / "elsewhere", *words, f"--images={tmp_path}")
    assert "The picture cannot be read: No such file" in texts(tmp_path / "elsewhere/report.html")
    evaluate(tmp_path / "without", *words)
    assert "--images DIR does" in texts(tmp_path / "without/report.html")


def test_masks_cover_what_they_are_of():
    polygon = [30.0, 20.0, 100.0, 30.0, 60.0, 110.0]
    pixels = np.full((120, 160, 3), GREY, np.uint8)
    run_lengths = mask.merge(mask.frPyObjects([polygon], 120, 160))
    covered = mask.decode(run_lengths).astype(bool)
    texts = [json.dumps([polygon]), json.dumps({"size": [120, 160], "counts": run_lengths["counts"].decode()})]
    for text in texts:
        marked = Marked((30, 20, 100, 110), "", "detection", shape=Shape(text.encode()))
        drawn = decode(render(pixels, [marked]).jpeg).pixels
        box = np.zeros_like(covered)
        box[17:113, 27:103] = True
        box[24:106, 34:96] = False
        changed = np.abs(drawn.astype(int) - GREY).max(axis=-1) > 25
        assert (changed[~box] == covered[~box]).mean() > 0.98
        assert drawn[60, 60, 0] > drawn[60, 60, 2] + 20  # orange


def test_masks_follow_a_cut():
    pixels = np.full((1000, 1000, 3), GREY, np.uint8)
    square = json.dumps([[500.0, 500.0, 540.0, 500.0, 540.0, 540.0, 500.0, 540.0]]).encode()
    picture = render(pixels, [Marked((480, 480, 560, 560), "", "truth", focus=True, shape=Shape(square))])
    drawn = decode(picture.jpeg).pixels
    ys, xs = np.nonzero(drawn[..., 2].astype(int) > GREY + 30)
    assert abs(xs.mean() / picture.width - 0.5) < 0.02
    assert abs(ys.mean() / picture.height - 0.5) < 0.02


def test_keypoints_and_limbs_are_drawn_where_they_are():
    points = np.zeros((17, 3))
    points[[5, 7, 9]] = [(20, 20, 2), (60, 20, 1), (60, 80, 2)]  # the left arm
    points[11] = (120, 100, 0)  # not labelled
    shape = Shape(keypoints=tuple(points.ravel().tolist()))
    pixels = np.full((120, 160, 3), GREY, np.uint8)
    drawn = decode(render(pixels, [Marked((0, 0, 159, 119), "", "truth", shape=shape)]).jpeg).pixels.astype(int)
    for x, y in ((20, 20), (60, 20), (60, 80), (40, 20), (60, 50)):
        assert drawn[y, x, 2] > drawn[y, x, 0] + 40, (x, y)
    for x, y in ((120, 100), (40, 50), (90, 60)):
        assert abs(drawn[y, x] - GREY).max() < 20, (x, y)


def squares(images: int, iou_type: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A truth with one object an image, and results that find each."""
    points = [value for at in range(17) for value in (30.0 + 4 * at, 35.0 + at, 2.0)]
    truths, found = [], []
    for image in range(1, images + 1):
        box = [30.0, 30.0, 80.0, 60.0]
        corners = [30.0, 30.0, 110.0, 30.0, 110.0, 90.0, 30.0, 90.0]
        more: dict[str, Any] = {"segmentation": [corners], "keypoints": points, "num_keypoints": 17}
        truths.append(truth(image, image, 1, box, **more))
        run_lengths = mask.merge(mask.frPyObjects([corners], 120, 160))
        shape: dict[str, Any] = {"bbox": box}
        if iou_type == "segm":
            shape["segmentation"] = {"size": [120, 160], "counts": run_lengths["counts"].decode()}
        if iou_type == "keypoints":
            shape["keypoints"] = points
        found.append(result(image, 1, 0.9, **shape))
    dataset = dataset_of(range(1, images + 1), [1], truths)
    dataset["images"] = [{**image, "width": 160, "height": 120} for image in dataset["images"]]
    return dataset, found


@pytest.mark.parametrize("iou_type", ["bbox", "segm", "keypoints"])
def test_comparisons_show_what_changed_on_both_sides(tmp_path, capsys, iou_type):
    dataset, found = squares(4, iou_type)
    a, b = [found[0]], found[1:]
    if iou_type == "bbox":
        a.append(result(2, 1, 0.8, bbox=[10.0, 100.0, 140.0, 15.0]))
    (tmp_path / "in").mkdir()
    for image in dataset["images"]:
        (tmp_path / "in" / image["file_name"]).write_bytes(encode(np.full((120, 160, 3), GREY, np.uint8)))
    for name, value in (("truth", dataset), ("a", a), ("b", b)):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
    words = ["compare", f"{tmp_path}/a.json", f"{tmp_path}/b.json", f"--ground_truth={tmp_path}/truth.json"]
    words += ["--samples=5", f"--iou_type={iou_type}"]
    assert main([*words, f"--output={tmp_path}/out", f"--images={tmp_path}/in"]) == 0
    page = tmp_path / "out/compare.html"
    assert page.stat().st_size < BUDGET
    kinds = re.findall(r'data-kind="(better|worse)" data-classes', page.read_text())
    assert kinds == ["better"] * 3 + ["worse"]
    pictures = shown(page)
    assert len(pictures) == 8
    # In B the object is right and in A missed; in the last it is the other way round.
    seen = [max(hues(one).items(), key=lambda entry: entry[1])[0] for one in pictures]
    first = "wrong" if iou_type == "bbox" else "missed"
    assert seen == [first, "right", "missed", "right", "missed", "right", "right", "missed"]
    assert all(max(hues(one).values()) > 100 for one in pictures)
    assert "F1 0.00 → 1.00" in texts(page)

    assert main([*words, f"--output={tmp_path}/none"]) == 0
    assert "neither A nor B is the folder of a run" in texts(tmp_path / "none/compare.html")
    assert not shown(tmp_path / "none/compare.html")

    capsys.readouterr()
    words[2] = words[1]
    assert main([*words, f"--output={tmp_path}/same", f"--images={tmp_path}/in"]) == 0
    overlap = "OKS" if iou_type == "keypoints" else "IoU"
    why = f"no image is better or worse in B than in A, by F1 at {overlap} ≥ 0.5 and score ≥ 0.3."
    assert f"No pictures: {why}" in texts(tmp_path / "same/compare.html")
    assert why in capsys.readouterr().out


def test_comparisons_take_the_pictures_of_their_runs(tmp_path):
    names = write_pictures(tmp_path / "in", 4)
    (tmp_path / "truth.json").write_text(json.dumps(truth_of(names)))
    words = [f"--ground_truth={tmp_path}/truth.json"]
    assert main(["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/run", FAKE, *words]) == 0
    (tmp_path / "none.json").write_text("[]")
    assert main(["compare", f"{tmp_path}/none.json", f"{tmp_path}/run", *words, f"--output={tmp_path}/out"]) == 0
    assert len(shown(tmp_path / "out/compare.html")) == 8
