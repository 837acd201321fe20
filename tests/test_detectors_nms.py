from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from beam_jobs.boxes import from_normalised_yxyx
from beam_jobs.detectors import raw_outputs
from beam_jobs.detectors.nms import Suppression, just_below, overlaps, suppress
from beam_jobs.detectors.raw_outputs import PostProcessing, detections_of_raw
from beam_jobs.errors import InputError

RULES = Suppression(iou=0.5, score=0.1, per_class=100, total=100)


def iou(box, others):
    """Of a box with each of others, in float32 as the API's graph computes it; 0 where one has no area."""
    top, left, bottom, right = others.T
    height = np.minimum(box[2], bottom) - np.maximum(box[0], top)
    width = np.minimum(box[3], right) - np.maximum(box[1], left)
    common = np.maximum(height, np.float32(0)) * np.maximum(width, np.float32(0))
    whole = (box[2] - box[0]) * (box[3] - box[1]) + (bottom - top) * (right - left) - common
    return np.divide(common, whole, out=np.zeros_like(common), where=(common > 0) & (whole > 0))


def brute_force(boxes, classes, scores, rules):
    """One candidate after the other, best first, as the definition says."""
    kept: list[int] = []
    for i in sorted(np.flatnonzero(scores > rules.score).tolist(), key=lambda i: (-scores[i], i)):
        mine = [j for j in kept if classes[j] == classes[i]]
        if len(mine) < rules.per_class and not (iou(boxes[i], boxes[mine]) > rules.iou).any():
            kept.append(i)
    return kept[: rules.total]


@st.composite
def candidates(draw):
    n = draw(st.integers(0, 700))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # On a coarse grid, so that equal scores, equal boxes and boxes without area occur.
    corners = random.integers(0, draw(st.sampled_from([4, 12, 60])), (n, 4)).astype(np.float32)
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    scores = (random.integers(0, draw(st.sampled_from([3, 50, 10**6])), n) / 50 % 1).astype(np.float32)
    return boxes, random.integers(0, draw(st.sampled_from([1, 3, 90])), n), scores


@settings(max_examples=60, deadline=None)
@given(
    candidates(),
    st.sampled_from([0.0, 0.3, 0.6, 1.0]),
    st.sampled_from([0.0, 0.05, 0.5]),
    st.sampled_from([1, 5, 100]),
    st.sampled_from([1, 20, 100]),
)
def test_suppression_keeps_what_the_definition_keeps(found: tuple[Any, Any, Any], most, score, per_class, total):
    rules = Suppression(most, score, per_class, total)
    boxes, classes, scores = found
    assert suppress(boxes, classes, scores, rules).tolist() == brute_force(boxes, classes, scores, rules)


@settings(max_examples=30, deadline=None)
@given(candidates(), st.sampled_from([1, 5, 100]), st.sampled_from([1, 20, 100]), st.integers(0, 2**32 - 1))
def test_what_is_not_wanted_suppresses_and_counts_in_its_class_only(found, per_class, total, seed):
    boxes, classes, scores = found
    wanted = np.random.default_rng(seed).random(len(scores)) < 0.5
    everything = brute_force(boxes, classes, scores, Suppression(0.5, 0.0, per_class, len(scores)))
    kept = suppress(boxes, classes, scores, Suppression(0.5, 0.0, per_class, total), wanted)
    assert kept.tolist() == [i for i in everything if wanted[i]][:total]


@given(hnp.arrays(np.float32, (7, 4), elements=st.integers(-3, 9).map(float)))
def test_overlaps_are_those_of_all_pairs(corners):
    boxes = np.concatenate([np.minimum(corners[:, :2], corners[:, 2:]), np.maximum(corners[:, :2], corners[:, 2:])], 1)
    common, whole = overlaps(boxes, boxes[2:])
    some = (common > 0) & (whole > 0)
    found = np.divide(common, whole, out=np.zeros((7, 5), np.float32), where=some)
    assert np.array_equal(found, [iou(box, boxes[2:]) for box in boxes])


def test_raw_outputs_become_pixels_categories_and_scores():
    boxes = np.array([[0.1, 0.2, 0.5, 0.6], [0.11, 0.2, 0.5, 0.6], [-0.5, 0.5, 0.5, 1.5]], np.float32)
    scores = np.array([[0.9, 0.0], [0.8, 0.3], [0.05, 0.7]], np.float32)
    found = detections_of_raw(boxes, scores, 200, 100, PostProcessing(RULES))
    assert found.category_ids.tolist() == [1, 2, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.7, 0.3])
    clipped = np.array([boxes[0], [0, 0.5, 0.5, 1], boxes[1]], np.float32)
    assert np.array_equal(found.boxes, from_normalised_yxyx(clipped, 200, 100))


def test_of_very_many_candidates_the_best_are_found(monkeypatch):
    random = np.random.default_rng(3)
    middles, halves = random.random((2000, 2)), random.random((2000, 2)) * 0.1
    boxes = np.concatenate([middles - halves, middles + halves], 1).astype(np.float32)
    scores = (random.random((2000, 8)).round(3) ** 8).astype(np.float32)
    how = PostProcessing(Suppression(0.1, 1e-8, 20, 100))
    at_once = detections_of_raw(boxes, scores, 640, 480, how)
    monkeypatch.setattr(raw_outputs, "_FIRST", 16)
    in_steps = detections_of_raw(boxes, scores, 640, 480, how)
    assert len(at_once) == 100
    for name in ("boxes", "scores", "category_ids"):
        assert np.array_equal(getattr(in_steps, name), getattr(at_once, name))
    few = PostProcessing(Suppression(0.0, 0.9, 2, 100))
    assert 0 < len(detections_of_raw(boxes, scores, 640, 480, few)) <= 16


def test_a_picture_in_a_part_of_the_networks_input():
    boxes = np.array([[0.0, 0.0, 0.25, 0.5], [0.0, 0.6, 0.4, 0.9], [0.2, 0.1, 0.8, 0.3]], np.float32)
    scores = np.array([[0.9], [0.8], [0.7]], np.float32)
    how = PostProcessing(RULES)
    found = detections_of_raw(boxes, scores, 100, 300, how, inside=(1.0, 0.5))
    expected = [[0, 0, 100, 75], [100, 0, 100, 120], [20, 60, 60, 240]]
    assert np.allclose(found.boxes, expected, atol=1e-4)
    # Two at most; the one outside does not count.
    two = PostProcessing(Suppression(0.5, 0.1, 100, 2), drop_empty=True)
    found = detections_of_raw(boxes, scores, 100, 300, two, inside=(1.0, 0.5))
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])


def test_a_box_of_several_classes_counts_for_its_best_where_classes_do_not_matter():
    boxes = np.array([[0.1, 0.2, 0.5, 0.6], [0.11, 0.2, 0.5, 0.6], [0.6, 0.6, 0.9, 0.9]], np.float32)
    scores = np.array([[0.9, 0.8], [0.2, 0.85], [0.3, 0.4]], np.float32)
    found = detections_of_raw(boxes, scores, 200, 100, PostProcessing(RULES, class_agnostic=True))
    assert found.category_ids.tolist() == [1, 2]
    assert found.scores.tolist() == pytest.approx([0.9, 0.4])


@given(st.floats(0, 1), st.floats(0, 1, width=32))
def test_more_than_just_below_is_no_less(least, score):
    for number in (np.float32(score), np.float32(least)):
        assert (number > just_below(least)) == (float(number) >= least)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers_give_no_result(bad):
    scores = np.full((3, 2), 0.5, np.float32)
    scores[1, 1] = bad
    with pytest.raises(InputError, match="not finite"):
        detections_of_raw(np.zeros((3, 4), np.float32), scores, 10, 10, PostProcessing(RULES))
