"""Exports a checkpoint, inside the environment of the Object Detection API: a program of its own, imported by nothing.

`export_program.py FD CONFIG PREFIX OUTPUT LABEL_MAP`: OUTPUT is an empty folder that gets `saved_model/`; LABEL_MAP may
be "". What it has to say are lines of JSON to the file descriptor FD, an object of one key each: `step`, then `done` or
`error`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from object_detection import exporter_lib_v2
from object_detection.builders import model_builder
from object_detection.models.keras_models import mobilenet_v2
from object_detection.protos import pipeline_pb2
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

#: Takes one line for people.
Report = Callable[[str], None]

_VALUE = "VARIABLE_VALUE"
_SHOWN = 2
_LEAST_GAP = 1e-3

# fmt: off
#: In the order of COCO's `keypoints`.
_COCO_KEYPOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)
# fmt: on


class RefusedError(Exception):
    """It cannot be exported, for a reason that the user can understand."""


def main(descriptor: str, config_file: str, prefix: str, output: str, label_map: str) -> int:
    """Exports; says how it went, and returns the exit status."""
    with open(int(descriptor), "w") as parent:

        def say(**what: Any) -> None:
            print(json.dumps(what), file=parent, flush=True)

        try:
            say(done=_export(config_file, prefix, Path(output), label_map, lambda step: say(step=step)))
        except Exception as error:
            traceback.print_exc()
            say(error=str(error).strip() if isinstance(error, RefusedError) else f"{type(error).__name__}: {error}")
            return 1
        return 0


def _export(config_file: str, prefix: str, output: Path, label_map: str, report: Report) -> dict[str, Any]:
    report("building the model")
    config = read_config(config_file)
    with tempfile.TemporaryDirectory() as scratch:
        model = build_model(config, label_map, Path(scratch))
    module, function, is_free, why = _restored_module(model, prefix, report)
    report(f"writing the SavedModel, {'of a free batch' if is_free else 'of one picture a call'}{why}")
    tf.saved_model.save(module, str(output / "saved_model"), signatures=function)
    spec = function.inputs[0]
    return {
        "input": {"name": "input_tensor", "dtype": spec.dtype.name, "shape": spec.shape.as_list()},
        "outputs": sorted(function.structured_outputs),
        "variables": len(model.variables),
        "tensorflow": tf.__version__,
    }


def read_config(file: str) -> Any:
    """The TrainEvalPipelineConfig in a file of text."""
    config = pipeline_pb2.TrainEvalPipelineConfig()
    try:
        return text_format.Parse(Path(file).read_text(), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise RefusedError(f"the config is no TrainEvalPipelineConfig: {error}") from error


def build_model(config: Any, label_map: str, scratch: Path) -> Any:
    """The model that the config describes, with weights of its initialisers.

    Paths that only training needs are not looked at, and no weights of a backbone are downloaded.
    """
    _set_keypoint_label_map(config.model, label_map, scratch / "keypoints.pbtxt")
    build = mobilenet_v2.mobilenet_v2

    def without_download(*args: Any, **kwargs: Any) -> Any:
        # CenterNet's backbones ask for ImageNet's weights, which the checkpoint replaces.
        return build(*args, **kwargs | ({"weights": None} if kwargs.get("weights") == "imagenet" else {}))

    mobilenet_v2.mobilenet_v2 = without_download
    try:
        return model_builder.build(config.model, is_training=False)
    except (ValueError, KeyError, AttributeError) as error:
        raise RefusedError(f"the API cannot build the config's model: {error}") from error
    finally:
        mobilenet_v2.mobilenet_v2 = build


def _set_keypoint_label_map(model: Any, label_map: str, written: Path) -> None:
    """Makes sure that a config with keypoints names a file with their names: theirs, the user's, or COCO's."""
    if model.WhichOneof("model") != "center_net" or not model.center_net.keypoint_estimation_task:
        return
    given = Path(model.center_net.keypoint_label_map_path)
    if given.is_file():
        return
    if label_map and "keypoints" in Path(label_map).read_text(errors="replace"):
        model.center_net.keypoint_label_map_path = label_map
        return
    [task, *others] = model.center_net.keypoint_estimation_task
    if others or set(task.keypoint_label_to_std) != set(_COCO_KEYPOINTS):
        raise RefusedError(
            f"the config's keypoint_label_map_path, {given}, is no file, and its keypoints are not COCO's 17: "
            "--label_map must be a label map with keypoints"
        )
    # The zoo's models have them in COCO's order.
    keypoints = "".join(f' keypoints {{ id: {i} label: "{name}" }}' for i, name in enumerate(_COCO_KEYPOINTS))
    written.write_text(f'item {{ id: 1 name: "{task.keypoint_class_name}"{keypoints} }}\n')
    model.center_net.keypoint_label_map_path = str(written)


def _restored_module(model: Any, prefix: str, report: Report) -> tuple[Any, Any, bool, str]:
    """What is to be saved: the module, its function, whether its batch is free, and why it is not.

    The variables exist when the model has been traced, and only then can be compared with the checkpoint's.
    """
    report("tracing it")
    free = exporter_lib_v2.DETECTION_MODULE_MAP["float_image_tensor"](model)
    try:
        function = free.__call__.get_concrete_function()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        fault = f"it cannot be traced ({_reason(error)})"
    else:
        report("restoring the checkpoint")
        restore(model, prefix)
        report("comparing two pictures in one call with one at a time")
        fault = _batch_fault(function)
        if not fault:
            return free, function, True, ""
    one = exporter_lib_v2.DETECTION_MODULE_MAP["image_tensor"](model)
    try:
        function = one.__call__.get_concrete_function()
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise RefusedError(f"the API cannot trace the config's model: {_reason(error)}") from error
    restore(model, prefix)
    return one, function, False, f" (with a free batch {fault})"


def restore(model: Any, prefix: str) -> None:
    """Restores every variable of `model`, which has all of them, from the checkpoint; refuses one that does not fit."""
    faults = _misfits(model, prefix)
    if faults:
        shown = "; ".join(faults[:_SHOWN]) + (f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else "")
        raise RefusedError(f"the checkpoint does not fit the config: {shown}")
    status = tf.train.Checkpoint(model=model).restore(prefix)
    status.assert_existing_objects_matched()
    # What is left is the optimizer's and the trainer's: _misfits has looked at the model's.
    status.expect_partial()


def _misfits(model: Any, prefix: str) -> list[str]:
    """What of the model's variables the checkpoint lacks or has otherwise, and what of it the model lacks."""
    try:
        reader = tf.train.load_checkpoint(prefix)
        shapes = reader.get_variable_to_shape_map()
    except (tf.errors.OpError, ValueError) as error:
        raise RefusedError(f"the checkpoint cannot be read: {_reason(error)}") from error
    if "_CHECKPOINTABLE_OBJECT_GRAPH" not in shapes:
        raise RefusedError("the checkpoint is of TensorFlow 1 (it has names of variables, and no object graph)")
    graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    children = {child.local_name: child.node_id for child in graph.nodes[0].children}
    if "model" not in children:
        names = ", ".join(sorted(children)) or "nothing"
        raise RefusedError(f"the checkpoint is none of the API's training or exporter: it holds no model, but {names}")
    faults: list[str] = []
    seen: set[int | None] = set()
    for path, trackable, node_id in _walk(model, graph, children["model"]):
        seen.add(node_id)
        if not isinstance(trackable, tf.Variable):
            continue
        key = _key_of(graph, node_id)
        if key is None:
            faults.append(f"{path} is missing")
        elif shapes[key] != (shape := trackable.shape.as_list()):
            faults.append(f"{path} has the shape {shapes[key]}, the config's {shape}")
    left = [
        key for node in sorted(_below(graph, children["model"]) - seen) if (key := _key_of(graph, node)) is not None
    ]
    # The same value may be reachable by several ways, of which the model has one: then its node has been seen.
    return faults + [f"the config's model has no {key.split('/.ATTRIBUTES')[0]}" for key in left]


def _walk(root: Any, graph: Any, root_id: int) -> Iterator[tuple[str, Any, int | None]]:
    """Every object below the model: its path, itself, and its node in the checkpoint (None: it has none).

    As restoring itself does, names lead from object to object and from node to node.
    """
    pending: list[tuple[str, Any, int | None]] = [("model", root, root_id)]
    seen = {id(root)}
    while pending:
        path, trackable, node_id = here = pending.pop(0)
        yield here
        there = {} if node_id is None else {child.local_name: child.node_id for child in graph.nodes[node_id].children}
        for name, child in trackable._trackable_children().items():
            if id(child) not in seen:
                seen.add(id(child))
                pending.append((f"{path}/{name}", child, there.get(name)))


def _below(graph: Any, node_id: int) -> set[int]:
    found, pending = {node_id}, [node_id]
    while pending:
        for child in graph.nodes[pending.pop()].children:
            if child.node_id not in found:
                found.add(child.node_id)
                pending.append(child.node_id)
    return found


def _key_of(graph: Any, node_id: int | None) -> str | None:
    attributes = graph.nodes[node_id].attributes if node_id is not None else ()
    return next((attribute.checkpoint_key for attribute in attributes if attribute.name == _VALUE), None)


def _batch_fault(function: Any) -> str:
    """Why two pictures in one call do not give what they give one at a time; empty when they do."""
    pictures = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 160, 224, 3)).astype(np.float32))
    keys = ("detection_scores", "detection_classes", "detection_boxes", "num_detections")
    try:
        both = function(pictures)
        for index in range(2):
            one = {key: function(pictures[index : index + 1])[key][0].numpy() for key in keys}
            other = {key: both[key][index].numpy() for key in keys}
            gaps = np.abs(np.diff(one["detection_scores"], prepend=np.inf, append=-np.inf))
            # Rows whose scores are nearly those of their neighbours may change places.
            clear = (gaps[:-1] > _LEAST_GAP) & (gaps[1:] > _LEAST_GAP)
            if not (
                np.allclose(one["detection_scores"], other["detection_scores"], rtol=0, atol=1e-4)
                and np.allclose(one["num_detections"], other["num_detections"])
                and np.array_equal(one["detection_classes"][clear], other["detection_classes"][clear])
                and np.allclose(one["detection_boxes"][clear], other["detection_boxes"][clear], rtol=0, atol=1e-3)
            ):
                return "two pictures have other detections than each alone"
    except (ValueError, tf.errors.OpError) as error:
        return f"two pictures fail ({_reason(error)})"
    return ""


def _reason(error: Exception) -> str:
    """The line that says why: the first, but the last where TensorFlow says in which code before it says what."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if lines[0] == "in user code:" else 0][:300].rstrip(".")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
