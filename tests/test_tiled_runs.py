"""Tiles in a job: they are pictures to the detector, share its calls, and fail with their picture."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.detectors.base import BatchKey, DetectorInfo
from beam_jobs.detectors.tiles import Tiling
from beam_jobs.errors import InputError
from beam_jobs.processes.calls import Caller
from beam_jobs.records import Detections
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests import fake_detectors
from tests.pictures import BLUE, RED, encode, picture

FAKE = "--model=tests.fake_detectors:colours"
SCRIPT = Path(__file__).parent.parent / "scripts" / "_mosaic.py"


class Sized(fake_detectors.ColourDetector):
    """Pictures of one size share calls; remembers the sizes of each call. Fails where blue is."""

    info = DetectorInfo("python")

    def __init__(self):
        self.calls: list[list[tuple[int, ...]]] = []

    def batch_key(self, height: int, width: int) -> BatchKey:
        return BatchKey((height, width), height * width)

    def detect(self, pictures):
        self.calls.append([one.shape[:2] for one in pictures])
        assert all(one.flags.c_contiguous for one in pictures)
        found = super().detect(pictures)
        if any(3 in one.category_ids for one in found):
            raise RuntimeError("blue")
        return found


def ask(detector, pictures, *, batch_pixels=0, tiling=None, starting=lambda _: None):
    return Caller(detector, batch_pixels, tiling).ask(pictures, starting)


def test_tiles_of_one_size_share_calls_with_those_of_other_pictures():
    # Four tiles each, of 100×100, and the whole.
    pictures = [picture(180, 180, ((10, 10, 30, 30), RED)), picture(180, 180, ((150, 150, 170, 170), RED))]
    alone, shared = Sized(), Sized()
    tiling = Tiling(100, 0.2)
    at_work: list[tuple[int, ...]] = []
    one_each = ask(alone, pictures, tiling=tiling)
    together = ask(shared, pictures, batch_pixels=60_000, tiling=tiling, starting=at_work.append)
    assert alone.calls == [[(180, 180)], *[[(100, 100)]] * 4] * 2
    assert shared.calls == [[(180, 180)], [(100, 100)] * 6, [(180, 180)], [(100, 100)] * 2]
    assert at_work == [(0,), (0, 1), (1,), (1,)]
    assert [answer.call_pictures for answer in one_each] == [1, 1]
    assert [answer.call_pictures for answer in together] == [6, 6]
    for one, other in zip(one_each, together, strict=True):
        assert isinstance(one.found, Detections)
        assert isinstance(other.found, Detections)
        np.testing.assert_array_equal(one.found.boxes, other.found.boxes)
    assert [answer.found.boxes.tolist() for answer in together if isinstance(answer.found, Detections)] == [
        [[10, 10, 30, 30]],
        [[150, 150, 170, 170]],
    ]


@pytest.mark.parametrize("batch_pixels", [0, 60_000])
def test_a_tile_that_fails_fails_its_picture_only(batch_pixels):
    pictures = [picture(180, 180, ((10, 10, 30, 30), RED)), picture(180, 180, ((150, 150, 170, 170), BLUE))]
    good, bad = ask(Sized(), pictures, batch_pixels=batch_pixels, tiling=Tiling(100))
    assert isinstance(good.found, Detections)
    assert isinstance(bad.found, InputError)
    assert str(bad.found) == "The detector raised RuntimeError: blue"


def test_tiles_below_the_least_score_are_not_merged():
    class Unsure(fake_detectors.ColourDetector):
        def one(self, picture):
            found = super().one(picture)
            return Detections(found.boxes, np.full(len(found), 0.1, np.float32), found.category_ids)

    pixels = picture(180, 180, ((10, 10, 30, 30), RED))
    (answer,) = Caller(Unsure(), 0, Tiling(100), min_score=0.2).ask([pixels], lambda _: None)
    assert isinstance(answer.found, Detections)
    assert len(answer.found) == 0


@pytest.fixture
def large(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    # The whole picture has one red box around all; tiles see each of the four.
    corners = [((x, y, x + 20, y + 20), RED) for x in (5, 475) for y in (5, 275)]
    (folder / "large.png").write_bytes(encode(picture(500, 300, *corners)))
    (folder / "small.png").write_bytes(encode(picture(60, 50, ((5, 5, 25, 25), RED))))
    return folder


def test_a_job_with_tiles(large, tmp_path):
    for workers in (1, 2):
        words = [f"--input={large}", f"--output={tmp_path}/out{workers}", FAKE, f"--workers={workers}"]
        assert main(["detect", *words, "--tile=128", "--tile_overlap=0.25", "--min_score=0.5"]) == 0
    boxes = pd.read_parquet(tmp_path / "out1/detections")[["file_name", "xmin", "ymin", "xmax", "ymax"]]
    assert sorted(boxes.to_numpy().tolist()) == [
        ["large.png", 5, 5, 25, 25],
        ["large.png", 5, 275, 25, 295],
        ["large.png", 475, 5, 495, 25],
        ["large.png", 475, 275, 495, 295],
        ["small.png", 5, 5, 25, 25],
    ]
    assert list(check_run(str(tmp_path / "out1"))) == []
    job = Manifest.read(str(tmp_path / "out1")).job
    assert (job["tile"], job["tile_overlap"]) == (128, 0.25)
    results = [(tmp_path / f"out{n}/coco/detections.json").read_bytes() for n in (1, 2)]
    assert results[0] == results[1]


def test_a_dry_run_shows_the_tiles(large, tmp_path, capsys):
    assert main(["detect", f"--input={large}", f"--output={tmp_path}/out", FAKE, "--tile=640", "--dry_run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert "  tile: 640" in printed
    assert "  tile_overlap: 0.2" in printed


@pytest.mark.parametrize("words", [["--tile=63"], ["--tile=640", "--tile_overlap=0.9"], ["--tile_overlap=0.2"]])
def test_tiles_that_make_no_sense_are_refused(large, tmp_path, words, capsys):
    try:
        status = main(["detect", f"--input={large}", f"--output={tmp_path}/out", FAKE, *words])
    except SystemExit as error:  # argparse's own
        status = int(error.code or 0)
    assert status == 2
    assert "--tile" in capsys.readouterr().err


def test_mosaics_have_the_truths_of_their_images(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    images, truths = [], []
    for i in range(4):
        (folder / f"{i}.png").write_bytes(encode(picture(50 + i, 40, ((5 + i, 6, 15 + i, 16), RED))))
        images.append({"id": i + 1, "file_name": f"{i}.png", "width": 50 + i, "height": 40})
        truth = {"id": i + 1, "image_id": i + 1, "category_id": 1, "bbox": [5 + i, 6, 10, 10], "area": 100}
        truths.append({**truth, "iscrowd": 0})
    dataset = {"images": images, "annotations": truths, "categories": [{"id": 1, "name": "red"}]}
    (tmp_path / "truth.json").write_text(json.dumps(dataset))
    words = [tmp_path / "truth.json", folder, tmp_path / "out", "--pictures=2", "--width=120", "--height=90"]
    subprocess.run([sys.executable, SCRIPT, *map(str, words)], check=True, capture_output=True)
    made = json.loads((tmp_path / "out/instances.json").read_text())
    assert [image["file_name"] for image in made["images"]] == ["mosaic-001.jpg", "mosaic-002.jpg"]
    assert [one["image_id"] for one in made["annotations"]] == [1] * 4 + [2] * 4
    for image in made["images"]:
        with Image.open(tmp_path / "out/images" / image["file_name"]) as opened:
            red = np.asarray(opened)[..., 0] > np.asarray(opened)[..., 1] + 100
        boxes = [one["bbox"] for one in made["annotations"] if one["image_id"] == image["id"]]
        shares = [red[y : y + h, x : x + w].mean() for x, y, w, h in boxes]
        assert min(shares) > 0.9  # but for what JPEG blurs
        assert red.sum() < 4 * 120
