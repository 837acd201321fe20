import contextlib
import io
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from beam_jobs.evaluation import oracle
from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.metrics import curves, metrics_of, per_category, print_table, summary
from beam_jobs.evaluation.settings import RECALL_THRESHOLDS, AreaRange, EvaluationSettings
from beam_jobs.evaluation.state import EvaluationState
from beam_jobs.formats.evaluated import IouType
from tests.evaluation_problems import Problem, adversarial, plain, random_problem

COCO_NAMES = ["AP", "AP50", "AP75", "APsmall", "APmedium", "APlarge"]
COCO_NAMES += ["AR1", "AR10", "AR100", "ARsmall", "ARmedium", "ARlarge"]
KEYPOINT_NAMES = ["AP", "AP50", "AP75", "APmedium", "APlarge", "AR", "AR50", "AR75", "ARmedium", "ARlarge"]


def accumulated(problem: Problem) -> Accumulated:
    state = EvaluationState.empty(problem.settings)
    state.update(problem.images, problem.objects, problem.results)
    return state.accumulate()


def of_coco(problem: Problem) -> Problem:
    """The problem with COCO's own settings."""
    settings = EvaluationSettings.of(problem.settings.iou_type, problem.settings.category_ids)
    return replace(problem, settings=settings)


def ordinary(iou_type: IouType, count: int) -> list[Problem]:
    return [p for seed in range(count) if (p := random_problem(seed, iou_type)).ordinary]


def summarized(problem: Problem) -> tuple[list[float], str]:
    """The numbers of pycocotools and what it prints of them."""
    evaluation, printed = plain(problem), io.StringIO()
    with contextlib.redirect_stdout(printed):
        evaluation.summarize()
    return evaluation.stats.tolist(), printed.getvalue()


@pytest.mark.parametrize(("iou_type", "names"), [("bbox", COCO_NAMES), ("keypoints", KEYPOINT_NAMES)])
def test_the_numbers_and_the_printed_table_are_those_of_pycocotools(iou_type, names):
    for problem in map(of_coco, ordinary(iou_type, 40)):
        numbers, printed = summarized(problem)
        found = accumulated(problem)
        assert summary(found) == dict(zip(names, numbers, strict=True))
        assert list(summary(found)) == names
        assert print_table(found) == printed


def test_the_oracle_gives_the_same_numbers_for_masks():
    for problem in map(of_coco, ordinary("segm", 20)):
        numbers, _ = summarized(problem)
        tables = (problem.images, problem.objects, problem.results)
        assert list(summary(oracle.evaluate(problem.settings, *tables)).values()) == numbers
        assert list(summary(accumulated(problem)).values()) == numbers


def test_settings_of_ones_own_keep_what_pycocotools_has_of_them():
    own: dict[str, Any] = {
        "iou_thresholds": (0.5, 0.6, 0.625),
        "max_detections": (1, 3, 100),
        "area_ranges": (AreaRange("all", 0, 1e10), AreaRange("small", 0, 900), AreaRange("huge", 900, 1e10)),
    }
    for problem in ordinary("bbox", 30):
        problem = replace(problem, settings=EvaluationSettings.of("bbox", problem.settings.category_ids, **own))
        numbers, printed = summarized(problem)
        found = accumulated(problem)
        names = [{"AR10": "AR3"}.get(name, name) for name in COCO_NAMES]
        ours = summary(found)
        assert [ours[name] for name in names] == numbers
        assert (ours["AP75"], ours["APmedium"], ours["ARlarge"]) == (-1, -1, -1)
        assert set(ours) - set(names) == {"AP60", "AP62.5", "APhuge", "ARhuge"}
        assert set(printed.splitlines()) <= set(print_table(found).splitlines())
        # Our own are means of the same kind.
        slot = found.precision[1, :, :, 0, -1]
        assert ours["AP60"] == (slot[slot > -1].mean() if (slot > -1).any() else -1)


def test_names_say_what_is_measured():
    def names(iou_type, **own):
        return [metric.name for metric in metrics_of(EvaluationSettings.of(iou_type, (1,), **own))]

    assert names("bbox", max_detections=(1, 10, 300))[6:9] == ["AR1", "AR10", "AR300"]
    assert names("bbox", iou_thresholds=(0.3, 0.5, 1.0))[:5] == ["AP", "AP30", "AP50", "AP75", "AP100"]
    assert names("keypoints", max_detections=(5, 20))[5:8] == ["AR5", "AR", "AR50"]


def test_ap_is_that_of_the_largest_number_of_detections():
    problem = adversarial()["300 tied results, all counted"]
    found = accumulated(problem)
    few = accumulated(replace(problem, settings=replace(problem.settings, max_detections=(100,))))
    assert summary(found)["AP"] == found.precision[:, :, 0, 0, -1].mean()
    assert summary(found)["AP50"] >= summary(few)["AP50"]


def test_a_category_has_the_numbers_of_itself_alone():
    problem = of_coco(max(ordinary("bbox", 30), key=lambda one: len(one.settings.category_ids)))
    ids = problem.settings.category_ids
    table = per_category(accumulated(problem), dict.fromkeys(ids, "thing"), {ids[0]: 7}, {ids[1]: 9})
    assert table.column_names == ["category_id", "category", *COCO_NAMES, "num_truths", "num_detections"]
    assert [(row["num_truths"], row["num_detections"]) for row in table.to_pylist()[:2]] == [(7, 0), (0, 9)]
    for row in table.to_pylist():
        alone = replace(problem, settings=replace(problem.settings, category_ids=(row["category_id"],)))
        assert {name: row[name] for name in COCO_NAMES} == summary(accumulated(alone))
        assert row["category"] == "thing"


def test_curves_are_the_arrays_of_ap_row_by_row():
    problem = of_coco(next(one for one in ordinary("bbox", 30) if len(one.settings.category_ids) > 2))
    # A category that the truth does not have: no rows.
    settings = replace(problem.settings, category_ids=(*problem.settings.category_ids, 2**31 - 1))
    if len(set(settings.category_ids)) < len(settings.category_ids):
        settings = problem.settings
    found = accumulated(replace(problem, settings=settings))
    names = {number: f"class {number}" for number in settings.category_ids}
    table = curves(found, names)
    with_truths = [k for k in range(len(settings.category_ids)) if found.precision[0, 0, k, 0, -1] > -1]
    assert table.num_rows == len(with_truths) * 10 * 101
    assert set(table["area"].to_pylist()) == {"all"}
    assert set(table["max_detections"].to_pylist()) == {100}
    for k in with_truths:
        number = settings.category_ids[k]
        rows = table.filter(pc.equal(table["category_id"], pa.scalar(number, pa.int32())))
        assert set(rows["category"].to_pylist()) == {names[number]}
        for t, threshold in enumerate(settings.iou_thresholds):
            curve = rows.filter(pc.equal(rows["iou_threshold"], threshold))
            assert curve["recall"].to_pylist() == list(RECALL_THRESHOLDS)
            assert curve["precision"].to_numpy().tobytes() == found.precision[t, :, k, 0, -1].tobytes()
            assert curve["score"].to_numpy().tobytes() == found.scores[t, :, k, 0, -1].tobytes()


def test_without_truths_everything_is_minus_one_and_there_are_no_curves():
    found = accumulated(adversarial()["no truths"])
    assert set(summary(found).values()) == {-1.0}
    assert curves(found, {1: "a", 2: "b"}).num_rows == 0
    assert set(per_category(found, {1: "a", 2: "b"}, {}, {})["AP"].to_pylist()) == {-1.0}


def test_the_mean_over_categories_is_ap():
    for problem in map(of_coco, ordinary("bbox", 10)):
        found = accumulated(problem)
        rows = per_category(found, dict.fromkeys(problem.settings.category_ids, ""), {}, {})["AP"].to_numpy()
        rows = rows[rows > -1]
        assert math.isclose(rows.mean() if len(rows) else -1, summary(found)["AP"], abs_tol=1e-12)


def test_arrays_of_another_shape_are_refused():
    settings = EvaluationSettings.of("bbox", (1,))
    with pytest.raises(ValueError, match=r"precision must be float64 \[10, 101, 1, 4, 3\]"):
        Accumulated(settings, np.zeros((10, 101, 2, 4, 3)), np.zeros((10, 1, 4, 3)), np.zeros((10, 101, 1, 4, 3)))
