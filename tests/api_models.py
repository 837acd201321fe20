"""Tiny SSDs and a CenterNet built as the Object Detection API builds and exports them, with seeded random weights.

Source: `exporter_lib_v2`, `ssd_meta_arch`, `core/post_processing` and `center_net_meta_arch` of the API. Made in the
process that calls `build`, whose TensorFlow then has one thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 3


@dataclass(frozen=True)
class Ssd:
    """An SSD to build.

    Args:
        resizer: of its config.
        letterbox: keeps proportions, in the upper left corner; else not.
        agnostic: suppresses overlaps whatever the classes are.
        background: has a column of raw scores for the background, the first.
        floats: is exported as `float_image_tensor` of a free batch, else as `image_tensor`.
        nms: further fields of its suppression.
    """

    resizer: str = "fixed_shape_resizer { height: 96 width: 128 }"
    letterbox: bool = False
    agnostic: bool = False
    background: bool = True
    floats: bool = True
    nms: str = ""


LETTERBOX = "keep_aspect_ratio_resizer { min_dimension: 96 max_dimension: 128 pad_to_max_dimension: true }"
SSDS = {
    "ssd": Ssd(),
    "letterboxed": Ssd(
        LETTERBOX, letterbox=True, agnostic=True, background=False, floats=False, nms="use_class_agnostic_nms: true"
    ),
    # Not what its config says.
    "other_resizer": Ssd("fixed_shape_resizer { height: 96 width: 128 }", letterbox=True),
    "soft": Ssd(nms="soft_nms_sigma: 0.5"),
}
_SCORE, _IOU, _PER_CLASS, _TOTAL = 0.02, 0.4, 10, 20


def build(folder: Path, *names: str) -> None:
    """Makes models in the zoo's layout, each under its name: of `SSDS`, or `centernet`."""
    from beam_jobs.detectors.tensorflow_runtime import set_threads, tf

    set_threads(1)
    for name in names:
        module = tf.Module()
        if name == "centernet":
            detect = _centernet(module)
            config = f"center_net {{ num_classes: {CLASSES} image_resizer {{ {LETTERBOX} }} }}"
            takes = tf.TensorSpec([None, None, None, 3], tf.float32, "input_tensor")
        else:
            ssd = SSDS[name]
            detect = _ssd(module, ssd)
            nms = f"score_threshold: {_SCORE} iou_threshold: {_IOU} max_detections_per_class: {_PER_CLASS} "
            nms += f"max_total_detections: {_TOTAL} {ssd.nms}"
            config = f"ssd {{ num_classes: {CLASSES} image_resizer {{ {ssd.resizer} }} "
            config += f"post_processing {{ batch_non_max_suppression {{ {nms} }} score_converter: SIGMOID }} }}"
            shape = [None if ssd.floats else 1, None, None, 3]
            takes = tf.TensorSpec(shape, tf.float32 if ssd.floats else tf.uint8, "input_tensor")
        function = tf.function(detect, input_signature=[takes]).get_concrete_function()
        tf.saved_model.save(module, str(folder / name / "saved_model"), signatures=function)
        (folder / name / "pipeline.config").write_text(f"model {{ {config} }}\n")


def _inputs(input_tensor: Any, size: tuple[int, int], letterbox: bool, before: Any, after: Any) -> tuple[Any, Any]:
    """Pictures resized in a loop, with what normalises them before and after; and their true shapes."""
    import tensorflow as tf

    def preprocess(picture: Any) -> tuple[Any, Any]:
        is_wide = tf.shape(picture)[0] < tf.shape(picture)[1]
        within = tf.where(is_wide, [96, 128], [128, 96]) if letterbox else size
        resized = tf.compat.v1.image.resize_images(
            before(tf.cast(picture, tf.float32)), within, preserve_aspect_ratio=letterbox
        )
        true = tf.shape(resized)
        padded = tf.pad(resized, [[0, size[0] - true[0]], [0, size[1] - true[1]], [0, 0]])
        return after(tf.ensure_shape(padded, [*size, 3])), true

    images, true = tf.map_fn(preprocess, input_tensor, fn_output_signature=(tf.float32, tf.int32))
    return images, true


def _variables(module: Any, shapes: dict[str, tuple[list[int], float, float]]) -> dict[str, tuple[Any, Any]]:
    """Kernels and biases, as variables of the module: shape, deviation, bias of each."""
    import tensorflow as tf

    random = np.random.default_rng(7)
    made = {}
    for name, (shape, deviation, bias) in shapes.items():
        kernel = tf.Variable(random.normal(0, deviation, shape).astype(np.float32))
        made[name] = kernel, tf.Variable(np.full(shape[-1], bias, np.float32))
        setattr(module, name, made[name])
    return made


def _ssd(module: Any, ssd: Ssd) -> Any:
    import tensorflow as tf

    columns, anchors = CLASSES + ssd.background, 2
    size = (128, 128) if "keep" in ssd.resizer else (96, 128)
    heads = {"scores": ([1, 1, 16, anchors * columns], 0.25, -2.0), "boxes": ([1, 1, 16, anchors * 4], 0.15, 0.0)}
    layers = _variables(module, {"body": ([5, 5, 3, 16], 0.25, 0.1)} | heads)

    def head(name: str, features: Any, width: int) -> Any:
        values = tf.nn.bias_add(tf.nn.conv2d(features, layers[name][0], 1, "SAME"), layers[name][1])
        return tf.reshape(values, [tf.shape(features)[0], -1, width])

    def detect(input_tensor: Any) -> dict[str, Any]:
        images, true = _inputs(input_tensor, size, ssd.letterbox, lambda x: (2.0 / 255.0) * x - 1.0, lambda x: x)
        features = tf.nn.relu6(tf.nn.conv2d(images, layers["body"][0], 8, "SAME") + layers["body"][1])
        encoded, logits = head("boxes", features, 4), head("scores", features, columns)
        rows, every = (tf.cast(tf.shape(features)[i], tf.float32) for i in (1, 2))
        y, x = tf.meshgrid((tf.range(rows) + 0.5) / rows, (tf.range(every) + 0.5) / every, indexing="ij")
        centres = tf.reshape(tf.stack([y, x], -1), [1, -1, 1, 2])
        boxes = tf.reshape(encoded, [tf.shape(images)[0], -1, anchors, 4])
        middles = centres + boxes[..., :2] * 0.2
        halves = tf.constant([[0.15, 0.1], [0.3, 0.4]]) * tf.exp(boxes[..., 2:] * 0.3)
        raw_boxes = tf.reshape(tf.concat([middles - halves, middles + halves], -1), [tf.shape(images)[0], -1, 4])
        raw_scores = tf.sigmoid(logits)
        shape = tf.cast(tf.shape(images)[1:3], tf.float32)
        window = tf.cast(true[:, :2], tf.float32) / shape
        found = tf.map_fn(
            lambda one: _suppressed(one[0], one[1], one[2], ssd.agnostic),
            (raw_boxes, raw_scores[..., int(ssd.background) :], tf.tile(window, [1, 2])),
            fn_output_signature=(tf.float32, tf.float32, tf.float32, tf.float32),
        )
        names = ("detection_boxes", "detection_scores", "detection_classes", "num_detections")
        return dict(zip(names, found, strict=True)) | {
            "raw_detection_boxes": raw_boxes,
            "raw_detection_scores": raw_scores,
        }

    return detect


def _suppressed(boxes: Any, scores: Any, window: Any, agnostic: bool) -> tuple[Any, Any, Any, Any]:
    """Of one picture, as `multiclass_non_max_suppression` and its class-agnostic sister do it."""
    import tensorflow as tf

    def kept(scores: Any, limit: int) -> Any:
        return tf.image.non_max_suppression_with_scores(boxes, scores, limit, _IOU, _SCORE)[0]

    if agnostic:
        best = tf.reduce_max(scores, 1)
        places = kept(best, _TOTAL)
        parts = [(places, tf.gather(best, places), tf.gather(tf.argmax(scores, 1, tf.int32), places))]
    else:
        parts = []
        for i in range(CLASSES):
            places = kept(scores[:, i], _PER_CLASS)
            parts.append((places, tf.gather(scores[:, i], places), tf.zeros_like(places) + i))
    places, found, classes = (tf.concat(each, 0) for each in zip(*parts, strict=True))
    clipped = tf.minimum(tf.maximum(tf.gather(boxes, places), 0.0), window)
    area = (clipped[:, 2] - clipped[:, 0]) * (clipped[:, 3] - clipped[:, 1])
    places = tf.where(area > 0)[:, 0]
    order = tf.gather(places, tf.argsort(tf.gather(found, places), direction="DESCENDING", stable=True))[:_TOTAL]
    missing = _TOTAL - tf.shape(order)[0]

    def padded(values: Any) -> Any:
        values = tf.gather(values, order)
        return tf.pad(values, [[0, missing]] + [[0, 0]] * (values.shape.rank - 1))

    classes = padded(tf.cast(classes, tf.float32)) + 1
    return padded(clipped / window), padded(found), classes, tf.cast(tf.shape(order)[0], tf.float32)


def _centernet(module: Any) -> Any:
    import tensorflow as tf

    k, stride, size = 20, 4, (128, 128)
    means, deviations = tf.constant([104.0, 112.0, 125.0]), tf.constant([70.0, 71.0, 72.0])
    heads = {"centre": ([3, 3, 16, CLASSES], 0.2, -2.0), "scale": ([1, 1, 16, 2], 0.8, 5.0)}
    heads["offset"] = [1, 1, 16, 2], 0.2, 0.5
    layers = _variables(module, {"body": ([5, 5, 3, 16], 0.15, 0.1)} | heads)

    def head(name: str, features: Any) -> Any:
        return tf.nn.bias_add(tf.nn.conv2d(features, layers[name][0], 1, "SAME"), layers[name][1])

    def detect(input_tensor: Any) -> dict[str, Any]:
        images, true = _inputs(
            input_tensor, size, True, lambda x: x, lambda x: (tf.reverse(x, [2]) - means) / deviations
        )
        features = tf.nn.relu(tf.nn.conv2d(images, layers["body"][0], stride, "SAME") + layers["body"][1])
        heat = tf.sigmoid(head("centre", features))
        batch, rows, columns = (tf.shape(heat)[i] for i in range(3))
        inside = tf.math.ceil(tf.cast(true[:, :2], tf.float32) / stride)
        y, x = tf.meshgrid(tf.range(rows), tf.range(columns), indexing="ij")
        grid = tf.cast(tf.stack([y, x], -1), tf.float32)[None]
        heat *= tf.cast(tf.reduce_all(grid < inside[:, None, None], -1), tf.float32)[..., None]
        peaks = tf.abs(heat - tf.nn.max_pool(heat, 3, 1, "SAME")) < 1e-6
        flat = tf.reshape(heat * tf.cast(peaks, tf.float32), [batch, -1])
        scores, places = tf.math.top_k(flat, k)
        classes, cells = places % CLASSES, places // CLASSES
        y, x = cells // columns, cells % columns
        of_batch = tf.repeat(tf.range(batch), k)
        indices = tf.stack([of_batch, tf.reshape(y, [-1]), tf.reshape(x, [-1])], axis=1)
        half = tf.maximum(tf.reshape(tf.gather_nd(head("scale", features), indices), [batch, k, 2]), 0.0) / 2
        offset = tf.reshape(tf.gather_nd(head("offset", features), indices), [batch, k, 2])
        middle = tf.cast(tf.stack([y, x], -1), tf.float32) + offset
        limit = tf.tile(tf.cast(tf.stack([rows, columns]), tf.float32), [2])
        strided = tf.minimum(tf.maximum(tf.concat([middle - half, middle + half], -1), 0.0), limit)
        sides = tf.cast(tf.tile(true[:, None, :2], [1, 1, 2]), tf.float32)
        return {
            "detection_boxes": tf.clip_by_value(strided * stride / sides, 0.0, 1.0),
            "detection_scores": scores,
            "detection_classes": tf.cast(classes, tf.float32) + 1,
            "num_detections": tf.reduce_sum(tf.cast(scores > 0, tf.float32), 1),
        }

    return detect
