"""Masks and keypoints on pictures: what somebody who looks at one would see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beam_jobs.formats.coco_keypoints import NAMES, SKELETON
from beam_jobs.imaging.draw_keypoints import MIN_KEYPOINT_SCORE, draw_keypoints
from beam_jobs.imaging.draw_masks import draw_masks
from beam_jobs.masks import Patch
from tests.fake_detectors import POSE

RED, BLUE = (255, 0, 0), (0, 0, 255)


def blank(width: int, height: int) -> np.ndarray:
    return np.full((height, width, 3), 128, np.uint8)


def person(low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    points = np.ones((1, 17, 3), np.float32)
    points[0, :, :2] = POSE * (np.array(high) - low) + low
    return points


def test_a_mask_is_a_veil_with_a_line_along_its_edge() -> None:
    pixels = blank(640, 480)
    mask = np.ones((100, 200), bool)
    mask[40:60, 90:110] = False  # a hole
    drawn = draw_masks(pixels, [Patch(50, 30, mask)], [RED]).astype(int)
    assert (pixels == 128).all()
    changed = (drawn != 128).any(axis=2)
    assert (changed[30:130, 50:250] == mask).all()
    assert changed.sum() == mask.sum()
    solid = (drawn == RED).all(axis=2)
    for y, x in ((30, 150), (129, 150), (80, 50), (80, 249), (69, 150), (90, 150), (31, 150)):
        assert solid[y, x], (y, x)
    assert not solid[32:68, 52:248].any()
    veil = drawn[50, 100]
    assert veil[0] > 150
    assert 50 < veil[1] < 110  # the picture is seen through it


@pytest.mark.parametrize(("size", "line"), [((320, 240), 1), ((640, 480), 2), ((4000, 3000), 10)])
def test_lines_grow_with_the_picture(size: tuple[int, int], line: int) -> None:
    width, height = size
    patch = Patch(0, 0, np.ones((height, width), bool))
    row = draw_masks(blank(*size), [patch], [RED])[height // 2].astype(int)
    assert (row[: width // 2] == RED).all(axis=1).sum() == line


def test_the_strongest_mask_is_on_top() -> None:
    patches = [Patch(0, 0, np.ones((50, 50), bool)), Patch(10, 10, np.ones((50, 50), bool))]
    for order in (1, -1):
        drawn = draw_masks(blank(100, 100), patches[::order], [RED, BLUE][::order])
        assert tuple(drawn[10, 25]) != BLUE if order == 1 else tuple(drawn[10, 25]) == BLUE


def test_keypoints_are_dots_joined_by_lines() -> None:
    points = person((200, 100), (400, 460))
    drawn = draw_keypoints(blank(640, 480), points, [SKELETON], [BLUE]).astype(int)
    for x, y, _ in points[0]:
        assert drawn[round(float(y)), round(float(x))].min() > 200  # white inside
    left_knee, left_ankle = points[0, NAMES.index("left_knee")], points[0, NAMES.index("left_ankle")]
    x, y, _ = (left_knee + left_ankle) / 2
    assert tuple(drawn[round(float(y)), round(float(x))]) == BLUE
    without = draw_keypoints(blank(640, 480), points, [()], [BLUE]).astype(int)
    assert (without[round(float(y)), round(float(x))] == 128).all()


def test_keypoints_that_the_model_does_not_see_are_left_out() -> None:
    points = person((200, 100), (400, 460))
    ankle = points[0, 16].copy()
    points[0, 16, 2] = MIN_KEYPOINT_SCORE - 0.01
    drawn = draw_keypoints(blank(640, 480), points, [SKELETON], [BLUE])
    assert (drawn[round(float(ankle[1])), round(float(ankle[0]))] == 128).all()
    knee = points[0, 14]
    x, y = (knee[:2] + ankle[:2]) / 2
    assert (drawn[round(float(y)), round(float(x))] == 128).all()
    points[..., 2] = 0
    assert (draw_keypoints(blank(640, 480), points, [SKELETON], [BLUE]) == 128).all()


def test_small_people_are_no_blots() -> None:
    points = person((300, 200), (330, 260))
    drawn = draw_keypoints(blank(640, 480), points, [SKELETON], [BLUE])[200:260, 300:330]
    assert 0.2 < (drawn == 128).all(axis=2).mean() < 0.8


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="as many, got 1, 0"):
        draw_masks(blank(9, 9), [Patch(0, 0, np.ones((1, 1), bool))], [])
    with pytest.raises(ValueError, match="as many, got 1, 0, 1"):
        draw_keypoints(blank(9, 9), np.zeros((1, 17, 3), np.float32), [], [RED])


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    arrays(np.float32, (2, 17, 3), elements=st.floats(width=32)),
)
def test_keypoints_may_be_anywhere(width: int, height: int, points: np.ndarray) -> None:
    drawn = draw_keypoints(blank(width, height), points, [SKELETON, ()], [RED, BLUE])
    assert drawn.shape == (height, width, 3)
    assert (drawn == draw_keypoints(blank(width, height), points, [SKELETON, ()], [RED, BLUE])).all()


def test_keypoints_outside_of_the_picture_are_not_seen_and_lines_end_at_its_edge() -> None:
    points = np.array([[[50, 50, 1], [90, 50, 1], [140, 50, 1], [500, 500, 1]]], np.float32)
    drawn = draw_keypoints(blank(100, 100), points, [[(2, 3)]], [RED]).astype(int)
    assert drawn[50, 98, 0] > 150 > 60 > drawn[50, 98, 1]  # a thin line, smoothed
    far = draw_keypoints(blank(100, 100), points[:, 2:], [()], [RED])
    assert (far == 128).all()
