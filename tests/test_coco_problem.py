"""The generator of evaluations: it makes the same again, and valid ones, which evaluate solves as pycocotools does."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from beam_jobs.formats.tables import DETECTIONS
from scripts import _benchmark_evaluation, _coco_problem
from scripts._benchmark_evaluation import OURS, Run

IMAGES = 120
FILES = ("instances.json", "results.json", "results.parquet")


@pytest.fixture(scope="module")
def problem(tmp_path_factory):
    folder = tmp_path_factory.mktemp("problem")
    _coco_problem.main([str(folder), f"--images={IMAGES}", "--seed=7", "--parquet"])
    return folder


def loaded(folder: Path):
    return json.loads((folder / FILES[0]).read_text()), json.loads((folder / FILES[1]).read_text())


def test_the_same_seed_gives_the_same_and_another_does_not(problem, tmp_path):
    for name, seed in (("same", 7), ("other", 8)):
        (tmp_path / name).mkdir()
        _coco_problem.write(tmp_path / name, IMAGES, seed, parquet=True)
    for file in FILES:
        assert (tmp_path / "same" / file).read_bytes() == (problem / file).read_bytes()
        assert (tmp_path / "other" / file).read_bytes() != (problem / file).read_bytes()


def test_more_images_begin_with_those_that_fewer_are(problem, tmp_path):
    _coco_problem.write(tmp_path, _coco_problem.CHUNK + 20, 7)
    (fewer, found), (more, more_found) = loaded(problem), loaded(tmp_path)
    for name in ("images", "annotations"):
        assert len(more[name]) > len(fewer[name])
        assert more[name][: len(fewer[name])] == fewer[name]
    assert more_found[: len(found)] == found
    assert not (tmp_path / "results.parquet").exists()


def test_it_is_valid_and_has_what_costs_time(problem):
    truth, found = loaded(problem)
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    assert len(sizes) == len(truth["images"]) == IMAGES
    assert len(truth["categories"]) == 80
    for rows in (truth["annotations"], found):
        boxes = np.array([row["bbox"] for row in rows])
        assert (boxes[:, 2:] >= 1).all()
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, :2] + boxes[:, 2:] <= [sizes[row["image_id"]] for row in rows]).all()
        assert {row["category_id"] for row in rows} <= set(_coco_problem.CATEGORY_IDS)
    assert sorted({truth["id"] for truth in truth["annotations"]}) == list(range(1, len(truth["annotations"]) + 1))
    assert any(truth["iscrowd"] for truth in truth["annotations"])
    scores = [row["score"] for row in found]
    assert all(0 < score <= 1 for score in scores)
    assert len(set(scores)) < len(scores)
    _, counts = np.unique([row["image_id"] for row in found], return_counts=True)
    assert counts.max() <= _coco_problem.MAX_DETECTIONS


def test_masks_have_their_areas(problem):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(problem / FILES[0]))
    for one in truth.anns.values():
        pixels = int(truth.annToMask(one).sum())
        if one["iscrowd"]:
            assert pixels == one["area"]
        else:
            assert pixels == pytest.approx(one["area"], rel=0.2, abs=2 * sum(one["bbox"][2:]))


def test_the_table_is_a_runs_and_says_the_same(problem):
    table = pq.read_table(problem / FILES[2])
    assert table.schema.equals(DETECTIONS, check_metadata=True)
    expected = [
        (row["image_id"], row["category_id"], row["score"], *row["bbox"])
        for row in json.loads((problem / FILES[1]).read_text())
    ]
    assert [
        (
            row["image_id"],
            row["category_id"],
            row["score"],
            row["xmin"],
            row["ymin"],
            row["xmax"] - row["xmin"],
            row["ymax"] - row["ymin"],
        )
        for row in table.to_pylist()
    ] == expected


@pytest.fixture(scope="module")
def expected(problem) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(problem / FILES[0]))
        evaluation = COCOeval(truth, truth.loadRes(str(problem / FILES[1])), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return list(map(float, evaluation.stats))


@pytest.mark.parametrize("engine", ["streaming", "pycocotools"])
@pytest.mark.parametrize("results", FILES[1:])
def test_evaluate_gives_the_numbers_of_pycocotools(problem, expected, tmp_path, results, engine):
    words = [f"--ground_truth={problem / FILES[0]}", f"--detections={problem / results}", f"--engine={engine}"]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "beam_jobs", "evaluate", *words, f"--output={tmp_path / 'out'}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    assert list(metrics.values()) == expected
    assert min(expected) > 0


def test_results_in_pieces_and_shards_give_the_same(problem, expected, tmp_path, monkeypatch):
    from beam_jobs.cli.main import main
    from beam_jobs.evaluation import shards

    monkeypatch.setattr(shards, "IMAGES_A_SHARD", 7)
    monkeypatch.setattr(shards, "_ROWS_A_PIECE", 333)
    words = [f"--ground_truth={problem / FILES[0]}", f"--detections={problem / FILES[1]}"]
    assert main(["evaluate", *words, f"--output={tmp_path / 'out'}"]) == 0
    assert list(json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"].values()) == expected
    assert not list((tmp_path / "out").glob("_*"))


def test_tables_have_medians_and_ratios():
    numbers = (0.5,) * 12
    runs = {
        OURS: [Run(wall, 2.0, 200_000_000, numbers) for wall in (4.0, 5.0, 8.0)],
        "hotcoco": [Run(2.5, 2.0, 100_000_000, numbers)],
    }
    *_, ours, theirs = _benchmark_evaluation.table(runs)
    assert ours == f"| {OURS} | 3 | 5.0 (4.0–8.0) | 2.0 (2.0–2.0) | 200 (200–200) | 1.00 | 1.00 |"
    assert theirs == "| hotcoco | 1 | 2.5 (2.5–2.5) | 2.0 (2.0–2.0) | 100 (100–100) | 0.50 | 0.50 |"
    assert _benchmark_evaluation.agreement(runs).endswith("identical.")
    other = {**runs, "hotcoco": [Run(2.5, 2.0, 1, (0.5,) * 11 + (0.25,))]}
    assert "DIFFER, by 0.25" in _benchmark_evaluation.agreement(other)
    more = {50: [Run(50.0, 20.0, 400_000_000, numbers)]}
    last = _benchmark_evaluation.growth_table(runs[OURS], 5, more)[-1]
    assert last == "| 50 | 10 | 50.0 (50.0–50.0) | 10.00 | 20.0 (20.0–20.0) | 400 (400–400) | 2.00 |"


@pytest.mark.slow
def test_the_benchmark_runs_and_all_find_the_same(tmp_path):
    report = tmp_path / "report.md"
    script = Path(_benchmark_evaluation.__file__)
    words = ["--images", "40", "80", "--rounds=1", f"--output={report}"]
    done = subprocess.run([sys.executable, "-P", script, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert report.read_text() == done.stdout
    assert "identical" in done.stdout
