import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from beam_jobs.cli import flags
from beam_jobs.cli.main import BAD_USAGE, main
from beam_jobs.cli.progress import counting
from beam_jobs.errors import JobError, UsageError
from beam_jobs.evaluation import metrics, oracle
from beam_jobs.evaluation.bootstrap import Pair, compare, count_images, percentile_interval, resamples
from beam_jobs.evaluation.matching import FOUND, MISSED, TRUE_POSITIVE, match_batch
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.threshold_matches import match_thresholds
from beam_jobs.evaluation.weighted import Numbers, WeightedEvaluation
from beam_jobs.processes.resampling import over_processes
from tests.evaluation_problems import Problem, dataset_of, random_problem, result, truth

Row = dict[str, Any]

IOU_TYPES = ("bbox", "segm", "keypoints")


def evaluation(problem: Problem) -> WeightedEvaluation:
    matches = match_thresholds(problem.images, problem.objects, problem.results, problem.settings)
    return WeightedEvaluation(problem.settings, matches, problem.images.num_rows)


def expected(problem: Problem) -> Numbers:
    accumulated = oracle.evaluate(problem.settings, problem.images, problem.objects, problem.results)
    summary = np.array(list(metrics.summary(accumulated).values()))
    names = dict.fromkeys(problem.settings.category_ids, "")
    by_class = metrics.per_category(accumulated, names, {}, {})["AP"].to_numpy()
    return Numbers(*(np.where(values == -1, np.nan, values) for values in (summary, by_class)))


def with_distinct_scores(problem: Problem) -> Problem:
    """The order of ties among copies of an image is not the one that a weight means."""
    chance = np.random.default_rng(len(problem.found))
    scores = chance.permutation(len(problem.found)) / (len(problem.found) + 1)
    found = [{**row, "score": float(score)} for row, score in zip(problem.found, scores, strict=True)]
    return Problem(problem.settings, problem.dataset, found)


def duplicated(problem: Problem, weights: np.ndarray) -> Problem:
    """Copies of each image, as many as it weighs, with ids of their own."""
    images: list[Row] = []
    truths: list[Row] = []
    found: list[Row] = []
    for image, weight in zip(problem.dataset["images"], weights.tolist(), strict=True):
        for _ in range(weight):
            number = len(images) + 1
            images.append({**image, "id": number})
            for row in problem.dataset["annotations"]:
                if row["image_id"] == image["id"]:
                    truths.append({**row, "image_id": number, "id": len(truths) + 1})
            found += [{**row, "image_id": number} for row in problem.found if row["image_id"] == image["id"]]
    return Problem(problem.settings, {**problem.dataset, "images": images, "annotations": truths}, found)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("seed", range(25))
def test_weights_of_one_give_cocos_numbers(iou_type, seed):
    problem = random_problem(seed, iou_type)
    numbers, wanted = evaluation(problem).numbers(np.ones(problem.images.num_rows, np.int64)), expected(problem)
    np.testing.assert_array_equal(numbers.metrics, wanted.metrics)
    np.testing.assert_array_equal(numbers.category_ap, wanted.category_ap)


@pytest.mark.parametrize("iou_type", IOU_TYPES)
@pytest.mark.parametrize("seed", range(15))
def test_a_weight_is_as_many_copies_of_the_image(iou_type, seed):
    problem = with_distinct_scores(random_problem(seed, iou_type))
    weights = np.random.default_rng(seed).integers(0, 4, problem.images.num_rows)
    weights[0] += not weights.any()
    numbers, wanted = evaluation(problem).numbers(weights), expected(duplicated(problem, weights))
    np.testing.assert_allclose(numbers.metrics, wanted.metrics, rtol=0, atol=1e-12)
    np.testing.assert_allclose(numbers.category_ap, wanted.category_ap, rtol=0, atol=1e-12)


def test_no_weight_at_all_gives_no_numbers():
    numbers = evaluation(random_problem(3, "bbox")).numbers(np.zeros(random_problem(3, "bbox").images.num_rows, int))
    assert np.isnan(numbers.metrics).all()
    assert np.isnan(numbers.category_ap).all()


@pytest.mark.parametrize("seed", range(10))
def test_counts_of_images_are_those_of_the_matches(seed):
    problem = random_problem(seed, "bbox")
    settings = EvaluationSettings.of("bbox", problem.settings.category_ids)
    tables = problem.images, problem.objects, problem.results
    counts = count_images(
        match_thresholds(*tables, settings), settings, problem.images.num_rows, iou_threshold=0.5, min_score=-1e308
    )
    matches = match_batch(*tables, settings)
    right = Counter(matches.found.image_id[matches.outcome == TRUE_POSITIVE].tolist())
    missed = Counter(matches.truths.image_id[matches.truth_outcome == MISSED].tolist())
    found = Counter(matches.truths.image_id[matches.truth_outcome == FOUND].tolist())
    wrong = Counter(matches.found.image_id[matches.outcome == TRUE_POSITIVE + 1].tolist())
    assert right == found
    ids = problem.images["image_id"].to_pylist()
    for mine, theirs in ((counts.right, right), (counts.wrong, wrong), (counts.missed, missed)):
        assert mine.tolist() == [theirs[number] for number in ids]
    assert ((counts.f1 >= 0) & (counts.f1 <= 1)).all()


def test_resamples_follow_the_seed_and_keep_the_number_of_images():
    once, again, other = (np.array(list(resamples(7, 20, seed))) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    assert (once.sum(axis=1) == 7).all()


def test_interval_of_a_number_that_not_all_samples_have():
    values = np.array([[0.0, np.nan, np.nan], [1.0, 3.0, np.nan], [2.0, np.nan, np.nan]])
    low, high = percentile_interval(values, 0.5)
    np.testing.assert_array_equal(low, [0.5, 3.0, np.nan])
    np.testing.assert_array_equal(high, [1.5, 3.0, np.nan])


def two_sides(images: int = 40) -> tuple[Row, list[Row], list[Row]]:
    """A ground truth of two classes, results A with some faults, and results B without most of them."""
    chance = np.random.default_rng(0)
    truths: list[Row] = []
    poor: list[Row] = []
    good: list[Row] = []
    for image in range(1, images + 1):
        for at in range(4):
            box = [10.0 + 45 * at, 20.0, 35.0, 60.0]
            category = 1 + (image + at) % 2
            truths.append(truth(len(truths) + 1, image, category, box))
            near = [box[0] + 1, *box[1:]]
            for found, share in ((poor, 0.5), (good, 0.9)):
                seen = chance.random() < share
                shown = near if seen else [box[0], 85.0, 30.0, 30.0]
                found.append(result(image, category, round(0.35 + 0.6 * chance.random(), 3), bbox=shown))
    return dataset_of(range(1, images + 1), [1, 2], truths), poor, good


def problems() -> tuple[Problem, Problem]:
    dataset, poor, good = two_sides()
    settings = EvaluationSettings.of("bbox", (1, 2))
    return Problem(settings, dataset, poor), Problem(settings, dataset, good)


def test_itself_does_not_differ():
    side = evaluation(problems()[0])
    comparison = compare(Pair(side, side), samples=30, seed=0, confidence=0.95)
    for interval in (comparison.metrics, comparison.categories):
        known = ~np.isnan(interval.a)
        for values in (interval.difference, interval.low, interval.high):
            assert (values[known] == 0).all()
            assert np.isnan(values[~known]).all()


def test_better_is_better_beyond_chance_and_worse_the_other_way_round():
    poor, good = map(evaluation, problems())
    up = compare(Pair(poor, good), samples=100, seed=0, confidence=0.95)
    down = compare(Pair(good, poor), samples=100, seed=0, confidence=0.95)
    assert up.metrics.low[0] > 0.1
    assert (up.categories.low > 0).all()
    assert up.metrics.low[0] < up.metrics.difference[0] < up.metrics.high[0]
    np.testing.assert_allclose(down.metrics.high, -up.metrics.low, atol=1e-12)
    again = compare(Pair(poor, good), samples=100, seed=0, confidence=0.95)
    np.testing.assert_array_equal(again.metrics.low, up.metrics.low)
    wider = compare(Pair(poor, good), samples=100, seed=0, confidence=0.99)
    assert wider.metrics.low[0] <= up.metrics.low[0]


def test_progress_is_shown_on_a_terminal_only(monkeypatch, capsys):
    for terminal in (True, False):
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr("sys.stderr.isatty", lambda shown=terminal: shown)
        clock = iter([0.0, 0.0, 1.0, 1.1, 3.0])
        with counting("samples", 1000, lambda: next(clock)) as done:  # noqa: B023
            for _ in range(3):
                done(100)
        shown = capsys.readouterr().err.split("\r\033[K")
        assert shown[1:] == (
            ["0 of 1,000 samples", "100 of 1,000 samples, 9 s left", "300 of 1,000 samples, 7 s left", ""]
            if terminal
            else []
        )


def test_the_number_of_processes_changes_nothing():
    pair = Pair(*map(evaluation, problems()))
    told: list[int] = []
    one, two = (
        compare(pair, samples=25, seed=3, confidence=0.9, over=over_processes(processes, told.append))
        for processes in (1, 2)
    )
    assert told == [10, 10, 5] * 2
    for mine, theirs in ((one.metrics, two.metrics), (one.categories, two.categories)):
        np.testing.assert_array_equal(mine.low, theirs.low)
        np.testing.assert_array_equal(mine.high, theirs.high)
    known = ~np.isnan(one.metrics.low)
    assert (one.metrics.low[known] < one.metrics.high[known]).any()


class Deadly(WeightedEvaluation):
    """Kills the process that takes its numbers, but for the one that made it."""

    def __init__(self, side: WeightedEvaluation) -> None:
        self.__dict__ |= vars(side)
        self.home = os.getpid()

    def numbers(self, weights):
        if os.getpid() != self.home:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().numbers(weights)


def test_a_process_that_dies_is_said_to_have():
    side = evaluation(problems()[0])
    with pytest.raises(JobError, match="One of 2 processes that took samples died"):
        compare(Pair(side, Deadly(side)), samples=5, seed=0, confidence=0.9, over=over_processes(2, lambda _: None))


def test_what_cannot_be_compared_is_refused():
    side = evaluation(problems()[0])
    other = evaluation(random_problem(1, "bbox"))
    with pytest.raises(ValueError, match="different images or settings"):
        Pair(side, other)
    with pytest.raises(ValueError, match="confidence"):
        compare(Pair(side, side), samples=1, seed=0, confidence=1.0)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    dataset, poor, good = two_sides()
    dataset["categories"][0]["name"] = "<script>alert(1)</script>"
    dataset["images"][4]["file_name"] = '"><img src=x>.jpg'
    # One side lacks an image, and has one of another set.
    good = [row for row in good if row["image_id"] != 7] + [result(999, 1, 0.5, bbox=[0, 0, 5, 5])]
    written = {}
    for name, value in (("truth", dataset), ("a", poor), ("b", good)):
        written[name] = str(tmp_path / f"{name}.json")
        Path(written[name]).write_text(json.dumps(value))
    return written


def command(files: dict[str, str], output: Path, *more: str) -> list[str]:
    words = ["compare", files["a"], files["b"], "--ground_truth", files["truth"], "--output", str(output)]
    return [*words, "--samples", "50", *more]


def test_command(files, tmp_path, capsys):
    output = tmp_path / "comparison"
    assert main(command(files, output)) == 0
    shown = capsys.readouterr().out
    assert "warning: 1 image is in A only: for B their truths count as missed" in shown
    assert "1 image of B is not in the ground truth: image_id 999" in shown
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("  A")][:3] == ["AP", "AP50", "AP75"]
    assert "50 paired bootstrap samples of the 40 images, seed 0" in shown
    assert "classes that gained most AP" in shown
    assert "images that lost most, F1 at IoU ≥ 0.5 and score ≥ 0.3:" in shown

    numbers = json.loads((output / "compare.json").read_text())
    assert [row["name"] for row in numbers["metrics"]][:4] == ["AP", "AP50", "AP75", "APsmall"]
    ap = numbers["metrics"][0]
    assert ap["difference"] == ap["b"] - ap["a"] > 0
    assert 0 < ap["low"] < ap["difference"] < ap["high"]
    assert numbers["metrics"][5]["a"] is None  # there are no large truths
    assert [row["category_id"] for row in numbers["categories"]] == [1, 2]
    assert numbers["counts"]["images_of_a_only"] == 1
    assert numbers["counts"]["unknown_images_b"] == 1

    images = pq.read_table(output / "compare_images.parquet").to_pylist()
    assert [row["image_id"] for row in images] == list(range(1, 41))
    lost = images[6]
    assert (lost["seen_a"], lost["seen_b"], lost["f1_b"], lost["missed_b"]) == (True, False, 0.0, 4)
    assert all(row["truths"] == row["right_a"] + row["missed_a"] == 4 for row in images)
    changes = {row["image_id"]: row["difference"] for row in images}
    listed = [row["difference"] for row in numbers["images"]]
    assert max(changes.values()) == listed[0]
    assert changes[7] in listed

    page = (output / "compare.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert(1)</script>" not in page
    assert '"><img src=x>' not in page


def test_command_gives_the_same_bytes_again_and_only_when_told(files, tmp_path, capsys):
    output = tmp_path / "comparison"
    names = ("compare.json", "compare_images.parquet", "compare.html")
    assert main(command(files, output)) == 0
    first = [(output / name).read_bytes() for name in names]
    assert main(command(files, output)) == BAD_USAGE
    assert "holds a comparison: name another folder, or give --overwrite" in capsys.readouterr().err
    (output / "compare.json").unlink()
    assert main(command(files, output)) == BAD_USAGE
    assert "holds an unfinished comparison: name another folder, or give --overwrite" in capsys.readouterr().err
    assert main(command(files, output, "--overwrite")) == 0
    assert [(output / name).read_bytes() for name in names] == first
    (output / "mine.txt").write_text("kept")
    assert main(command(files, output, "--overwrite")) == BAD_USAGE
    assert "what it holds is no comparison" in capsys.readouterr().err
    assert sorted(path.name for path in output.iterdir()) == sorted([*names, "mine.txt"])


def test_flags_from_a_file(files, tmp_path):
    (tmp_path / "compare.toml").write_text(
        f'ground_truth = "{files["truth"]}"\ncategories = ["class 2"]\nsamples = 7\nseed = 5\noverwrite = true\n'
    )
    words = ["compare", files["a"], files["b"], "--config", str(tmp_path / "compare.toml"), "--seed", "6"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    numbers = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert (numbers["samples"], numbers["seed"]) == (7, 6)
    assert [row["name"] for row in numbers["categories"]] == ["class 2"]
    assert main([*words, "--output", str(tmp_path / "out"), "--no_overwrite"]) == BAD_USAGE


def test_ctrl_c_ends_it_with_its_processes(files, tmp_path):
    words = command(files, tmp_path / "out", "--samples", "10000000", "--workers", "2")
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "beam_jobs", *words], stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as program:
        for _ in range(600):
            if len(workers := spawned(program.pid)) == 2:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        os.killpg(program.pid, signal.SIGINT)  # as a terminal does: to all of them
        assert program.stderr is not None
        assert program.stderr.read() == "beam-detect: stopped by SIGINT.\n"
        assert program.wait() == 130
    assert len(workers) == 2
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert not list((tmp_path / "out").iterdir())


def spawned(pid: int) -> list[int]:
    """The processes that a process has started to take samples."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in children if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]


def test_one_class_only(files, tmp_path):
    assert main(command(files, tmp_path / "out", "--categories", "class 2")) == 0
    numbers = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert [row["name"] for row in numbers["categories"]] == ["class 2"]
    assert numbers["metrics"][0]["a"] == pytest.approx(numbers["categories"][0]["a"])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", "-1"], "--seed -1: give 0 or more"),
        (["--confidence", "1"], "--confidence 1: give a number between"),
        (["--categories", "cat"], "no class cat"),
        (["stray.json"], "stray.json: what is this for? `compare` takes two sources"),
        (["--sample", "3"], "There is no flag --sample. Did you mean --samples?"),
        (["--iou_type", "keypoints"], "truth.json has no keypoints, which --iou_type keypoints compares"),
        (["--images", "nowhere"], "--images nowhere is not a folder"),
        (["--output", "/proc/out"], "--output /proc/out cannot be made"),
    ],
)
def test_bad_usage(files, tmp_path, capsys, more, message):
    assert main(command(files, tmp_path / "out", *more)) == BAD_USAGE
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_sources_that_do_not_fit_the_truth(files, tmp_path, capsys):
    other = tmp_path / "other.json"
    for row, message in (
        (result(12345, 1, 0.5, bbox=[0, 0, 5, 5]), "none of its images is in"),
        (result(1, 77, 0.5, bbox=[0, 0, 5, 5]), "have no class in common"),
    ):
        other.write_text(json.dumps([row]))
        assert main(command({**files, "b": str(other)}, tmp_path / "out")) == BAD_USAGE
        error = capsys.readouterr().err
        assert f"B ({other})" in error
        assert message in error


def test_what_is_required_is_asked_for(capsys):
    with pytest.raises(UsageError, match="--ground_truth SOURCE is missing"):
        flags.parse(["compare", "a", "b", "--output", "out"])
    with pytest.raises(UsageError, match="--output DIR is missing"):
        flags.parse(["compare", "a", "b", "--ground_truth", "truth"])
    with pytest.raises(SystemExit):
        flags.parse(["compare", "a", "--ground_truth", "truth", "--output", "out"])
    assert "required: B" in capsys.readouterr().err
    options, beam = flags.parse(["compare", "a", "--ground_truth", "t", "b", "--output", "o", "--region", "eu"])
    assert (options.detections_a, options.detections_b, beam) == ("a", "b", ["--region", "eu"])
