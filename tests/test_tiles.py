from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beam_jobs.detectors.base import DetectorInfo
from beam_jobs.detectors.tiles import Tiling, merge
from beam_jobs.processes.calls import Caller
from beam_jobs.records import BoxMasks, Detections


class Bright:
    """Sees every bright rectangle of its picture, of the least size that it can see; by rows of 4 bright shades."""

    info = DetectorInfo("python", {"input": "any"})

    def __init__(self, least=0.0):
        self.least = least

    def detect(self, pictures):
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture):
        found = []
        for shade in np.unique(picture[..., 0])[1:]:
            ys, xs = np.nonzero(picture[..., 0] == shade)
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            share = max(box[2] - box[0], box[3] - box[1]) / max(picture.shape[:2])
            if share >= self.least:
                found.append((*box, 0.5 + shade / 1000))
        rows = np.array(found, np.float32).reshape(-1, 5)
        return Detections(rows[:, :4], rows[:, 4], np.ones(len(rows), np.int32))


def picture(height, width, *boxes):
    """Black, with a rectangle of a shade of its own for each box."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for i, (xmin, ymin, xmax, ymax) in enumerate(boxes):
        pixels[ymin:ymax, xmin:xmax] = 100 + i
    return pixels


def tiled(detector, tiling, pixels):
    """What is found in a picture with its tiles."""
    (answer,) = Caller(detector, 0, tiling).ask([pixels], lambda _: None)
    assert isinstance(answer.found, Detections), answer.found
    return answer.found


def found_boxes(detections):
    return sorted(detections.boxes.astype(int).tolist())


def test_views_cover_the_picture_and_overlap():
    views = Tiling(640, 0.2).views(3000, 4000)
    assert views[0].tolist() == [0, 0, 4000, 3000]
    assert (views[1:, 2] - views[1:, 0] == 640).all()
    assert (views[1:, 3] - views[1:, 1] == 640).all()
    lefts = sorted(set(views[1:, 0].tolist()))
    assert lefts[0] == 0
    assert lefts[-1] == 4000 - 640
    assert all(b - a <= 512 for a, b in pairwise(lefts))


@pytest.mark.parametrize(("height", "width", "views"), [(640, 640, 1), (10, 10, 1), (640, 641, 3), (100, 2000, 5)])
def test_a_picture_no_larger_than_a_tile_has_none(height, width, views):
    assert len(Tiling(640).views(height, width)) == views


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_whole_objects_wherever_the_seams_are(seed, count):
    random = np.random.default_rng(seed)
    boxes: list[tuple[int, ...]] = []
    for _ in range(count):
        x, y = random.integers(0, 550), random.integers(0, 350)
        w, h = random.integers(8, 250, 2)
        box = (int(x), int(y), int(min(x + w, 600)), int(min(y + h, 400)))
        # Apart, so that each is seen whole where nothing cuts it.
        if all(box[2] < b[0] or b[2] < box[0] or box[3] < b[1] or b[3] < box[1] for b in boxes):
            boxes.append(box)
    found = tiled(Bright(), Tiling(160, 0.25), picture(400, 600, *boxes))
    assert found_boxes(found) == sorted(map(list, boxes))


def test_small_objects_are_found_that_the_whole_picture_loses():
    boxes = [(10, 10, 30, 30), (150, 100, 185, 140), (300, 200, 320, 220)]
    pixels = picture(400, 600, *boxes)
    detector = Bright(least=0.1)
    assert len(detector.detect([pixels])[0]) == 0
    assert found_boxes(tiled(detector, Tiling(160, 0.25), pixels)) == sorted(map(list, boxes))


def test_an_object_across_a_seam_that_no_view_sees_whole_is_put_together():
    # 120 wide, more than the overlap of 40, and too small for the whole picture.
    pixels = picture(400, 1600, (100, 50, 220, 90))
    found = tiled(Bright(least=0.1), Tiling(160, 0.25), pixels)
    assert found_boxes(found) == [[100, 50, 220, 90]]


def one(box, score, category=1):
    return Detections(np.array([box], np.float32), np.array([score], np.float32), np.array([category], np.int32))


def none():
    return Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))


VIEWS = np.array([[0, 0, 200, 100], [0, 0, 110, 100], [90, 0, 200, 100]], np.float32)


def test_a_small_object_before_a_large_one_stays():
    merged = merge([one((10, 10, 100, 90), 0.9), one((40, 40, 60, 60), 0.8), none()], VIEWS)
    assert found_boxes(merged) == [[10, 10, 100, 90], [40, 40, 60, 60]]


def test_classes_are_not_merged():
    merged = merge([one((10, 10, 60, 60), 0.9, 1), one((10, 10, 60, 60), 0.8, 2), none()], VIEWS)
    assert sorted(merged.category_ids.tolist()) == [1, 2]


def test_one_view_merges_nothing_of_its_own():
    twice = Detections(
        np.array([[10, 10, 60, 60], [12, 10, 60, 60]], np.float32),
        np.array([0.9, 0.8], np.float32),
        np.ones(2, np.int32),
    )
    assert len(merge([none(), twice, none()], VIEWS)) == 2


def test_the_best_that_is_whole_gives_the_box_and_the_best_the_score():
    # The tile sees it better, but cut at x = 110.
    merged = merge([one((50, 20, 150, 80), 0.5), one((50, 20, 110, 80), 0.9), none()], VIEWS)
    assert found_boxes(merged) == [[50, 20, 150, 80]]
    assert merged.scores.tolist() == pytest.approx([0.9])


def test_masks_and_keypoints_move_with_their_tile():
    shape = one((5, 10, 50, 60), 0.9)
    masks = BoxMasks(np.ones((1, 2, 2), np.float32), shape.boxes)
    keypoints = np.array([[[7, 20, 0.5], [0, 0, 0]]], np.float32)
    tile = Detections(shape.boxes, shape.scores, shape.category_ids, masks, keypoints)
    empty = Detections(
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.float32),
        np.zeros(0, np.int32),
        BoxMasks(np.zeros((0, 2, 2), np.float32), np.zeros((0, 4), np.float32)),
        np.zeros((0, 2, 3), np.float32),
    )
    merged = merge([empty, empty, tile], VIEWS)
    assert merged.boxes.tolist() == [[95, 10, 140, 60]]
    assert merged.masks is not None
    assert merged.masks.frames.tolist() == [[95, 10, 140, 60]]
    assert merged.keypoints is not None
    assert merged.keypoints.tolist() == [[[97, 20, 0.5], [0, 0, 0]]]


@pytest.mark.parametrize(("tile", "overlap"), [(0, 0.2), (10, 1.0), (10, -0.1)])
def test_bad_tilings_are_refused(tile, overlap):
    with pytest.raises(ValueError, match="tile must be"):
        Tiling(tile, overlap)
