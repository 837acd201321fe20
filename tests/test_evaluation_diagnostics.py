import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow.compute as pc
import pytest

from beam_jobs.evaluation.diagnostics import BEST_F1, DiagnosticsResult, diagnose
from beam_jobs.evaluation.matching import MatchSettings
from beam_jobs.evaluation.scores import CALIBRATION, BestF1Search
from beam_jobs.evaluation.settings import EvaluationSettings
from tests.evaluation_parts import Parts, whole
from tests.evaluation_problems import Problem, dataset_of, random_problem, result, truth
from tests.test_evaluation_matching import ADVERSARIAL, BOX, IOU_TYPES, batch_mode, strictness

HOTCOCO_KINDS = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
    "FP": "false_positives",
    "FN": "false_negatives",
}


def diagnosed(problem: Problem, matching: MatchSettings | None = None) -> DiagnosticsResult:
    return whole(problem, matching or strictness(problem))[1]


def agrees(problem: Problem, score: float) -> None:
    """Confusion, errors and calibration as in hotcoco, which sums in another order and so differs in last bits."""
    matching = replace(strictness(problem), confusion_score=score)
    ours, theirs = diagnosed(problem, matching), batch_mode(problem)
    least = matching.iou_threshold

    confusion = theirs.confusion_matrix(iou_thr=least, min_score=score)
    assert confusion["cat_ids"] == list(ours.category_ids)
    np.testing.assert_array_equal(ours.confusion, confusion["matrix"])

    errors = theirs.tide_errors(pos_thr=least, bg_thr=matching.background_iou)
    assert ours.errors.counts == {HOTCOCO_KINDS[kind]: count for kind, count in errors["counts"].items()}
    assert ours.errors.ap == pytest.approx(errors["ap_base"], abs=1e-12)
    gains = {HOTCOCO_KINDS[kind]: gain for kind, gain in errors["delta_ap"].items()}
    assert dict(ours.errors.delta_ap) == pytest.approx(gains, abs=1e-12)

    if ours.calibration is None:
        with pytest.raises(ValueError, match="calibration"):
            theirs.calibration(iou_threshold=least)
        return
    bins = theirs.calibration(iou_threshold=least)
    assert (ours.calibration.ece, ours.calibration.mce) == pytest.approx((bins["ece"], bins["mce"]), abs=1e-12)
    names = {category["id"]: category["name"] for category in problem.dataset["categories"]}
    assert {names[number]: error for number, error in ours.calibration.per_category.items()} == pytest.approx(
        bins["per_category"], abs=1e-12
    )
    for mine, other in zip(ours.calibration.bins.slice(0, 10).to_pylist(), bins["bins"], strict=True):
        assert (mine["category_id"], mine["detections"]) == (None, other["count"])
        edges = (mine["low"], mine["high"])
        assert edges == pytest.approx((other["bin_lower"], other["bin_upper"]))
        means = (mine["mean_score"] or 0.0, mine["precision"] or 0.0)
        assert means == pytest.approx((other["avg_confidence"], other["avg_accuracy"]))


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_numbers_are_those_of_hotcoco(iou_type):
    for seed in range(100, 160):
        agrees(random_problem(seed, iou_type), random.Random(seed).choice([-1e9, 0.0, 0.3]))


@pytest.mark.parametrize("name", sorted(set(ADVERSARIAL) - {"an unknown category wanted", "no images"}))
def test_difficult_numbers_are_those_of_hotcoco(name):
    agrees(ADVERSARIAL[name], -1e9)


def test_best_f1_is_the_best_of_all_thresholds():
    chance = np.random.default_rng(3)
    for _ in range(200):
        count = int(chance.integers(0, 12))
        score = np.sort(chance.choice([0.1, 0.2, 0.5, 0.7, 0.9, 1.0], count))[::-1]
        right = chance.random(count) < 0.5
        truths = int(right.sum() + chance.integers(0, 4)) or 1
        search = BestF1Search(truths)
        cuts = sorted(chance.integers(0, count + 1, 2).tolist())
        for start, stop in pairwise([0, *cuts, count]):
            search.add(score[start:stop], right[start:stop])
        best = search.best()
        every = {}
        for threshold in set(score.tolist()):
            kept = score >= threshold
            every[threshold] = 2 * right[kept].sum() / (kept.sum() + truths)
        assert best.f1 == pytest.approx(max(every.values(), default=0.0))
        if best.score is not None:
            assert best.score == max(at for at, value in every.items() if value == best.f1)
            kept = score >= best.score
            assert best.precision == pytest.approx(right[kept].mean())
            assert best.recall == pytest.approx(right[kept].sum() / truths)


def test_best_f1_is_near_that_of_hotcoco_and_never_less():
    """hotcoco's is of a precision at one of 101 recalls, which lies up to 0.01 below that of a real threshold."""
    compared = 0
    for seed in range(300, 380):
        problem = random_problem(seed, "bbox")
        scores = [one["score"] for one in problem.found]
        if len(set(scores)) < len(scores) or 0.5 not in problem.settings.iou_thresholds:
            continue
        theirs = batch_mode(problem)
        theirs.accumulate()
        if problem.settings.max_detections[-1] != 100 or strictness(problem).iou_threshold != 0.5:
            continue
        f1 = pc.mean(diagnosed(problem).best_f1["f1"]).as_py()
        if f1 is None:
            continue
        interpolated = theirs.f_scores()["F1_50"]
        assert interpolated - 1e-9 <= f1 <= interpolated + 0.02
        compared += 1
    assert compared > 10


def test_tables_have_their_schemas_and_name_what_is_missing():
    settings = EvaluationSettings.of("bbox", (1, 2, 3))
    truths = [truth(1, 1, 1, BOX), truth(2, 1, 2, [90, 90, 9, 9])]
    problem = Problem(settings, dataset_of([1], [1, 2, 3], truths), [result(1, n, 0.75, bbox=BOX) for n in (1, 3)])
    parts = Parts(problem, random.Random(0), matching=MatchSettings())
    ours = diagnose(parts.finish(), parts.confusion, {1: "one", 2: "two"})
    assert ours.best_f1.schema.equals(BEST_F1)
    assert ours.best_f1.to_pylist() == [
        {"category_id": 1, "category": "one", "truths": 1, "detections": 1,
         "f1": 1.0, "score": 0.75, "precision": 1.0, "recall": 1.0},
        {"category_id": 2, "category": "two", "truths": 1, "detections": 0,
         "f1": 0.0, "score": None, "precision": 0.0, "recall": 0.0},
        {"category_id": 3, "category": "3", "truths": 0, "detections": 1,
         "f1": None, "score": None, "precision": None, "recall": None},
    ]  # fmt: skip
    assert ours.calibration is not None
    assert ours.calibration.bins.schema.equals(CALIBRATION)
    assert ours.calibration.bins.num_rows == 30
    assert ours.confusion.tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]


def test_low_scores_stay_out_of_the_confusion_matrix():
    settings = EvaluationSettings.of("bbox", (1,))
    found = [result(1, 1, score, bbox=BOX) for score in (0.2, 0.25, 0.3)]
    ours = diagnosed(Problem(settings, dataset_of([1], [1], [truth(1, 1, 1, BOX)]), found), MatchSettings())
    assert ours.confusion.tolist() == [[1, 0], [1, 0]]


def test_scores_that_are_no_confidences_have_no_calibration():
    settings = EvaluationSettings.of("bbox", (1,))
    problem = Problem(settings, dataset_of([1], [1], [truth(1, 1, 1, BOX)]), [result(1, 1, 4.5, bbox=BOX)])
    assert diagnosed(problem).calibration is None


def test_between_two_truths_an_error_is_of_the_one_that_counts():
    settings = EvaluationSettings.of("bbox", (1,))
    aside = [truth(1, 1, 1, [0, 0, 20, 20], area=2e10), truth(2, 1, 1, [20, 0, 20, 20])]
    problem = Problem(settings, dataset_of([1], [1], aside), [result(1, 1, 0.5, bbox=[10, 0, 20, 20])])
    agrees(problem, 0.0)
    assert diagnosed(problem).errors.counts["missed"] == 0
