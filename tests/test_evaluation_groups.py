import random
import subprocess
import sys
import tempfile
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pytest

from beam_jobs.evaluation import oracle
from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.groups import IMAGES_A_GROUP, group_settings, number_of_groups
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.sorting import RowSorter
from beam_jobs.evaluation.work import score_images
from beam_jobs.formats.evaluated import RESULTS, TRUTH_IMAGES, TRUTH_OBJECTS
from tests.evaluation_parts import Parts, whole
from tests.evaluation_problems import Problem, adversarial, dataset_of, plain, random_problem, result, truth

IOU_TYPES = ("bbox", "segm", "keypoints")
ADVERSARIAL = adversarial()


def assert_same_bits(one: Accumulated, other: Accumulated, where: object) -> None:
    assert one.settings == other.settings
    for name in ("precision", "recall", "scores"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert ours.tobytes() == theirs.tobytes(), f"{where}: {name} differs in {(ours != theirs).sum()} places"


def assert_same_numbers(one: Finished, other: Finished, where: object) -> None:
    """All numbers by category, those of the diagnostics too."""
    for name in (field.name for field in fields(Finished) if field.name != "settings"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), f"{where}: {name} differs"


def check(problem: Problem, seed: int, where: object) -> None:
    """In one part and in many with a few rows at once: pycocotools' numbers, and the same diagnostics."""
    expected = oracle.evaluate(problem.settings, problem.images, problem.objects, problem.results)
    together, diagnosed = whole(problem)
    assert_same_bits(together.accumulated(), expected, where)
    chance = random.Random(seed)
    parts = Parts(problem, chance, shards=chance.randint(1, 5))
    groups = chance.randint(1, len(problem.settings.category_ids))
    split = parts.finish(groups, at_once=chance.choice([1, 2, 5, 200]))
    assert_same_numbers(split, together, where)
    again = parts.diagnose(split)
    np.testing.assert_array_equal(again.confusion, diagnosed.confusion)
    assert again.best_f1.equals(diagnosed.best_f1)
    assert again.errors == diagnosed.errors
    assert (again.calibration is None) == (diagnosed.calibration is None)
    if again.calibration and diagnosed.calibration:
        assert again.calibration.bins.equals(diagnosed.calibration.bins)
        assert again.calibration.per_category == diagnosed.calibration.per_category
        assert (again.calibration.ece, again.calibration.mce) == (diagnosed.calibration.ece, diagnosed.calibration.mce)
    if problem.ordinary:
        arrays = plain(problem).eval
        original = Accumulated(problem.settings, arrays["precision"], arrays["recall"], arrays["scores"])
        assert_same_bits(expected, original, where)


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_random_problems_equal_pycocotools(iou_type, part):
    for seed in range(part * 30, part * 30 + 30):
        check(random_problem(seed, iou_type), seed, seed)


@pytest.mark.slow
@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_thousands_of_random_problems_equal_pycocotools(iou_type):
    for seed in range(1000, 2000):
        check(random_problem(seed, iou_type, most_images=9), seed, seed)


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_problems_equal_pycocotools(name):
    for seed in range(3):
        check(ADVERSARIAL[name], seed, name)


def test_a_category_without_truths_is_minus_one():
    found = whole(ADVERSARIAL["an unknown category wanted"])[0].accumulated()
    assert (found.precision[:, :, 1] == -1).all()
    assert (found.precision[:, :, 0, 0] > 0).any()


def test_up_to_a_size_there_is_one_group_and_at_most_one_a_category():
    settings = EvaluationSettings.of("bbox", (1, 2, 3, 5, 8))
    numbers = [number_of_groups(settings, images) for images in (0, 1, IMAGES_A_GROUP, IMAGES_A_GROUP + 1, 10**7)]
    assert numbers == [1, 1, 1, 2, 5]
    assert [group_settings(settings, group, 2).category_ids for group in range(2)] == [(1, 3, 8), (2, 5)]


def test_groups_that_are_not_all_categories_are_refused():
    problem = random_problem(3, "bbox")
    finished = whole(problem)[0]
    with pytest.raises(ValueError, match="expected the categories"):
        Finished.concat(problem.settings, [finished, finished])


def test_rows_are_sorted_whatever_is_held_at_once():
    chance = np.random.default_rng(0)
    kind = np.dtype([("key", "<i4"), ("part", "<i4"), ("place", "<i4")])
    for at_once in (1, 3, 150, 500, 10**6):
        rows = np.zeros(600, kind)
        rows["key"] = chance.integers(0, 40, len(rows))
        rows["part"] = np.sort(chance.integers(0, 30, len(rows)))
        rows = rows[np.lexsort((rows["key"], rows["part"]))]
        rows["place"] = np.arange(len(rows))
        with tempfile.TemporaryFile(buffering=0) as file:
            sorter = RowSorter(file, kind, lambda some: (some["key"], some["part"]), at_once)
            for part in chance.permutation(30).tolist():
                sorter.add(rows[rows["part"] == part])
            ordered = list(sorter.sorted())
        np.testing.assert_array_equal(np.concatenate(ordered), rows[np.argsort(rows["key"], kind="stable")])
        if at_once < 150:
            assert max(map(len, ordered)) < 60


BOX = [1.0, 2.0, 30.0, 40.0]
POSE = [0.0] * 51


@pytest.mark.parametrize(
    ("iou_type", "truths", "found", "message"),
    [
        ("bbox", [], [result(1, 1, float("nan"), bbox=BOX)], "NaN"),
        ("bbox", [], [result(2, 1, 0.5, bbox=BOX)], "results of image 2, which is not"),
        ("bbox", [truth(1, 7, 1, BOX)], [], "truths of image 7, which is not"),
        ("segm", [truth(5, 1, 1, BOX)], [], "truth 5 has no segmentation"),
        ("segm", [], [result(1, 1, 0.5)], "neither segmentation nor bbox"),
        ("keypoints", [], [result(1, 1, 0.5, keypoints=POSE[:15])], "has 15 numbers as keypoints, not 51"),
        ("keypoints", [], [result(1, 1, 0.5)], "has no numbers as keypoints"),
        ("keypoints", [truth(5, 1, 1, BOX, keypoints=POSE[:3])], [], "truth 5 has 3 numbers"),
        (
            "keypoints",
            [],
            [result(1, 1, 0.5, keypoints=POSE, bbox=BOX), result(1, 1, 0.5, keypoints=POSE)],
            "some results have a box and some have none",
        ),
    ],
)
@pytest.mark.parametrize("engine", ["ours", "pycocotools"])
def test_what_the_rules_do_not_cover_is_refused(iou_type, truths, found, message, engine):
    problem = Problem(EvaluationSettings.of(iou_type, (1,)), dataset_of([1], [1], truths), found)
    tables = (problem.images, problem.objects, problem.results)
    with pytest.raises(ValueError, match=message):
        oracle.evaluate(problem.settings, *tables) if engine == "pycocotools" else score_images(
            0, *tables, problem.settings
        )


def test_polygons_in_an_image_of_unknown_size_are_refused():
    problem = ADVERSARIAL["masks given as boxes"]
    images = [{**image, "width": 0} for image in problem.dataset["images"]]
    problem = replace(problem, dataset={**problem.dataset, "images": images})
    with pytest.raises(ValueError, match="width"):
        whole(problem)
    with pytest.raises(ValueError, match="width"):
        oracle.evaluate(problem.settings, problem.images, problem.objects, problem.results)


@pytest.mark.parametrize(
    ("classes", "an_image", "images"),
    [(5, 66, 300), (40, 100, 200), (40, 40, 300), (1, 1, 4000)],
    ids=["66 of 5 classes", "100 of 40 classes", "one a class", "one an image"],
)
@pytest.mark.parametrize("groups", [1, 80])
def test_a_detection_takes_at_most_64_bytes(classes, an_image, images, groups):
    chance = np.random.default_rng(1)
    rows = images * an_image
    ids = np.unique(chance.integers(0, 2**53, images))
    of = np.repeat(ids, an_image)
    boxes = np.column_stack([chance.uniform(0, 400, (rows, 2)), chance.uniform(5, 90, (rows, 2))])
    # Scores that cannot be packed: float64, no two alike.
    scores = chance.random(rows)
    categories = np.concatenate([chance.permutation(80)[np.arange(an_image) % classes] + 1 for _ in range(images)])
    numbers = np.tile(np.arange(an_image), images)
    none = pa.nulls(rows)
    results = pa.table([of, numbers, categories, *boxes.T, scores, none, none], names=RESULTS.names).cast(RESULTS)
    size = np.full(images, 500)
    names = pa.array([""] * images)
    pictures = pa.table([ids, names, size, size], names=TRUTH_IMAGES.names).cast(TRUTH_IMAGES)
    # Up to seven truths an image, at some distance of a detection: all kinds of matches.
    first = np.flatnonzero(numbers < 7)
    near = boxes[first] + chance.normal(0, 6, (len(first), 4))
    near[:, 2:] = near[:, 2:].clip(1)
    zero, nothing = np.zeros(len(first), np.int64), pa.nulls(len(first))
    areas, crowd = near[:, 2] * near[:, 3], pa.array(zero == 1)
    columns = [of[first], first, categories[first], *near.T, areas, crowd, nothing, nothing, zero]
    truths = pa.table(columns, names=TRUTH_OBJECTS.names).cast(TRUTH_OBJECTS)
    settings = EvaluationSettings.of("bbox", tuple(range(1, 81)))
    scored = score_images(0, pictures, truths, results, settings)[1]
    each = sum(len(part.to_bytes()) for part in scored.split(groups)) / rows
    assert each <= 64, each


@pytest.mark.slow
def test_memory_does_not_grow_with_a_hot_category():
    """Eight times the detections take no more memory; their rows alone would be 196 MB more."""

    def peak(shards: int) -> int:
        program = f"from tests.evaluation_parts import *; print(finish_hot_category({shards}, 50_000, 1 << 18))"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return int(done.stdout)

    few, many = peak(20), peak(160)
    assert many - few < 40_000_000, (few, many)
    assert many < 250_000_000, many
