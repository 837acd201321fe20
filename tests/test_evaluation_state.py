import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from beam_jobs.evaluation import oracle
from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.state import EvaluationState, category_groups
from beam_jobs.formats.evaluated import RESULTS, TRUTH_IMAGES, TRUTH_OBJECTS
from tests.evaluation_problems import Problem, adversarial, dataset_of, plain, random_problem, result, truth

IOU_TYPES = ("bbox", "segm", "keypoints")
ADVERSARIAL = adversarial()


def rows_of(table: pa.Table, images: list[int]) -> pa.Table:
    return table.filter(pc.is_in(table["image_id"], pa.array(images, pa.int64())))


def packed(state: EvaluationState) -> EvaluationState:
    return EvaluationState.from_bytes(state.settings, state.to_bytes())


def sharded(problem: Problem, seed: int, settings: EvaluationSettings | None = None) -> EvaluationState:
    """Images in random order, a few at a time, into random shards, merged in a random tree, each through its bytes."""
    chance = random.Random(seed)
    settings = settings or problem.settings
    states = [EvaluationState.empty(settings) for _ in range(chance.randint(1, 5))]
    images, objects, results = problem.images, problem.objects, problem.results
    left = images["image_id"].to_pylist()
    chance.shuffle(left)
    while left:
        count = chance.randint(1, 3)
        some, left = left[:count], left[count:]
        chance.choice(states).update(*(rows_of(table, some) for table in (images, objects, results)))
    while len(states) > 1:
        chance.shuffle(states)
        count = chance.randint(2, len(states))
        states = [packed(EvaluationState.merge([packed(state) for state in states[:count]])), *states[count:]]
    return states[0]


def assert_same_bits(one: Accumulated, other: Accumulated, where: object) -> None:
    assert one.settings == other.settings
    for name in ("precision", "recall", "scores"):
        ours, theirs = getattr(one, name), getattr(other, name)
        assert ours.tobytes() == theirs.tobytes(), f"{where}: {name} differs in {(ours != theirs).sum()} places"


def check(problem: Problem, seed: int, where: object) -> None:
    expected = oracle.evaluate(problem.settings, problem.images, problem.objects, problem.results)
    assert_same_bits(sharded(problem, seed).accumulate(), expected, where)
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


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_categories_apart_equal_all_together(iou_type):
    for seed in range(20):
        problem = random_problem(seed, iou_type)
        counts = {one["category_id"]: 5 for one in problem.found}
        groups = category_groups(problem.settings, counts, random.Random(seed).choice([1, 5, 10, 1000]))
        parts = [sharded(problem, seed, group).accumulate() for group in groups]
        random.Random(seed).shuffle(parts)
        assert_same_bits(Accumulated.concat(parts), sharded(problem, seed).accumulate(), seed)


def test_groups_hold_at_most_what_they_may_and_a_large_category_alone():
    settings = EvaluationSettings.of("bbox", (1, 2, 3, 5, 8))
    groups = category_groups(settings, {1: 4, 2: 6, 3: 99, 8: 10}, 10)
    assert [group.category_ids for group in groups] == [(1, 2), (3,), (5, 8)]


def test_parts_that_do_not_go_together_are_refused():
    def part(settings):
        return EvaluationState.empty(settings).accumulate()

    one = EvaluationSettings.of("bbox", (1, 4))
    with pytest.raises(ValueError, match="each once"):
        Accumulated.concat([part(one), part(replace(one, category_ids=(2, 4)))])
    with pytest.raises(ValueError, match="settings differ"):
        Accumulated.concat([part(one), part(replace(one, category_ids=(2,), max_detections=(5,)))])
    with pytest.raises(ValueError, match="nothing"):
        Accumulated.concat([])


def test_the_same_images_give_the_same_bytes_however_they_came():
    problem = random_problem(28, "bbox")
    assert len({sharded(problem, seed).to_bytes() for seed in range(10)}) == 1


def test_an_empty_state_changes_nothing_and_merged_states_stay_usable():
    problem = random_problem(3, "bbox")
    state, empty = sharded(problem, 0), EvaluationState.empty(problem.settings)
    assert EvaluationState.merge([empty, state, empty]).to_bytes() == state.to_bytes()
    state.accumulate()
    with pytest.raises(RuntimeError):
        state.accumulate()


def test_a_category_without_truths_is_minus_one():
    problem = ADVERSARIAL["an unknown category wanted"]
    found = sharded(problem, 0).accumulate()
    assert (found.precision[:, :, 1] == -1).all()
    assert (found.precision[:, :, 0, 0] > 0).any()


def test_states_of_other_settings_are_refused():
    settings = EvaluationSettings.of("bbox", (1, 2))
    other = replace(settings, max_detections=(1, 10, 300))
    data = EvaluationState.empty(settings).to_bytes()
    with pytest.raises(ValueError, match="not a state of these settings"):
        EvaluationState.from_bytes(other, data)
    with pytest.raises(ValueError, match="damaged"):
        EvaluationState.from_bytes(settings, data[:-9])
    with pytest.raises(ValueError, match="damaged"):
        EvaluationState.from_bytes(settings, data[:16])
    with pytest.raises(ValueError, match="different settings"):
        EvaluationState.merge([EvaluationState.empty(settings), EvaluationState.empty(other)])
    with pytest.raises(ValueError, match="no states"):
        EvaluationState.merge([])


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
def test_what_the_rules_do_not_cover_is_refused_and_changes_nothing(iou_type, truths, found, message):
    problem = Problem(EvaluationSettings.of(iou_type, (1,)), dataset_of([1], [1], truths), found)
    state = EvaluationState.empty(problem.settings)
    with pytest.raises(ValueError, match=message):
        state.update(problem.images, problem.objects, problem.results)
    assert state.to_bytes() == EvaluationState.empty(problem.settings).to_bytes()


def test_polygons_in_an_image_of_unknown_size_are_refused():
    problem = ADVERSARIAL["masks given as boxes"]
    images = [{**image, "width": 0} for image in problem.dataset["images"]]
    problem = replace(problem, dataset={**problem.dataset, "images": images})
    with pytest.raises(ValueError, match="width"):
        sharded(problem, 0)
    with pytest.raises(ValueError, match="width"):
        oracle.evaluate(problem.settings, problem.images, problem.objects, problem.results)


@pytest.mark.parametrize("number", [-1, 2**53])
def test_image_ids_that_are_not_exact_as_doubles_are_refused(number):
    problem = Problem(EvaluationSettings.of("bbox", (1,)), dataset_of([number], [1], []), [])
    with pytest.raises(ValueError, match=r"in \[0, 2\*\*53\)"):
        EvaluationState.empty(problem.settings).update(problem.images, problem.objects, problem.results)


@pytest.mark.parametrize(
    ("classes", "an_image", "images", "small_ids"),
    [(5, 66, 300, True), (40, 100, 200, True), (40, 40, 300, True), (1, 1, 4000, True), (1, 1, 4000, False)],
    ids=["66 of 5 classes", "100 of 40 classes", "one a class", "one an image", "one an image, hashed ids"],
)
def test_a_detection_takes_at_most_64_bytes(classes, an_image, images, small_ids):
    chance = np.random.default_rng(1)
    state = EvaluationState.empty(EvaluationSettings.of("bbox", tuple(range(1, 81))))
    rows = images * an_image
    if small_ids:
        ids = np.arange(images) + 100_000
    else:
        ids = np.unique(chance.integers(0, 2**53, images))
    of = np.repeat(ids, an_image)
    boxes = np.column_stack([chance.uniform(0, 400, (rows, 2)), chance.uniform(5, 90, (rows, 2))])
    # Scores of a network: float32, no two alike.
    scores = chance.random(rows, np.float32).astype(np.float64)
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
    state.update(pictures, pa.table(columns, names=TRUTH_OBJECTS.names).cast(TRUTH_OBJECTS), results)
    each = len(state.to_bytes()) / rows
    assert each <= 64, each


def test_threads_can_be_limited_until_the_first_update():
    program = (
        "import os\n"
        "from beam_jobs.evaluation.state import limit_threads\n"
        "from tests.evaluation_problems import random_problem\n"
        "from beam_jobs.evaluation.state import EvaluationState\n"
        "limit_threads(3)\n"
        "problem = random_problem(0, 'bbox')\n"
        "state = EvaluationState.empty(problem.settings)\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "state.update(problem.images, problem.objects, problem.results)\n"
        "state.accumulate()\n"
        "print(len(os.listdir('/proc/self/task')) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "3\n"
