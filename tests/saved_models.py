"""Tiny hand-made SavedModels with the signatures of the TF2 zoo: `python tests/saved_models.py FOLDER` makes them all.

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
}


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
        if name == "no_count":
            del outputs["num_detections"]
        if name == "unbatched":
            outputs = {key: value[0] for key, value in outputs.items()}
        if name == "nan":
            outputs["detection_scores"] *= tf.where(outputs["num_detections"] > 0, float("nan"), 1.0)[:, None]
        return outputs

    return model


def _main(folder: Path, names: Sequence[str]) -> None:
    import tensorflow as tf

    def save(name: str, function: Any, *inputs: Any) -> None:
        if names and name not in names:
            return
        concrete = tf.function(function, input_signature=inputs).get_concrete_function()
        tf.saved_model.save(tf.Module(), str(folder / name), signatures=concrete)

    for name, (dtype, shape) in PIXEL_MODELS.items():
        save(name, _pixel_model(name), tf.TensorSpec(shape, dtype, name="input_tensor"))
    pixels = tf.TensorSpec([1, None, None, 3], tf.uint8, name="input_tensor")
    save("encoded", lambda input_tensor: _see(tf.zeros([1, 8, 8, 3])), tf.TensorSpec([None], tf.string, "input_tensor"))
    save("classifier", lambda image: {"probabilities": tf.reduce_mean(tf.cast(image, tf.float32), [1, 2])}, pixels)
    save("two_inputs", lambda image, shape: _see(tf.cast(image, tf.float32)), pixels, tf.TensorSpec([2], name="shape"))
    if not names:
        tf.saved_model.save(tf.Module(), str(folder / "no_signature"))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2:])
