"""Masks and keypoints from the detector to tables, COCO files and metrics, through the program's own entry point."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from beam_jobs.cli.main import main
from beam_jobs.evaluation.outputs import Metrics
from beam_jobs.formats.coco_keypoints import NAMES, SKELETON
from beam_jobs.formats.rows import ImageFacts, Place, RowsBuilder
from beam_jobs.formats.tables import DETECTIONS
from beam_jobs.records import BoxMasks, Detections, ImageKey
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests.fake_detectors import POSE
from tests.pictures import BLUE, GREEN, RED, encode, picture
from tests.test_detect import promised

SCHEMAS = Path(__file__).parent.parent / "schemas"
WIDTH, HEIGHT, COUNT = 220, 130, 12
KINDS = ("segm", "keypoints")
BOTH, MASKS, NEITHER = (f"--model=tests.fake_detectors:{name}" for name in ("shapes", "masks", "colours"))


def disc(x: float, y: float, radius: float) -> np.ndarray:
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 < radius**2)


def shapes_of(i: int) -> dict[int, np.ndarray]:
    """The pixels of each class in the i-th picture: small, medium and large by COCO's areas."""
    box = np.zeros((HEIGHT, WIDTH), bool)
    box[5 : 30 + i, 4 : 20 + i] = True
    return {1: box, 2: disc(150 + i // 3, 65, 60 if i % 2 else 42), 3: disc(30, 95 + i % 3, 11)}


def rle(pixels: np.ndarray) -> dict[str, Any]:
    found = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": list(found["size"]), "counts": found["counts"].decode()}


def truth_of(shift: int) -> dict[str, Any]:
    """What is in the pictures, every second object `shift` pixels to the right of where it is."""
    annotations: list[dict[str, Any]] = []
    for i in range(COUNT):
        for category, pixels in shapes_of(i).items():
            moved = np.roll(pixels, shift * (len(annotations) % 2), axis=1)
            ys, xs = np.nonzero(moved)
            x, y, width, height = map(int, (xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1))
            points = np.column_stack([POSE * [width, height] + [x, y], np.full(17, 2)])
            points[15] = 0
            known = {"keypoints": points.reshape(-1).tolist(), "num_keypoints": 16} if category == 1 else {}
            own = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": category, "iscrowd": 0}
            shape = {"bbox": [x, y, width, height], "area": int(moved.sum()), "segmentation": rle(moved)}
            annotations.append({**own, **shape, **known})
    images = [{"id": i + 1, "file_name": f"{i:02}.png", "width": WIDTH, "height": HEIGHT} for i in range(COUNT)]
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "green"}, {"id": 3, "name": "blue"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def people_of(truth: dict[str, Any]) -> dict[str, Any]:
    people = [one for one in truth["annotations"] if one["category_id"] == 1]
    return {**truth, "annotations": people, "categories": truth["categories"][:1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in `in`, truths `exact-*.json` and `shifted-*.json`, and a run in `run` that is evaluated by masks."""
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "in").mkdir()
    for i in range(COUNT):
        pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        for category, shape in shapes_of(i).items():
            pixels[shape] = (RED, GREEN, BLUE)[category - 1]
        (folder / "in" / f"{i:02}.png").write_bytes(encode(pixels))
    for name, shift in (("exact", 0), ("shifted", 6)):
        truth = truth_of(shift)
        (folder / f"{name}-segm.json").write_text(json.dumps(truth))
        (folder / f"{name}-keypoints.json").write_text(json.dumps(people_of(truth)))
    words = [f"--input={folder}/in", f"--output={folder}/run", "--part_size=5", "--annotate", "--workers=2"]
    words += [f"--ground_truth={folder}/shifted-segm.json", "--iou_type=segm"]
    assert main(["detect", BOTH, *words]) == 0
    return folder


@pytest.fixture(scope="module")
def plain(folder: Path) -> Path:
    """A run of a detector of boxes, in place of one with masks and keypoints."""
    words = [f"--input={folder}/in/0*.png", f"--output={folder}/plain", "--overwrite"]
    for model in (BOTH, NEITHER):
        assert main(["detect", model, *words]) == 0
    return folder / "plain"


def test_masks_are_in_the_table_and_the_coco_files(folder):
    detections = pd.read_parquet(folder / "run" / "detections")
    assert len(detections) == 3 * COUNT
    for row in detections.to_dict("records"):
        decoded = coco_mask.decode(row["mask"]).astype(bool)
        expected = shapes_of(int(row["file_name"][:2]))[row["category_id"]]
        assert list(row["mask"]["size"]) == [HEIGHT, WIDTH]
        assert row["mask_area"] == decoded.sum()
        # A grid of 33 cells a side knows the edge of a large disc to about two pixels.
        assert (decoded & expected).sum() / (decoded | expected).sum() > (0.9 if row["category_id"] == 3 else 0.95)
    together = json.loads((folder / "run/coco/detections.json").read_text())
    alone = json.loads((folder / "run/coco/detections_segm.json").read_text())
    assert [one["segmentation"] for one in together] == [one["segmentation"] for one in alone]
    assert all("bbox" in one for one in together)
    assert all(one.keys() == {"image_id", "category_id", "segmentation", "score"} for one in alone)
    assert list(check_run(str(folder / "run"))) == []
    assert Manifest.read(str(folder / "run")).counts.masks == 3 * COUNT


def test_keypoints_are_in_the_table_and_the_coco_files(folder):
    detections = pd.read_parquet(folder / "run" / "detections")
    assert (detections.keypoints.notna() == (detections.category == "person")).all()
    row = detections[detections.category == "person"].iloc[0]
    points = row.keypoints.reshape(17, 3)
    assert points.dtype == np.float32
    assert points[0] == pytest.approx([4 + 0.5 * 16, 5 + 0.1 * 25, 0.9])
    assert points[15].tolist() == [0, 0, 0]
    together = json.loads((folder / "run/coco/detections.json").read_text())
    assert ["keypoints" in one for one in together] == (detections.category == "person").tolist()
    alone = json.loads((folder / "run/coco/detections_keypoints.json").read_text())
    assert alone == [one for one in together if "keypoints" in one]
    assert alone[0]["keypoints"] == row.keypoints.astype(float).tolist()
    dataset = json.loads((folder / "run/coco/dataset.json").read_text())
    assert dataset["categories"] == [
        {"id": 1, "name": "person", "keypoints": list(NAMES), "skeleton": [list(pair) for pair in SKELETON]},
        {"id": 2, "name": "green"},
        {"id": 3, "name": "blue"},
    ]
    assert list(check_run(str(folder / "run"))) == []
    assert Manifest.read(str(folder / "run")).counts.keypoints == COUNT


def test_files_are_as_the_schemas_say(folder):
    schemas = {"detections": "detections", "detections_segm": "detections-segm", "detections_keypoints": "detections"}
    for name, schema in {**schemas, "dataset": "dataset"}.items():
        document = json.loads((folder / "run/coco" / f"{name}.json").read_text())
        jsonschema.validate(document, json.loads((SCHEMAS / f"coco-{schema}.schema.json").read_text()))
    for path in (folder / "run" / "detections").iterdir():
        assert pq.read_schema(path).equals(DETECTIONS)


def pycocotools_says(truth: Path, results: Path, kind: str) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(truth))
        evaluation = COCOeval(coco, coco.loadRes(str(results)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    numbers: list[float] = evaluation.stats.tolist()
    return numbers


def evaluated(output: Path, *words: str) -> list[float]:
    assert main(["evaluate", f"--output={output}", *words]) == 0
    return list(Metrics.read(str(output)).metrics.values())


@pytest.mark.parametrize("kind", KINDS)
def test_plain_pycocotools_gives_the_numbers_of_evaluate(folder, tmp_path, kind):
    truth, run = folder / f"shifted-{kind}.json", folder / "run"
    expected = pycocotools_says(truth, run / f"coco/detections_{kind}.json", kind)
    assert 0.2 < expected[0] < 0.95
    if kind == "segm":
        one_pass = Metrics.read(str(run / "evaluation"))
        assert (one_pass.iou_type, list(one_pass.metrics.values())) == (kind, expected)
    common = (f"--ground_truth={truth}", f"--iou_type={kind}")
    sources = {
        "run": [f"--detections={run}"],
        "pycocotools": [f"--detections={run}", "--engine=pycocotools"],
        "parquet": [f"--detections={run}/detections/*.parquet"],
        "coco": [f"--detections={run}/coco/detections_{kind}.json"],
    }
    for name, words in sources.items():
        assert evaluated(tmp_path / name, *words, *common) == expected, name


def test_files_are_evaluated_as_boxes_too(folder, tmp_path):
    truth, coco = folder / "shifted-segm.json", folder / "run/coco"
    expected = pycocotools_says(truth, coco / "detections.json", "bbox")
    for name, source in (("run", folder / "run"), ("coco", coco / "detections.json")):
        assert evaluated(tmp_path / name, f"--detections={source}", f"--ground_truth={truth}") == expected
    masks = coco / "detections_segm.json"
    around = pycocotools_says(truth, masks, "bbox")
    assert evaluated(tmp_path / "masks", f"--detections={masks}", f"--ground_truth={truth}") == around


def test_areas_are_those_of_masks_not_of_boxes(tmp_path):
    """A thin cross has a large box and few pixels: COCO counts it as small, by the file of masks only."""
    run, truth = tmp_path / "run", tmp_path / "truth.json"
    (tmp_path / "in").mkdir()
    pixels = picture(WIDTH, HEIGHT, ((10, 58, 150, 60), RED), ((79, 5, 81, 115), RED))
    (tmp_path / "in" / "x.png").write_bytes(encode(pixels))
    other = disc(40, 40, 30)
    images = [{"id": 1, "file_name": "x.png", "width": WIDTH, "height": HEIGHT}]
    own = {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "bbox": [10, 10, 60, 60]}
    annotations = [{**own, "area": int(disc(40, 40, 10).sum()), "segmentation": rle(other)}]
    truth.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "red"}]})
    )
    words = [f"--input={tmp_path}/in", f"--output={run}", f"--ground_truth={truth}", "--iou_type=segm"]
    assert main(["detect", MASKS, *words]) == 0
    metrics = Metrics.read(str(run / "evaluation")).metrics
    assert metrics["APsmall"] == 0
    assert list(metrics.values()) == pycocotools_says(truth, run / "coco/detections_segm.json", "segm")
    assert not (run / "coco/detections_keypoints.json").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_found_as_it_is_has_an_ap_of_one(folder, tmp_path, kind):
    words = (f"--detections={folder}/run", f"--ground_truth={folder}/exact-{kind}.json", f"--iou_type={kind}")
    numbers = evaluated(tmp_path / "out", *words, "--iou_thresholds=0.5,0.75,0.9")
    assert numbers[0] == 1.0


@pytest.mark.parametrize(("kind", "what"), [("segm", "masks"), ("keypoints", "keypoints")])
def test_a_run_without_them_cannot_be_compared_by_them(folder, plain, tmp_path, capsys, kind, what):
    for source in (plain, plain / "detections"):
        words = [f"--detections={source}", f"--ground_truth={folder}/exact-{kind}.json", f"--iou_type={kind}"]
        assert main(["evaluate", f"--output={tmp_path}/out", *words]) == 2
        assert f"it has no {what}; compare by bbox, or" in capsys.readouterr().err


def test_iou_type_without_a_truth_is_refused(folder, tmp_path, capsys):
    assert main(["detect", MASKS, f"--input={folder}/in", f"--output={tmp_path}/x", "--iou_type=segm"]) == 2
    assert "--iou_type segm says what is evaluated: give --ground_truth" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "output"), [("segm", "detection_masks"), ("keypoints", "detection_keypoints")])
def test_a_model_without_them_is_refused_before_anything_runs(folder, tmp_path, capsys, kind, output):
    words = [f"--input={folder}/in", f"--output={tmp_path}/x", f"--iou_type={kind}", "--label_map"]
    words += [f"{folder}/exact-segm.json", f"--ground_truth={folder}/exact-{kind}.json"]
    assert main(["detect", "--model=tests.fake_detectors:BoxesOnly", *words]) == 2
    assert (
        f"--iou_type {kind}: tests.fake_detectors:BoxesOnly has no output {output}; it has" in capsys.readouterr().err
    )
    assert not (tmp_path / "x").exists()


def test_nothing_is_left_of_a_run_that_is_replaced(plain):
    assert sorted(path.name for path in (plain / "coco").iterdir()) == ["dataset.json", "detections.json"]
    assert "keypoints" not in (plain / "coco/dataset.json").read_text()
    detections = pd.read_parquet(plain / "detections")
    assert detections[["mask", "mask_area", "keypoints"]].isna().all(axis=None)


def test_one_process_and_two_give_the_same_bytes(folder, tmp_path):
    words = [f"--input={folder}/in", f"--output={tmp_path}/one", "--part_size=5", "--annotate", "--workers=1"]
    assert main(["detect", BOTH, *words, "--min_score=0", f"--image_ids={folder}/exact-segm.json"]) == 0
    assert promised(tmp_path / "one") == promised(folder / "run")


def test_they_are_drawn(folder):
    before = np.asarray(Image.open(folder / "in/00.png")).astype(int)
    after = np.asarray(Image.open(folder / "run/annotated/00.png")).astype(int)
    middle = (65, 150)  # of the green disc, under the veil
    assert np.abs(after[middle] - before[middle]).max() > 20
    nose = (round(5 + 0.1 * 25), round(4 + 0.5 * 16))
    assert after[nose].min() > 100  # the white middle of a dot, on red


def test_grids_stay_in_their_process():
    """What travels is small: run lengths of a hundred masks are a twentieth of their grids."""
    n = 100
    boxes = np.tile(np.array([[10, 20, 300, 400]], np.float32), (n, 1))
    masks = BoxMasks(np.ones((n, 33, 33), np.float32), boxes)
    found = Detections(boxes, np.full(n, 0.5, np.float32), np.ones(n, np.int32), masks)
    builder = RowsBuilder("fake@1", {1: "red"})
    builder.image(ImageKey(7, "/in/a", "a"), Place(0), "/in/a", ImageFacts(640, 480, "PNG", 1, 99, "ab"), found, 0)
    assert len(builder.encode()) < masks.grids.nbytes / 5
