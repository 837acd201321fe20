"""Makes a SavedModel of the Object Detection API's signature, and a LiteRT form, from TF.js coco-ssd.

`python -m … WORK TARGET` makes `TARGET/saved_model` and `TARGET/litert`.

Format: a TF.js graph model, `modelTopology` being a GraphDef in JSON whose strings are lists of byte codes, and
`weightsManifest` naming the constants in the order in which their little-endian bytes are joined.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

from beam_jobs.detectors.litert_form import FOLDER, NETWORK, Form
from beam_jobs.detectors.nms import Suppression
from beam_jobs.detectors.raw_outputs import PostProcessing
from beam_jobs.detectors.tflite_conversion import to_tflite, without_add_n

#: The pictures after resizing, float [N, 300, 300, 3] of 0 to 255.
_RESIZED = "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3"
#: [N, anchors, 90]; column c is the COCO category c + 1.
_SCORES = "Postprocessor/Slice"
#: [N, anchors, 1, 4] ymin, xmin, ymax, xmax, normalised.
_BOXES = "Postprocessor/ExpandDims_1"
_SIZE = 300
#: The pipeline.config's batch_non_max_suppression, with a score threshold that keeps the tail that AP counts.
_IOU, _SCORE, _PER_CLASS, _TOTAL = 0.6, 0.01, 100, 100


def convert(work: Path, target: Path) -> None:
    """Writes `saved_model` and `litert` below `target`, from `model.json` and `weights.bin` in `work`.

    Of the SavedModel, `input_tensor` is uint8 [N, height, width, 3], N being free; the outputs are float32:
    `detection_boxes` [N, 100, 4], `detection_scores` and `detection_classes` (1-based) [N, 100], `num_detections` [N].
    """
    graph = read_graph(work)

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8, name="input_tensor")])
    def detect(input_tensor: Any) -> dict[str, Any]:
        # In place of the graph's own loop over the pictures, a TF1 while loop that costs time and that functions run
        # badly: the same kernel on the whole batch, which gives the same bits.
        resized = tf.raw_ops.ResizeBilinear(images=tf.cast(input_tensor, tf.float32), size=[_SIZE, _SIZE])
        scores, boxes = tf.import_graph_def(
            graph, {_RESIZED: resized}, return_elements=[f"{_SCORES}:0", f"{_BOXES}:0"], name="coco_ssd"
        )
        found = tf.image.combined_non_max_suppression(
            boxes,
            scores,
            max_output_size_per_class=_PER_CLASS,
            max_total_size=_TOTAL,
            iou_threshold=_IOU,
            score_threshold=_SCORE,
        )
        return {
            "detection_boxes": found.nmsed_boxes,
            "detection_scores": found.nmsed_scores,
            "detection_classes": found.nmsed_classes + 1,
            "num_detections": tf.cast(found.valid_detections, tf.float32),
        }

    tf.saved_model.save(tf.Module(), str(target / "saved_model"), signatures=detect.get_concrete_function())
    _write_litert(graph, target / FOLDER)


def _write_litert(graph: Any, folder: Path) -> None:
    """Writes the network alone, for `litert_form`."""

    @tf.function(input_signature=[tf.TensorSpec([1, _SIZE, _SIZE, 3], tf.float32, name="picture")])
    def network(picture: Any) -> dict[str, Any]:
        scores, boxes = tf.import_graph_def(
            without_add_n(graph), {_RESIZED: picture}, return_elements=[f"{_SCORES}:0", f"{_BOXES}:0"], name=""
        )
        return {"boxes": tf.squeeze(boxes, 2), "scores": scores}

    folder.mkdir()
    (folder / NETWORK).write_bytes(to_tflite(network))
    Form(_SIZE, _SIZE, PostProcessing(Suppression(_IOU, _SCORE, _PER_CLASS, _TOTAL))).write(folder)


def read_graph(work: Path) -> Any:
    """The GraphDef from the resized pictures to raw boxes and scores, with the weights as constants.

    Constants, not variables: a graph without variables opens quicker.
    """
    model = json.loads((work / "model.json").read_bytes())
    nodes = [node | {"attr": {k: _attr(v) for k, v in node["attr"].items()}} for node in model["modelTopology"]["node"]]
    weights = _weights(model["weightsManifest"], (work / "weights.bin").read_bytes())
    whole = json_format.ParseDict({"node": nodes}, tf.compat.v1.GraphDef())
    graph = tf.compat.v1.GraphDef()
    for node in _ancestors({node.name: node for node in whole.node}):
        if node.name in weights:
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(weights[node.name]))
        graph.node.append(node)
    return graph


def _ancestors(nodes: dict[str, Any]) -> list[Any]:
    """The nodes that the outputs need, back to the resized pictures, which become a placeholder."""
    needed: dict[str, Any] = {}
    names = [_SCORES, _BOXES]
    while names:
        name = names.pop()
        if name in needed:
            continue
        node = needed[name] = nodes[name]
        if name == _RESIZED:
            node.Clear()
            node.name, node.op = name, "Placeholder"
            node.attr["dtype"].type = tf.float32.as_datatype_enum
        names += [edge.removeprefix("^").split(":")[0] for edge in node.input]
    return list(needed.values())


def _weights(manifest: list[dict[str, Any]], data: bytes) -> dict[str, Any]:
    weights, offset = {}, 0
    for weight in (weight for group in manifest for weight in group["weights"]):
        dtype = np.dtype(weight["dtype"]).newbyteorder("<")
        count = int(np.prod(weight["shape"], dtype=int))
        weights[weight["name"]] = np.frombuffer(data, dtype, count, offset).reshape(weight["shape"])
        offset += count * dtype.itemsize
    if offset != len(data):
        raise ValueError(f"the weights are {len(data)} bytes long, and the manifest accounts for {offset}")
    return weights


def _attr(value: Any) -> Any:
    """An attribute in protobuf's JSON: byte codes become base64, and empty lists, which say nothing, are dropped."""
    if not isinstance(value, dict):
        return value
    result: dict[str, Any] = {}
    for key, item in value.items():
        if key == "s" and isinstance(item, list):
            is_many = bool(item) and isinstance(item[0], list)
            result[key] = [_base64(codes) for codes in item] if is_many else _base64(item)
        elif key == "list":  # of an attribute: its own "s" is a list of strings, also when it is empty
            result[key] = {k: [_base64(codes) for codes in v] if k == "s" else v for k, v in item.items() if v != []}
        elif item != []:
            result[key] = _attr(item)
    return result


def _base64(codes: list[int]) -> str:
    return base64.b64encode(bytes(codes)).decode()


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
