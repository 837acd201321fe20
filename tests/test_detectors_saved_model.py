"""Models of all signatures that TensorFlow runs: what is read from them, and what is refused."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.detectors import catalogue, open_detector
from beam_jobs.detectors.base import Detector, DetectorSpec
from beam_jobs.detectors.frozen_graph import import_graph
from beam_jobs.detectors.model_input import fed
from beam_jobs.detectors.tensorflow_detector import TensorFlowDetector
from beam_jobs.errors import InputError, UsageError
from tests import saved_models


def spec_of(folder: Path, threads: int = 1) -> DetectorSpec:
    return catalogue.resolve(str(folder), label_map=None, threads=threads)


def open_model(folder: Path) -> Detector:
    return open_detector(spec_of(folder))


def picture(height: int, width: int, box: tuple[int, int, int, int], channel: int) -> NDArray[np.uint8]:
    """Black, with `box` (xmin, ymin, xmax, ymax) at 255 in one channel."""
    pixels = np.zeros((height, width, 3), np.uint8)
    xmin, ymin, xmax, ymax = box
    pixels[ymin:ymax, xmin:xmax, channel] = 255
    return pixels


@pytest.mark.parametrize("name", ["zoo", "free", "float", "encoded", "tf_example", "tf1", "tf1_frozen"])
def test_boxes_are_pixels_of_each_picture(models: Path, name: str) -> None:
    detector = open_model(models / name)
    green, red = picture(40, 80, (8, 10, 24, 30), 1), picture(50, 25, (5, 0, 25, 40), 0)
    found = detector.detect([green, np.zeros((9, 9, 3), np.uint8), red])
    assert [len(each) for each in found] == [2, 0, 2]
    np.testing.assert_allclose(found[0].boxes, [[8, 10, 24, 30], [0, 0, 80, 40]], rtol=1e-6)
    np.testing.assert_allclose(found[2].boxes, [[5, 0, 25, 40], [0, 0, 25, 50]], rtol=1e-6)
    assert_array_equal(found[0].category_ids, [2, 90])
    assert_array_equal(found[2].category_ids, [1, 90])
    assert_array_equal(found[0].scores, np.array([0.75, 0.25], np.float32))


def test_results_are_those_of_a_direct_call(models: Path) -> None:
    import tensorflow as tf

    detector = open_model(models / "zoo")
    pixels = np.random.default_rng(1).integers(0, 205, (37, 53, 3), np.uint8)
    direct = tf.saved_model.load(str(models / "zoo")).signatures["serving_default"](tf.constant(pixels[None]))
    (found,) = detector.detect([pixels])
    count = int(direct["num_detections"].numpy()[0])
    assert len(found) == count == 2
    assert_array_equal(found.scores, direct["detection_scores"].numpy()[0, :count])
    assert_array_equal(found.category_ids, direct["detection_classes"].numpy()[0, :count].astype(int))
    yxyx = direct["detection_boxes"].numpy()[0, :count]
    assert_array_equal(found.boxes, yxyx[:, [1, 0, 3, 2]] * np.array([53, 37, 53, 37], np.float32))


def test_a_graph_that_waits_for_what_it_is_fed() -> None:
    """Such edges are left by TensorFlow's optimizer, from weights that only something else used."""
    from beam_jobs.detectors.tensorflow_runtime import set_threads, tf

    set_threads(1)
    graph = tf.Graph()
    with graph.as_default():
        pixels = tf.compat.v1.placeholder(tf.uint8, [1, None, None, 3], "image_tensor")
        weight = tf.compat.v1.placeholder(tf.float32, [2], "weight")
        with tf.control_dependencies([weight, pixels]):
            nothing = tf.no_op("nothing")
        with tf.control_dependencies([nothing]):
            tf.multiply(tf.cast(tf.shape(pixels)[1], tf.float32), weight, "detection_scores")
    model = import_graph(
        graph.as_graph_def(), "image_tensor", ("detection_scores",), {"weight": np.array([1, 2], np.float32)}
    )
    given = model.call(tf.zeros([1, 7, 9, 3], tf.uint8))
    assert_array_equal(given["detection_scores"], [7, 14])


def test_a_fixed_input_size_gets_pictures_resized_to_it(models: Path) -> None:
    (found,) = open_model(models / "fixed").detect([picture(128, 256, (64, 32, 128, 96), 2)])
    np.testing.assert_allclose(found.boxes[0], [64, 32, 128, 96], atol=4)  # one of 64 columns
    assert found.category_ids[0] == 3


def test_a_model_without_a_count_gives_all_its_rows(models: Path) -> None:
    (found,) = open_model(models / "no_count").detect([picture(8, 8, (0, 0, 4, 4), 0)])
    assert len(found) == saved_models.K


def test_what_it_says_of_itself(models: Path) -> None:
    import tensorflow as tf

    info = open_model(models / "zoo").info
    assert info.engine == "tensorflow"
    assert info.details == {
        "form": "saved_model",
        "input": "input_tensor uint8 [1, None, None, 3]",
        "outputs": "detection_boxes, detection_scores, detection_classes, num_detections",
        "batch": "1",
        "device": "CPU",
        "threads": "1",
        "tensorflow": tf.__version__,
    }
    assert open_model(models / "free").info.details["batch"] == "free"
    assert open_model(models / "tf_example").info.details["input"] == "input_tensor string [None], tf_example"


def test_pixels_reach_a_model_of_encoded_pictures_as_they_are(models: Path) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (21, 34, 3), np.uint8)
    takes = cast(TensorFlowDetector, open_model(models / "encoded")).model.takes
    (file,) = fed(takes, [pixels]).numpy()
    assert_array_equal(np.asarray(Image.open(io.BytesIO(file))), pixels)


def test_masks_and_keypoints_are_read(models: Path) -> None:
    (found,) = open_model(models / "masks").detect([picture(40, 80, (8, 10, 24, 30), 1)])
    assert found.masks is not None
    assert_array_equal(found.masks.grids[0], np.array(saved_models.MASK, np.float32))
    np.testing.assert_allclose(found.masks.frames[0], [8, 10, 24, 30], rtol=1e-6)
    (found,) = open_model(models / "keypoints").detect([picture(40, 80, (8, 10, 24, 30), 1)])
    assert found.keypoints is not None
    assert_array_equal(found.keypoints[0], [[40, 10, 0.5], [0, 0, 0], [60, 40, 1]])


def test_scores_that_are_not_numbers_cost_the_picture(models: Path) -> None:
    detector = open_model(models / "nan")
    (found,) = detector.detect([np.zeros((8, 8, 3), np.uint8)])
    assert len(found) == 0
    with pytest.raises(InputError, match="not finite"):
        detector.detect([picture(8, 8, (0, 0, 4, 4), 0)])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("classifier", r"inputs are input_tensor uint8 \[1, None, None, 3\]; its outputs are probabilities float32"),
        ("classifier.pb", "inputs are image_tensor; its outputs are detection_scores"),
        ("two_inputs", "shape float32"),
        ("int32", "input_tensor int32"),
        ("grey", r"uint8 \[1, None, None, 1\]"),
        ("batch_of_8", r"uint8 \[8, None, None, 3\]"),
        ("no_signature", "signatures are: none"),
        ("unbatched", r"black picture: .* got detection_boxes \[5, 4\]"),
    ],
)
def test_what_is_not_a_detector_is_refused(models: Path, name: str, found: str) -> None:
    with pytest.raises(UsageError, match=rf"{name} (is not a detector|fails).*{found}.*A detector has one input"):
        open_model(models / name)


@pytest.mark.parametrize(
    ("whole", "kind"), [("zoo/saved_model.pb", "SavedModel"), ("tf1_frozen/frozen_inference_graph.pb", "frozen graph")]
)
def test_a_truncated_model_is_refused(models: Path, tmp_path: Path, whole: str, kind: str) -> None:
    data = (models / whole).read_bytes()
    (tmp_path / Path(whole).name).write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match=rf"cannot be (loaded|read) as a {kind}: "):
        open_model(tmp_path)


def test_other_threads_in_the_same_process_are_refused(models: Path) -> None:
    open_model(models / "zoo")
    with pytest.raises(UsageError, match="in a process of its own"):
        open_detector(spec_of(models / "zoo", threads=3))


def test_a_resolved_folder_opens_in_another_process_and_with_other_threads(models: Path, tmp_path: Path) -> None:
    spec = catalogue.resolve(str(models / "free"), label_map=None, threads=2)
    (tmp_path / "spec").write_bytes(pickle.dumps(spec))
    code = (
        "import pickle, sys; from beam_jobs.detectors import open_detector;"
        "print(open_detector(pickle.load(open(sys.argv[1], 'rb'))).info.details['threads'])"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", code, str(tmp_path / "spec")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "2\n"
