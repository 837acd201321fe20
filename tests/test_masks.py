"""Grids over boxes become pixels as the Object Detection API has them, and run lengths as pycocotools has them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from beam_jobs.detectors.api_outputs import detections_of
from beam_jobs.formats import rle
from beam_jobs.formats.shapes import shape_columns
from beam_jobs.masks import Patch, patches
from beam_jobs.processes.select import Selection, select
from beam_jobs.records import BoxMasks

#: What float32 loses on the way to a value between 0 and 1.
TOLERANCE = 2e-3


def whole(patch: Patch, width: int, height: int) -> NDArray[np.bool_]:
    pixels = np.zeros((height, width), bool)
    rows, columns = patch.pixels.shape
    pixels[patch.top : patch.top + rows, patch.left : patch.left + columns] = patch.pixels
    return pixels


def api_values(masks: BoxMasks, width: int, height: int) -> NDArray[np.float32]:
    """`reframe_box_masks_to_image_masks` of the API's ops.py, given its own normalised boxes."""
    from beam_jobs.detectors.tensorflow_runtime import set_threads, tf

    set_threads(1)  # as other tests in this process need it

    low_x, low_y, high_x, high_y = (masks.frames / np.array([width, height] * 2, np.float32)).T
    wide, tall = np.maximum(high_x - low_x, 1e-4), np.maximum(high_y - low_y, 1e-4)
    corners = np.stack([-low_y / tall, -low_x / wide, (1 - low_y) / tall, (1 - low_x) / wide], axis=1)
    values = tf.image.crop_and_resize(
        masks.grids[..., np.newaxis], corners, tf.range(len(masks)), [height, width], "bilinear", 0
    )
    return np.asarray(values[..., 0])


def edges(low: float, high: float, size: int, cells: int) -> NDArray[np.bool_]:
    """bool [size]: pixels that lie on the very edge of a frame, where float error says whether they are inside."""
    side = max((high - low) / size, 1e-4)
    share = np.arange(size) / (size - 1) if size > 1 else np.array([0.5])
    at = (share - low / size) / side * (cells - 1)
    error = 1e-5 * (np.abs(at).max() + 1)
    return np.asarray((np.abs(at) < error) | (np.abs(at - (cells - 1)) < error))


def check(masks: BoxMasks, width: int, height: int) -> None:
    expected = api_values(masks, width, height)
    found = patches(masks, width, height)
    for patch, values, frame, grid in zip(found, expected, masks.frames.tolist(), masks.grids, strict=True):
        unsure = np.abs(values - 0.5) < TOLERANCE
        unsure |= edges(frame[0], frame[2], width, grid.shape[1])
        unsure |= edges(frame[1], frame[3], height, grid.shape[0])[:, np.newaxis]
        pixels = whole(patch, width, height)
        assert not ((pixels != (values > 0.5)) & ~unsure).any()
        assert patch.area == pixels.sum()
        counts = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"]
        assert rle.encode([patch], width, height) == [counts.decode()]


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
    st.lists(st.tuples(*[st.floats(-0.5, 1.5, width=32)] * 4), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
)
@example(1, 1, (33, 33), [(0.0, 0.0, 1.0, 1.0)], 0)
@example(64, 48, (33, 33), [(0.25, 0.25, 0.25, 0.75), (0.0, 0.0, 1.0, 1.0)], 0)
def test_pixels_are_those_of_the_api(width, height, shape, shares, seed):
    corners = np.sort(np.array(shares, np.float32).reshape(-1, 2, 2), axis=1)
    frames = (corners * np.array([width, height], np.float32)).reshape(-1, 4)
    grids = np.random.default_rng(seed).random((len(frames), *shape), dtype=np.float32)
    check(BoxMasks(grids, frames), width, height)


def smooth(count: int, seed: int) -> NDArray[np.float32]:
    """Grids as Mask R-CNN gives them: blobs with soft edges."""
    across = np.linspace(-1, 1, 33, dtype=np.float32)
    radius = np.random.default_rng(seed).uniform(0.5, 1.2, (count, 1, 1)).astype(np.float32)
    distance = np.hypot(across, across[:, np.newaxis])
    return np.asarray(1 / (1 + np.exp(8 * (distance - radius))), np.float32)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (375, 500), (1333, 800)])
def test_masks_of_a_real_size_are_those_of_the_api(width, height):
    rng = np.random.default_rng(width)
    corners = np.sort(rng.uniform(-0.1, 1.1, (12, 2, 2)), axis=1) * [width, height]
    check(BoxMasks(smooth(12, height), corners.reshape(-1, 4).astype(np.float32)), width, height)


def test_only_the_pixels_of_the_box_are_held():
    (patch,) = patches(BoxMasks(np.ones((1, 33, 33), np.float32), np.array([[100, 50, 140, 80]], np.float32)), 4000, 50)
    assert patch.pixels.size == 0
    (patch,) = patches(
        BoxMasks(np.ones((1, 33, 33), np.float32), np.array([[100, 50, 140, 80]], np.float32)), 4000, 3000
    )
    assert (patch.left, patch.top, patch.pixels.shape) == (100, 50, (30, 40))
    assert patch.area == 30 * 40


@pytest.mark.filterwarnings("error")
def test_frames_that_are_no_boxes_give_empty_masks_or_none_outside_of_the_picture():
    infinite = np.array([[-np.inf, 0, 10, 10], [0, 0, np.inf, 10], [5, 5, 5, 5], [90, 90, 95, 95]], np.float32)
    found = patches(BoxMasks(np.ones((4, 7, 7), np.float32), infinite), 40, 30)
    assert all(whole(patch, 40, 30).shape == (30, 40) for patch in found)
    assert found[0].area == found[3].area == 0
    assert rle.encode([found[3]], 40, 30) == [coco_mask.encode(np.zeros((30, 40), np.uint8, "F"))["counts"].decode()]


def test_what_the_api_gives_keeps_its_masks_and_keypoints():
    """Rows that are dropped, clipped and put in order keep their own; keypoints outside of the picture stay there."""
    outputs = {
        "detection_boxes": np.array([[0, 0, 0.5, 0.5], [2, 2, 3, 3], [0.5, 0.5, 1.5, 1.25], [0, 0, 1, 1]], np.float32),
        "detection_scores": np.array([0.5, 0.9, 0.8, 0.7], np.float32),
        "detection_classes": np.array([1, 1, 2, 1], np.float32),
        "num_detections": np.array(3, np.float32),
        "detection_masks": smooth(4, 1),
        "detection_keypoints": np.tile(np.array([[0.5, 1.25]], np.float32), (4, 17, 1)),
        "detection_keypoint_scores": np.full((4, 17), 0.25, np.float32),
    }
    outputs["detection_keypoints"][0] = 0
    width, height = 64, 48
    found, empty = select(detections_of(outputs, width, height), width, height, Selection())
    assert (found.category_ids.tolist(), empty) == ([2, 1], 1)
    assert found.boxes[0].tolist() == [32, 24, 64, 48]
    columns = shape_columns(found, width, height).to_pylist()
    frames = np.array([[32, 24, 80, 72], [0, 0, 32, 24]], np.float32)
    expected = api_values(BoxMasks(smooth(4, 1)[[2, 0]], frames), width, height) > 0.5
    for row, pixels in zip(columns, expected, strict=True):
        assert np.mean(coco_mask.decode(row["mask"]).astype(bool) != pixels) < 0.002
        assert row["mask_area"] == coco_mask.area(row["mask"]) > 100
    assert columns[0]["keypoints"] == [80, 24, 0.25] * 17
    assert columns[1]["keypoints"] is None


@settings(deadline=None)
@given(st.data())
def test_run_lengths_are_those_of_pycocotools(data):
    width, height = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    columns, rows = data.draw(st.integers(1, width - left)), data.draw(st.integers(1, height - top))
    flat = data.draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    patch = Patch(left, top, np.array(flat).reshape(rows, columns))
    pixels = whole(patch, width, height)
    expected = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))["counts"].decode()
    assert rle.encode([patch], width, height) == [expected]
    assert (coco_mask.decode({"size": [height, width], "counts": expected}) == pixels).all()
