"""Tiny hand-made models with the signatures of the API's exporters: `python tests/saved_models.py FOLDER` makes all.

Run in a process of its own, so that building does not fix TensorFlow's threads for the tests that open them.
What they see: `bright` pixels, those with a channel of 200 or more. A picture with bright pixels has two detections:
the box around them, class 1, 2 or 3 for red, green or blue by the picture's strongest channel, score 0.75; and the
whole picture, class 90, score 0.25. The rest of the K = 5 rows is padding, which an honest reader does not read.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

K = 5
PIXEL_MODELS = {
    "zoo": ("uint8", [1, None, None, 3]),
    "free": ("uint8", [None, None, None, 3]),
    "float": ("float32", [None, None, None, 3]),
    "fixed": ("uint8", [1, 64, 64, 3]),
    "int32": ("int32", [1, None, None, 3]),
    "grey": ("uint8", [1, None, None, 1]),
    "batch_of_8": ("uint8", [8, None, None, 3]),
    "no_count": ("uint8", [1, None, None, 3]),
    "unbatched": ("uint8", [1, None, None, 3]),
    "nan": ("uint8", [1, None, None, 3]),
    "nan_boxes": ("uint8", [1, None, None, 3]),
    "masks": ("uint8", [1, None, None, 3]),
    "keypoints": ("uint8", [1, None, None, 3]),
}
#: In the zoo's layout, each with the part of its `pipeline.config` that says how it resizes. Floats, and a free batch.
#: Their first score grows with the sum of what the network sees.
RESIZING_MODELS = {
    "fixed_shape": "fixed_shape_resizer { height: 60 width: 80 }",
    "letterboxed": "keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 96 pad_to_max_dimension: true }",
    # The same, but that its scores also depend on how high the picture was before.
    "peeking": "keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 96 pad_to_max_dimension: true }",
}
#: The mask of every detection: only its right half.
MASK = [[0.0, 1.0], [0.0, 1.0]]
#: y, x of every detection's keypoints, and their scores; the second is missing.
KEYPOINTS, KEYPOINT_SCORES = [[0.25, 0.5], [0.0, 0.0], [1.0, 0.75]], [0.5, 0.25, 1.0]


def build_all(folder: Path) -> None:
    """Makes every model in `folder`, each under its name."""
    build(folder)


def build(folder: Path, *names: str) -> None:
    """Makes some of the models; all when none is named."""
    command = [sys.executable, __file__, str(folder), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def _see(pixels: Any) -> dict[str, Any]:
    """The zoo's outputs for float32 [N, H, W, C]."""
    import tensorflow as tf

    bright = tf.reduce_max(pixels, -1) >= 200
    n = tf.shape(pixels)[0]
    low, high = [], []
    for other_axis, size in ((2, tf.shape(pixels)[1]), (1, tf.shape(pixels)[2])):
        line = tf.cast(tf.reduce_any(bright, other_axis), tf.int32)
        low.append(tf.argmax(line, 1, tf.int32) / size)
        high.append((size - tf.argmax(tf.reverse(line, [1]), 1, tf.int32)) / size)
    box = tf.cast(tf.stack([*low, *high], 1), tf.float32)[:, None]
    rest = tf.tile([[[0.0, 0.0, 1.0, 1.0]]], [n, K - 1, 1])
    is_any = tf.cast(tf.reduce_any(bright, [1, 2]), tf.float32)
    strongest = tf.cast(tf.argmax(tf.reduce_mean(pixels, [1, 2]), -1), tf.float32)
    classes = tf.concat([strongest[:, None] + 1, tf.tile([[90.0, 1.0, 1.0, 1.0]], [n, 1])], 1)
    scores = tf.tile([[0.75, 0.25, 0.125, 0.125, 0.125]], [n, 1])
    return {
        "detection_boxes": tf.concat([box, rest], 1),
        "detection_scores": scores,
        "detection_classes": classes,
        "num_detections": 2 * is_any,
        # As Mask R-CNN and SSD have them: raw outputs, and internals without a batch dimension.
        "detection_multiclass_scores": tf.zeros([n, K, 91]),
        "detection_anchor_indices": tf.zeros([n, K]),
        "raw_detection_boxes": tf.zeros([n, 7, 4]),
        "raw_detection_scores": tf.zeros([n, 7, 91]),
        "anchors": tf.zeros([7, 4]),
        "image_shape": tf.cast(tf.shape(pixels), tf.float32),
    }


def _pixel_model(name: str) -> Callable[[Any], dict[str, Any]]:
    import tensorflow as tf

    def model(input_tensor: Any) -> dict[str, Any]:
        outputs = _see(tf.cast(input_tensor, tf.float32))
        if name == "masks":
            outputs["detection_masks"] = tf.tile(tf.constant(MASK)[None, None], [1, K, 1, 1])
        if name == "keypoints":
            outputs["detection_keypoints"] = tf.tile(tf.constant(KEYPOINTS)[None, None], [1, K, 1, 1])
            outputs["detection_keypoint_scores"] = tf.tile(tf.constant(KEYPOINT_SCORES)[None, None], [1, K, 1])
        if name == "no_count":
            del outputs["num_detections"]
        if name == "unbatched":
            outputs = {key: value[0] for key, value in outputs.items()}
        if name == "nan":
            outputs["detection_scores"] *= tf.where(outputs["num_detections"] > 0, float("nan"), 1.0)[:, None]
        if name == "nan_boxes":
            outputs["detection_boxes"] *= tf.where(outputs["num_detections"] > 0, float("nan"), 1.0)[:, None, None]
        return outputs

    return model


def _resizing_model(name: str) -> Callable[[Any], dict[str, Any]]:
    """A model with a resizer inside, written as the API writes it."""
    import tensorflow as tf

    def resize(image: Any) -> tuple[Any, Any]:
        size, keep = ([60, 80], False) if name == "fixed_shape" else ([96, 96], True)
        image = tf.compat.v1.image.resize_images(image, size, preserve_aspect_ratio=keep)
        true = tf.shape(image)
        padded = tf.pad(image, [[0, size[0] - true[0]], [0, size[1] - true[1]], [0, 0]])
        return tf.ensure_shape(padded, [*size, 3]), true

    def model(input_tensor: Any) -> dict[str, Any]:
        images, true = tf.map_fn(resize, input_tensor, fn_output_signature=(tf.float32, tf.int32))
        outputs = _see(images)
        # Boxes are shares of the true picture, not of the padded one.
        shares = tf.cast(tf.shape(images)[1:3][None] / true[:, :2], tf.float32)
        outputs["detection_boxes"] = tf.minimum(outputs["detection_boxes"] * tf.tile(shares, [1, 2])[:, None], 1.0)
        sums = tf.reduce_sum(images, [1, 2, 3]) / tf.cast(tf.reduce_prod(true, 1), tf.float32)
        first = tf.one_hot(0, K)[None] * sums[:, None] / 1024
        outputs["detection_scores"] += first
        if name == "peeking":
            outputs["detection_scores"] += tf.cast(tf.shape(input_tensor)[1], tf.float32) / 1024
        return outputs

    return model


def _decoded(file: Any) -> Any:
    import tensorflow as tf

    pixels = tf.io.decode_image(file, 3, expand_animations=False)
    pixels.set_shape([None, None, 3])
    return pixels


def _of_encoded(input_tensor: Any) -> dict[str, Any]:
    """As the API's `encoded_image_string_tensor` does it."""
    import tensorflow as tf

    return _see(tf.cast(tf.map_fn(_decoded, input_tensor, fn_output_signature=tf.uint8), tf.float32))


def _of_example(input_tensor: Any) -> dict[str, Any]:
    """As the API's `tf_example` does it."""
    import tensorflow as tf

    features = {"image/encoded": tf.io.FixedLenFeature([], tf.string)}

    def decoded(example: Any) -> Any:
        return _decoded(tf.io.parse_single_example(example, features)["image/encoded"])

    return _see(tf.cast(tf.map_fn(decoded, input_tensor, fn_output_signature=tf.uint8), tf.float32))


def _of_chance(input_tensor: Any, tall_only: bool = False) -> dict[str, Any]:
    """Another first score in each call; perhaps only for pictures that are higher than wide."""
    import tensorflow as tf

    outputs = _see(tf.cast(input_tensor, tf.float32))
    noise = tf.random.uniform([1, K])
    if tall_only:
        shape = tf.shape(input_tensor)
        noise *= tf.cast(shape[1] > shape[2], tf.float32)
    outputs["detection_scores"] += noise
    return outputs


def _save_counting(folder: Path) -> None:
    """A model with a state: its scores count its calls."""
    import tensorflow as tf

    module = tf.Module()
    module.calls = tf.Variable(0.0)

    @tf.function(input_signature=[tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")])
    def counted(input_tensor: Any) -> dict[str, Any]:
        outputs = _see(tf.cast(input_tensor, tf.float32))
        outputs["detection_scores"] += module.calls.assign_add(1.0)
        return outputs

    tf.saved_model.save(module, str(folder / "counts"), signatures=counted.get_concrete_function())


def _save_tf1(folder: Path) -> None:
    """What TF1's exporter writes: a SavedModel in `folder`/tf1, whose weight is a variable, and a frozen graph."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default() as graph, v1.Session() as session:
        pixels = v1.placeholder(tf.uint8, [None, None, None, 3], "image_tensor")
        scale = v1.get_variable("scale", initializer=1.0, use_resource=False)
        keys = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
        seen = _see(tf.cast(pixels, tf.float32))
        seen["detection_scores"] *= scale
        outputs = {key: tf.identity(seen[key], key) for key in keys}
        session.run(v1.global_variables_initializer())
        v1.saved_model.simple_save(session, str(folder / "tf1"), {"inputs": pixels}, outputs)
        frozen = v1.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), list(keys))
        classifier = v1.graph_util.extract_sub_graph(frozen, ["detection_scores"])
    (folder / "tf1_frozen").mkdir()
    (folder / "tf1_frozen" / "frozen_inference_graph.pb").write_bytes(frozen.SerializeToString())
    (folder / "classifier.pb").write_bytes(classifier.SerializeToString())


def _main(folder: Path, names: Sequence[str]) -> None:
    import tensorflow as tf

    def save(name: str, function: Any, *inputs: Any, at: str | None = None) -> None:
        if names and name not in names:
            return
        concrete = tf.function(function, input_signature=inputs).get_concrete_function()
        tf.saved_model.save(tf.Module(), str(folder / (at or name)), signatures=concrete)

    for name, (dtype, shape) in PIXEL_MODELS.items():
        save(name, _pixel_model(name), tf.TensorSpec(shape, dtype, name="input_tensor"))
    for name, resizer in RESIZING_MODELS.items():
        if names and name not in names:
            continue
        floats = tf.TensorSpec([None, None, None, 3], tf.float32, name="input_tensor")
        save(name, _resizing_model(name), floats, at=f"{name}/saved_model")
        config = f"model {{ ssd {{ num_classes: 90 image_resizer {{ {resizer} }} box_coder {{ }} }} }}\n"
        (folder / name / "pipeline.config").write_text(config)
    pixels = tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")
    save("encoded", _of_encoded, tf.TensorSpec([None], tf.string, "input_tensor"))
    save("tf_example", _of_example, tf.TensorSpec([None], tf.string, "input_tensor"))
    save("random", _of_chance, pixels)
    save("random_if_tall", lambda input_tensor: _of_chance(input_tensor, tall_only=True), pixels)
    if not names:
        _save_counting(folder)
        _save_tf1(folder)
    save("classifier", lambda image: {"probabilities": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2])}, pixels)
    save("two_inputs", lambda image, shape: _see(tf.cast(image, tf.float32)), pixels, tf.TensorSpec([2], name="shape"))
    if not names:
        tf.saved_model.save(tf.Module(), str(folder / "no_signature"))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
