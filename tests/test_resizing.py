"""Resizing before a model does it, and the configs that say how: against TensorFlow, and the API's own rules."""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from beam_jobs.detectors.pipeline_config import PipelineConfig, parse
from beam_jobs.detectors.resize import resize_bilinear
from beam_jobs.detectors.resizing import ConditionalShape, FixedShape, KeepAspectRatio, PadToMultiple, Resizer, Size
from beam_jobs.errors import UsageError

SIDES = st.integers(1, 400)
SIZES = st.builds(Size, SIDES, SIDES)
KEEP = st.builds(lambda a, b, pad: KeepAspectRatio("BILINEAR", min(a, b), max(a, b), pad), SIDES, SIDES, st.booleans())
CONDITIONAL = st.builds(ConditionalShape, st.just("BILINEAR"), st.sampled_from(["GREATER", "SMALLER"]), SIDES)
RESIZERS: st.SearchStrategy[Any] = st.one_of(
    KEEP, CONDITIONAL, st.builds(FixedShape, st.just("BILINEAR"), SIDES, SIDES)
)


@pytest.fixture(scope="module")
def tf() -> Any:
    import tensorflow

    from beam_jobs.detectors.tensorflow_runtime import set_threads

    set_threads(1)  # as for the detectors that other tests open in this process
    return tensorflow


@settings(deadline=None, max_examples=60)
@given(SIZES, RESIZERS, st.integers(0, 9))
def test_pictures_are_resized_as_tensorflow_does_it(tf: Any, old: Size, resizer: Resizer, seed: int) -> None:
    new, corners = resizer.size(old), resizer.align_corners
    picture = np.random.default_rng(seed).integers(0, 256, (*old, 3), np.uint8)
    if not new.pixels:
        assert resizer.feeds(old) is None
        return
    expected = tf.compat.v1.image.resize_images(tf.cast(picture, tf.float32), new, align_corners=corners).numpy()
    assert_array_equal(resize_bilinear(picture, *new, align_corners=corners), expected)


@settings(deadline=None, max_examples=60)
@given(SIZES, st.sampled_from([Size(300, 300), Size(64, 96), Size(1, 1)]), st.booleans())
def test_bytes_are_resized_as_tensorflows_kernel_does_it(tf: Any, old: Size, new: Size, corners: bool) -> None:
    picture = np.random.default_rng(old.pixels).integers(0, 256, (1, *old, 3), np.uint8)
    expected = tf.raw_ops.ResizeBilinear(images=picture, size=new, align_corners=corners).numpy()[0]
    assert_array_equal(resize_bilinear(picture[0], *new, align_corners=corners), expected)


@settings(deadline=None, max_examples=60)
@given(SIZES, KEEP)
def test_the_proportions_are_kept_as_tensorflow_keeps_them(tf: Any, old: Size, resizer: KeepAspectRatio) -> None:
    limits = (resizer.low, resizer.high) if old.height < old.width else (resizer.high, resizer.low)
    size = resizer.size(old)
    if size.pixels:
        black = tf.zeros((*old, 1))
        expected = tf.compat.v1.image.resize_images(black, limits, preserve_aspect_ratio=True).shape[:2]
        assert size == tuple(expected)
    assert resizer.padded(old) == ((resizer.high, resizer.high) if resizer.pad else size)


@settings(max_examples=300)
@given(SIZES, RESIZERS)
def test_what_a_model_is_fed_it_leaves_as_it_is(picture: Size, resizer: Resizer) -> None:
    fed = resizer.feeds(picture)
    if fed is not None:
        assert resizer.size(fed) == fed
        assert resizer.padded(fed) == resizer.padded(picture)


@pytest.mark.parametrize(
    ("resizer", "picture", "size", "padded"),
    [
        (Resizer(), (20, 30), (20, 30), (20, 30)),
        (FixedShape(), (20, 30), (300, 300), (300, 300)),
        (KeepAspectRatio(pad=True, low=512, high=512), (480, 640), (384, 512), (512, 512)),
        (KeepAspectRatio(), (480, 640), (600, 800), (600, 800)),
        (KeepAspectRatio(), (300, 900), (341, 1024), (341, 1024)),
        (ConditionalShape(threshold=100), (200, 50), (100, 25), (100, 25)),
        (ConditionalShape(threshold=100), (80, 50), (80, 50), (80, 50)),
        (ConditionalShape("BILINEAR", "SMALLER", 100), (200, 50), (400, 100), (400, 100)),
        (PadToMultiple(multiple=32), (33, 64), (33, 64), (64, 64)),
    ],
)
def test_sizes(resizer: Resizer, picture: Any, size: Any, padded: Any) -> None:
    assert resizer.size(Size(*picture)) == size
    assert resizer.padded(Size(*picture)) == padded


def test_what_cannot_be_done_as_the_model_does_it_is_left_to_the_model() -> None:
    assert FixedShape("AREA", 30, 40).feeds(Size(60, 80)) is None
    assert FixedShape("AREA", 30, 40).feeds(Size(30, 40)) == (30, 40)
    assert KeepAspectRatio(low=10, high=10).feeds(Size(1, 100)) is None  # it has no line left


CONFIG = """
model {{
  {family} {{
    num_classes: 90
    image_resizer {{ {resizer} }}
    feature_extractor {{ type: "some_keras" min_depth: 8 [of.something] {{ a: 1 }} }}
    unheard_of {{ of: NOTHING {{ }} }}
  }}
}}
train_config {{ batch_size: 4 fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED" }}
"""


@pytest.mark.parametrize(
    ("resizer", "expected"),
    [
        ("fixed_shape_resizer { height: 320 }", FixedShape("BILINEAR", 320, 300)),
        ("fixed_shape_resizer { resize_method: AREA }", FixedShape("AREA", 300, 300)),
        ("keep_aspect_ratio_resizer { }", KeepAspectRatio("BILINEAR", 600, 1024, False)),
        (
            "keep_aspect_ratio_resizer { min_dimension: 9 max_dimension: 9 pad_to_max_dimension: true"
            " per_channel_pad_value: [1, 2, 3] }",
            KeepAspectRatio("BILINEAR", 9, 9, True),
        ),
        ("identity_resizer { }", Resizer()),
        ("conditional_shape_resizer { condition: SMALLER }", ConditionalShape("BILINEAR", "SMALLER", 300)),
        ("pad_to_multiple_resizer { multiple: 64 convert_to_grayscale: true }", PadToMultiple("BILINEAR", 64)),
    ],
)
@pytest.mark.parametrize("family", ["ssd", "faster_rcnn", "center_net"])
def test_what_a_config_says(family: str, resizer: str, expected: Resizer) -> None:
    text = CONFIG.format(family=family, resizer=resizer).replace("unheard_of { of: NOTHING { } }", "unheard_of { }")
    said = parse(text.encode(), "x")
    assert said == PipelineConfig(family, "some_keras", 90, expected, said.suppression)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0.0, 0.6, 100, 100, False, ())),
        (
            "score_threshold: 0.25 iou_threshold: 0.5 max_detections_per_class: 20 max_total_detections: 50"
            " use_class_agnostic_nms: true use_cpu_nms: true",
            (0.25, 0.5, 20, 50, True, ()),
        ),
        (
            "use_combined_nms: true soft_nms_sigma: 0.5 change_coordinate_frame: false",
            (0.0, 0.6, 100, 100, False, ("soft_nms_sigma", "use_combined_nms", "change_coordinate_frame")),
        ),
    ],
)
def test_what_a_config_says_of_suppression(text: str, expected: tuple[object, ...]) -> None:
    nms = f"post_processing {{ batch_non_max_suppression {{ {text} }} score_converter: SIGMOID }}"
    said = parse(f"model {{ ssd {{ image_resizer {{ identity_resizer {{ }} }} {nms} }} }}".encode(), "x").suppression
    assert astuple(said)[2:] == expected[2:]
    assert (said.score_threshold, said.iou_threshold) == pytest.approx(expected[:2])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model {", r"a/pipeline\.config is not a pipeline\.config .*: line 1: "),
        ("model { ssd {\n num_classes: x } }", "line 2: "),
        ("item { id: 1 }", "its model must be one of ssd, faster_rcnn, center_net"),
        ("model { ssd { num_classes: 1 } }", "its image_resizer is missing"),
        ("model { ssd { image_resizer { conditional_shape_resizer { condition: INVALID } } } }", "INVALID"),
        ("\xff", "codec"),
    ],
)
def test_what_is_no_config_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        parse(text.encode("latin-1"), "a/pipeline.config")
