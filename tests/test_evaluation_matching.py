import copy
from dataclasses import replace
from typing import Any

import hotcoco
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from beam_jobs.evaluation.matching import Matches, MatchSettings, match_batch, matches_table
from beam_jobs.evaluation.repeats import count_repeats
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.sides import places
from beam_jobs.formats.matches import MATCHES, OUTCOMES
from tests.evaluation_problems import Problem, adversarial, dataset_of, plain, random_problem, result, truth

IOU_TYPES = ("bbox", "segm", "keypoints")
ADVERSARIAL = {
    name: problem
    for name, problem in adversarial().items()
    # The readers refuse boxes that are not finite, and hotcoco refuses negative ids.
    if not name.startswith(("a box of NaN", "an infinite box", "a negative truth id"))
}
BOX = [10.0, 10.0, 50.0, 50.0]


def strictness(problem: Problem) -> MatchSettings:
    """The problem's first threshold."""
    least = problem.settings.iou_thresholds[0]
    return MatchSettings(least, min(0.1, least / 2), 0.0)


def matched(problem: Problem, matching: MatchSettings | None = None) -> Matches:
    return match_batch(problem.images, problem.objects, problem.results, problem.settings, matching)


def table_of(problem: Problem, matching: MatchSettings | None = None) -> pa.Table:
    matches = matched(problem, matching)
    names = {category["id"]: category["name"] for category in problem.dataset["categories"]}
    return matches_table(matches, problem.images, problem.objects, problem.results, problem.settings, names)


def batch_mode(problem: Problem) -> hotcoco.COCOeval:
    """hotcoco with all in memory."""
    truths = hotcoco.COCO(copy.deepcopy(problem.dataset))
    evaluation = hotcoco.COCOeval(truths, truths.load_res(copy.deepcopy(problem.found)), problem.settings.iou_type)
    evaluation.params.cat_ids = list(problem.settings.category_ids)
    evaluation.params.iou_thrs = list(problem.settings.iou_thresholds)
    evaluation.params.max_dets = list(problem.settings.max_detections)
    evaluation.params.area_rng = [[area.low, area.high] for area in problem.settings.area_ranges]
    evaluation.params.area_rng_lbl = [area.label for area in problem.settings.area_ranges]
    evaluation.evaluate()
    return evaluation


def expected(problem: Problem, cells: list[dict[str, Any] | None]) -> tuple[dict[int, Any], dict[int, Any]]:
    """By result: score, outcome, truth id; by truth id: outcome, result. At the first threshold and area range."""
    found, truths = {}, {}
    first = [problem.settings.area_ranges[0].low, problem.settings.area_ranges[0].high]
    for cell in cells:
        if cell is None or list(cell["aRng"]) != first:
            continue
        reached, ignored = np.asarray(cell["dtMatches"])[0], np.asarray(cell["dtIgnore"])[0]
        taken = {int(number) for number in np.asarray(cell["gtMatches"])[0]}
        ours = dict(zip(map(int, np.asarray(cell["dtIds"])), range(len(reached)), strict=True))
        for number, place in ours.items():
            hit = bool(reached[place])
            outcome = "ignored" if ignored[place] else "TP" if hit else "FP"
            found[number - 1] = (float(cell["dtScores"][place]), outcome, int(reached[place]) if hit else None)
        assert taken <= {0, *ours}
        for place, number in enumerate(np.asarray(cell["gtIds"]).tolist()):
            by = int(np.asarray(cell["gtMatches"])[0][place])
            state = "ignored" if np.asarray(cell["gtIgnore"])[place] else "found" if by else "missed"
            truths[number] = (state, by - 1 if by else None)
    return found, truths


def outcomes(problem: Problem) -> tuple[dict[int, Any], dict[int, Any]]:
    """What `expected` gives, from our own matches."""
    matches = matched(problem, strictness(problem))
    numbers = [problem.dataset["annotations"][row]["id"] for row in matches.truths.row.tolist()]
    counted = matches.found.rank < problem.settings.max_detections[-1]
    found = {
        row: (score, OUTCOMES[outcome], numbers[match] if match >= 0 else None)
        for row, score, outcome, match, counts in zip(
            *(
                column.tolist()
                for column in (matches.found.row, matches.found.score, matches.outcome, matches.match, counted)
            ),
            strict=True,
        )
        if counts
    }
    truths = {
        number: (OUTCOMES[outcome], int(matches.found.row[taken]) if taken >= 0 else None)
        for number, outcome, taken in zip(numbers, matches.truth_outcome.tolist(), matches.taken.tolist(), strict=True)
    }
    return found, truths


def agrees(problem: Problem) -> None:
    ours = outcomes(problem)
    if all(one["id"] > 0 for one in problem.dataset["annotations"]):  # 0 reads as no match
        assert ours == expected(problem, batch_mode(problem).eval_imgs)
    if problem.ordinary:
        theirs = plain(problem)
        assert ours == expected(problem, theirs.evalImgs)
        same_ious(problem, theirs.ious)


def same_ious(problem: Problem, ious: dict[tuple[int, int], Any]) -> None:
    """Each IoU to the last bit: of the match, else the best of the cell."""
    matches = matched(problem, strictness(problem))
    found, truths = matches.found, matches.truths
    places_of_truths = places(truths.image_id, truths.slot)
    for index in np.flatnonzero(found.rank < problem.settings.max_detections[-1]).tolist():
        category = problem.settings.category_ids[found.slot[index]]
        cell = np.asarray(ious[int(found.image_id[index]), category])
        row = cell[found.rank[index]] if cell.size else np.zeros(0)
        match = matches.match[index]
        assert matches.iou[index] == (row[places_of_truths[match]] if match >= 0 else max(row.max(initial=0.0), 0.0))


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_matches_are_those_of_pycocotools_and_hotcoco(iou_type):
    for seed in range(60):
        agrees(random_problem(seed, iou_type))


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_difficult_matches_are_those_of_pycocotools_and_hotcoco(name):
    agrees(ADVERSARIAL[name])


@pytest.mark.parametrize("iou_type", IOU_TYPES)
def test_images_do_not_depend_on_their_batch(iou_type):
    for seed in range(10):
        problem = random_problem(seed, iou_type)
        whole = table_of(problem)
        images = problem.images["image_id"].to_pylist()
        parts = []
        for image in images:
            here = replace(
                problem,
                dataset=problem.dataset
                | {
                    name: [one for one in problem.dataset[name] if one[key] == image]
                    for name, key in (("images", "id"), ("annotations", "image_id"))
                },
                found=[one for one in problem.found if one["image_id"] == image],
            )
            parts.append(table_of(here))
        assert pa.concat_tables(parts).equals(whole)
        assert whole["image_id"].to_pylist() == sorted(whole["image_id"].to_pylist())


def test_rows_tell_what_happened():
    settings = EvaluationSettings.of("bbox", (1, 2))
    shifted = [30.0, 10.0, 50.0, 50.0]  # IoU 30 / 70
    truths = [
        truth(11, 5, 1, BOX),
        truth(12, 5, 2, [100, 100, 10, 10]),
        truth(13, 5, 1, [200, 200, 20, 20], crowd=1),
        truth(14, 5, 1, [300, 300, 20, 20]),
    ]
    found = [
        result(5, 1, 0.9, bbox=BOX),
        result(5, 1, 0.8, bbox=BOX),
        result(5, 1, 0.7, bbox=shifted),
        result(5, 1, 0.6, bbox=[100, 100, 10, 10]),
        result(5, 2, 0.5, bbox=[0, 400, 10, 10]),
        result(5, 1, 0.4, bbox=[201, 201, 5, 5]),
        result(5, 2, 0.3, bbox=[300, 300, 20, 8]),
        result(5, 99, 1.0, bbox=BOX),
    ]
    table = table_of(Problem(settings, dataset_of([5, 6], [1, 2], truths), found))
    assert table.schema.equals(MATCHES, check_metadata=True)
    table.validate(full=True)
    names = ("kind", "category", "detection", "truth_id", "rank", "score", "outcome", "error")
    assert [tuple(row[name] for name in names) for row in table.to_pylist()] == [
        ("detection", "class 1", 0, 11, 0, 0.9, "TP", None),
        ("detection", "class 1", 1, None, 1, 0.8, "FP", "duplicate"),
        ("detection", "class 1", 2, None, 2, 0.7, "FP", "localisation"),
        ("detection", "class 1", 3, None, 3, 0.6, "FP", "classification"),
        ("detection", "class 1", 5, 13, 4, 0.4, "ignored", None),
        ("detection", "class 2", 4, None, 0, 0.5, "FP", "background"),
        ("detection", "class 2", 6, None, 1, 0.3, "FP", "both"),
        ("truth", "class 1", 0, 11, None, 0.9, "found", None),
        ("truth", "class 1", 5, 13, None, 0.4, "ignored", None),
        ("truth", "class 1", None, 14, None, None, "missed", "missed"),
        ("truth", "class 2", None, 12, None, None, "missed", None),
    ]
    assert table["iou"].to_pylist() == pytest.approx([1, 1, 3 / 7, 0, 1, 0, 0, 1, 1, 0, 0])
    assert table["iscrowd"].to_pylist() == [False] * 8 + [True] + [False] * 2
    assert set(table["file_name"].to_pylist()) == {"5.jpg"}


def test_past_the_most_an_image_detections_are_ignored():
    problem = ADVERSARIAL["300 tied results"]
    rows = table_of(problem).filter(pc.equal(table_of(problem)["kind"], "detection")).to_pylist()
    assert len(rows) == 300
    assert {row["outcome"] for row in rows if row["rank"] >= 100} == {"ignored"}
    assert "ignored" not in {row["outcome"] for row in rows if row["rank"] < 100}


@pytest.mark.parametrize("pair", [(0.5, 0.5), (0.5, -0.1), (1.1, 0.1), (float("nan"), 0.1)])
def test_thresholds_out_of_order_are_refused(pair):
    with pytest.raises(ValueError, match="background"):
        MatchSettings(*pair)


def test_masks_that_cannot_be_drawn_are_refused():
    settings = EvaluationSettings.of("segm", (1,))
    shape = [[10.0, 10.0, 60.0, 10.0, 60.0, 60.0]]
    found = [result(1, 1, 0.5, bbox=BOX, segmentation=shape)]
    without = Problem(settings, dataset_of([1], [1], [truth(1, 1, 1, BOX)]), found)
    with pytest.raises(ValueError, match="no segmentation"):
        matched(without)
    unsized = dataset_of([1], [1], [truth(1, 1, 1, BOX, segmentation=shape)])
    unsized["images"][0] |= {"width": 0, "height": 0}
    with pytest.raises(ValueError, match="width and height"):
        matched(Problem(settings, unsized, found))


def test_at_a_threshold_of_1_a_rounding_error_is_forgiven():
    settings = replace(EvaluationSettings.of("bbox", (1,)), iou_thresholds=(1.0,))
    almost = [10.0, 10.0, 50.0, 50.0 * (1 - 1e-12)]
    problem = Problem(settings, dataset_of([1], [1], [truth(1, 1, 1, BOX)]), [result(1, 1, 0.5, bbox=almost)])
    agrees(problem)
    assert outcomes(problem)[0][0][1] == "TP"


def test_repeats_are_of_everything_that_a_detection_says():
    points = [1.0, 2.0, 2.0] * 17
    mask = {"size": [9, 9], "counts": "01"}
    row = result(1, 1, 0.5, bbox=BOX, segmentation=mask, keypoints=points)
    others = [
        {**row, "image_id": 2},
        {**row, "category_id": 2},
        {**row, "score": np.nextafter(0.5, 1)},
        {**row, "bbox": [*BOX[:3], 51.0]},
        {**row, "segmentation": {**mask, "counts": "02"}},
        {**row, "keypoints": [*points[1:], 0.0]},
    ]
    problem = Problem(EvaluationSettings.of("bbox", (1, 2)), dataset_of([1, 2], [1, 2], []), [row, *others])
    results = problem.results
    assert count_repeats(results) == 0
    assert count_repeats(pa.concat_tables([results, results.slice(0, 1), results.slice(0, 3)])) == 4
    assert count_repeats(results.slice(0, 0)) == 0
