"""Inside the Object Detection API's environment: makes a model of random weights, and says what the API finds with it.

Run by `_parity.py` with the interpreter of that environment: `_parity_api.py FD CONFIG PIXELS FOLDER SEED`. FD is for
what it says, as `export_program.py` says it. Writes FOLDER in the zoo's layout (`saved_model/`, `checkpoint/`,
`pipeline.config`), exported by the API's own exporter, and `reference.npz`: of each picture every tensor of the API's
own `detect_fn`, as PICTURE/NAME without batch dimension.

Random weights as they are give activations that fade or explode with depth, and scores that are all alike. So while
pictures flow through the model for the first time, each normalisation takes the statistics of what reaches it, and
each head is scaled until its outputs have a spread that makes scores differ and gives boxes an area.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from object_detection import exporter_lib_v2

# A file beside the others of the package that this environment does not have.
sys.path.insert(0, str(Path(__file__).parents[1] / "beam_jobs" / "detectors" / "od_api"))
from export_program import build_model, read_config

#: Where the keypoints of a person are from the middle of it, in cells of CenterNet's output: down and to the right of
#: each of COCO's 17. So those that are drawn can be judged by looking at them.
_POSE = (
    *(-8, 0, -9, 1, -9, -1, -8, 2, -8, -2, -4, 4, -4, -4, -1, 8, -1, -8),
    *(-6, 9, 2, -9, 2, 2, 2, -2, 6, 3, 6, -3, 9, 4, 9, -4),
)

#: What a head's outputs shall be, by what the name of its layer (CenterNet: its task) holds; the first counts: their
#: mean (of all or of each) and their deviation, or, for scores before the sigmoid, their mean and the greatest of all.
_SPREADS = (
    # Proposals nearly sure to be something would all have the same score, as float32 writes it.
    ("RPN/ClassPredictor", 0.0, "deviation", 0.5),
    # Of pooled features, which vary little: a greater deviation would make rounding errors as large as what is allowed.
    ("ClassPredictor_dense", 0.0, "deviation", 1.0),
    ("ClassPredictor", -5.0, "greatest", 2.5),
    ("BoxEncodingPredictor", 0.0, "deviation", 1.0),
    ("BoxPredictor", 0.0, "deviation", 1.0),
    ("MaskPredictor_last_conv2d", 0.0, "deviation", 2.0),
    # In cells of CenterNet's output, four pixels of its input each.
    ("object_center", -6.0, "greatest", 2.0),
    ("box/scale", 20.0, "deviation", 6.0),
    ("box/offset", 0.5, "deviation", 0.2),
    ("keypoint/heatmap", -1.0, "greatest", 2.0),
    ("keypoint/regression", _POSE, "deviation", 1.0),
    ("keypoint/offset", 0.5, "deviation", 0.2),
)


def main(descriptor: str, config_file: str, pixels: str, folder: str, seed: str) -> None:
    """Makes the folder; see above."""
    with open(int(descriptor), "w") as parent:

        def say(**what: Any) -> None:
            print(json.dumps(what), file=parent, flush=True)

        make(config_file, pixels, Path(folder), int(seed), lambda step: say(step=step))
        say(done={})


def make(config_file: str, pixels: str, folder: Path, seed: int, report: Callable[[str], None]) -> None:
    """Makes the folder; see above."""
    report("building the model")
    config = read_config(config_file)
    with np.load(pixels) as file:
        pictures = [file[name] for name in file.files]
    tf.keras.utils.set_random_seed(seed)
    scratch = folder / "scratch"
    scratch.mkdir()
    # Also lets a config with keypoints name a file of them, which the exporter's model_builder needs too.
    model = build_model(config, "", scratch)
    _detect(model, pictures[:1])  # makes the variables
    report("spreading its outputs")
    calls = _spread_as_it_flows(model)
    # Mask R-CNN takes 3 GB for each.
    _detect(model, pictures[:2] if config.model.WhichOneof("model") == "faster_rcnn" else pictures)
    for layer, call in calls.items():
        layer.call = call
    tf.train.Checkpoint(model=model).save(str(scratch / "ckpt"))
    report("exporting it with the API's own exporter")
    exporter_lib_v2.export_inference_graph("image_tensor", config, str(scratch), str(folder))
    shutil.rmtree(scratch)
    shutil.copyfile(config_file, folder / "pipeline.config")
    report("detecting with the API")
    takes = [tf.TensorSpec([None, None, 3], tf.uint8)]
    detect_fn = tf.function(lambda pixels: _detect(model, [pixels]), input_signature=takes)
    found: dict[str, Any] = {}
    for index, picture in enumerate(pictures):
        tensors = {name: tensor.numpy() for name, tensor in detect_fn(picture).items()}
        # Some of the internals of Faster R-CNN have no batch dimension.
        found |= {f"{index}/{name}": tensor[0] for name, tensor in tensors.items() if tensor.shape[:1] == (1,)}
    np.savez(folder / "reference.npz", **found)


def _detect(model: Any, pictures: list[Any]) -> dict[str, Any]:
    """What the API's tutorials call detect_fn: preprocess, predict, postprocess. Classes from 1, as it exports them.

    Of several pictures those that have the shape of the first after the model's own resizing.
    """
    ready = [model.preprocess(tf.cast(pixels, tf.float32)[tf.newaxis]) for pixels in pictures]
    ready = [(image, shape) for image, shape in ready if image.shape == ready[0][0].shape]
    batch, shapes = (tf.concat(tensors, 0) for tensors in zip(*ready, strict=True))
    found = dict(model.postprocess(model.predict(batch, shapes), shapes))
    found["detection_classes"] = tf.cast(found["detection_classes"], tf.float32) + 1
    return found


def _spread_as_it_flows(model: Any) -> dict[Any, Callable[..., Any]]:
    """Makes each layer of `model` fit itself to what reaches it first; gives the calls to put back."""
    calls: dict[Any, Callable[..., Any]] = {}

    def replace(layer: Any, fit: Callable[[Any, Any, bool], None]) -> None:
        call = calls[layer] = layer.call

        def fitting(inputs: Any, *args: Any, **kwargs: Any) -> Any:
            # Keras also calls layers to see what shape they give: then nothing flows.
            if tf.executing_eagerly():
                fit(inputs, lambda: call(inputs, *args, **kwargs), layer in waiting)
                waiting.discard(layer)
            return call(inputs, *args, **kwargs)

        layer.call = fitting

    def normalise(layer: Any) -> Callable[[Any, Any, bool], None]:
        def fit(inputs: Any, _: Any, is_first: bool) -> None:
            if is_first:
                mean, variance = tf.nn.moments(inputs, list(range(inputs.shape.rank - 1)))
                layer.moving_mean.assign(mean)
                layer.moving_variance.assign(variance + 1e-3)

        return fit

    def scale(layer: Any, mean: Any, kind: str, value: float) -> Callable[[Any, Any, bool], None]:
        kernel = layer.pointwise_kernel if hasattr(layer, "pointwise_kernel") else layer.kernel

        def fit(_: Any, outputs: Any, is_first: bool) -> None:
            given = outputs()
            if is_first:
                now, variance = tf.nn.moments(given, list(range(given.shape.rank - 1)))
                factor = 1 / tf.sqrt(tf.maximum(variance, 1e-9))
                if kind == "deviation":
                    factor *= value
                else:
                    # The last cell of most pictures is padding: all of it has one value, which shall be no high score.
                    factor *= tf.where(tf.reduce_mean(given[:, -1, -1], 0) > now, -1.0, 1.0)
                    # Of few cells the greatest is near the mean: then it stays below, or rounding errors would grow.
                    factor *= tf.minimum(1.5, (value - mean) / tf.reduce_max((given - now) * factor))
            elif kind == "greatest":
                # A head that several levels share.
                now, factor = mean, tf.minimum(1.0, (value - mean) / tf.reduce_max(given - mean))
            else:
                return
            kernel.assign(kernel * factor)
            layer.bias.assign((layer.bias - now) * factor + mean)

        return fit

    heads = _heads(model)
    for layer in model.submodules:
        if hasattr(layer, "moving_variance"):
            replace(layer, normalise(layer))
        elif layer in heads:
            replace(layer, scale(layer, *heads[layer]))
    assert heads
    waiting = set(calls)
    return calls


def _heads(model: Any) -> dict[Any, tuple[Any, str, float]]:
    """The layers that give a head's outputs, with what these shall be."""
    named: dict[Any, str] = {}
    for task, nets in getattr(model, "_prediction_head_dict", {}).items():
        named |= {net.layers[-1]: task for net in nets}
    if not named:
        first_stage = getattr(model, "_first_stage_box_predictor", None)
        rpn = set(first_stage.submodules) if first_stage is not None else set()
        convolutions = (tf.keras.layers.Conv2D, tf.keras.layers.SeparableConv2D, tf.keras.layers.Dense)
        for layer in model.submodules:
            if isinstance(layer, convolutions) and not isinstance(layer, tf.keras.layers.DepthwiseConv2D):
                named[layer] = ("RPN/" if layer in rpn else "") + layer.name
    heads: dict[Any, tuple[Any, str, float]] = {}
    for layer, name in named.items():
        for part, mean, kind, value in _SPREADS:
            if part in name:
                heads[layer] = mean, kind, value
                break
    return heads


if __name__ == "__main__":
    main(*sys.argv[1:6])
