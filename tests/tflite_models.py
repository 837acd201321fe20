"""Tiny TFLite detectors as the Object Detection API exports them: `python tests/tflite_models.py FOLDER` makes all.

Run in a process of its own: what opens them must not need TensorFlow. The network: the mean of each cell of 8 by 8 of
the input of 32 by 48, of values from -1 to 1, times seeded weights, gives each cell's anchor its box and its scores.
With a second argument, coco-ssd's SavedModel, it makes a TFLite detector of that one.
"""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HEIGHT, WIDTH, CELL = 32, 48, 8
CLASSES, K = 3, 20
SCORE_THRESHOLD, IOU_THRESHOLD = 0.4, 0.3
BOX_SCALES = (10.0, 10.0, 5.0, 5.0)  # of y, x, height, width: faster_rcnn_box_coder's usual ones
#: Sizes before and after; `resized.npz` has what becomes of pictures of each, as the API resizes them.
RESIZED = [((48, 64), (30, 30)), ((7, 9), (32, 40)), ((1, 1), (3, 2)), ((33, 20), (33, 20))]
LABELS = "red\ngreen\nblue\n"


def build_all(folder: Path) -> None:
    """Makes every tiny model in `folder`, as NAME.tflite."""
    _run(str(folder))


def build_coco_ssd(saved_model: Path, folder: Path) -> Path:
    """Makes the real coco-ssd's coco_ssd.tflite in `folder`, of its converted SavedModel."""
    _run(str(folder), str(saved_model))
    return folder / "coco_ssd.tflite"


def _run(*words: str) -> None:
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    """A picture of seeded noise."""
    return np.random.default_rng(2).integers(0, 256, (height, width, 3), np.uint8)


def weights() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """From a cell's mean to its box's encoding [3, 4], and to the scores of the background and the classes [3, 4]."""
    random = np.random.default_rng(5)
    return random.normal(0, 1.5, (3, 4)).astype(np.float32), np.eye(3, 4, 1, np.float32) * 2


def anchors() -> NDArray[np.float32]:
    """[A, 4]: the cells as centre y, centre x, height, width."""
    y, x = np.meshgrid((np.arange(HEIGHT // CELL) + 0.5) * CELL, (np.arange(WIDTH // CELL) + 0.5) * CELL, indexing="ij")
    size = np.full(y.size, CELL)
    scale = [HEIGHT, WIDTH, HEIGHT, WIDTH]
    return (np.stack([y.ravel(), x.ravel(), size, size], 1) / scale).astype(np.float32)


def with_metadata(model: bytes, mean: Sequence[float], std: Sequence[float], labels: Sequence[str] = ()) -> bytes:
    """The model with a TFLITE_METADATA buffer: the input's normalisation, and names of label files."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    made = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model))
    data = schema.BufferT()
    data.data = np.frombuffer(_metadata(mean, std, labels), np.uint8)
    entry = schema.MetadataT()
    entry.name, entry.buffer = b"TFLITE_METADATA", len(made.buffers)
    made.buffers.append(data)
    made.metadata = [*(made.metadata or []), entry]
    builder = flatbuffers.Builder()
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _metadata(mean: Sequence[float], std: Sequence[float], labels: Sequence[str]) -> bytes:
    """By TFLite Support's metadata_schema.fbs."""
    import flatbuffers

    builder = flatbuffers.Builder()

    def floats(values: Sequence[float]) -> int:
        return int(builder.CreateNumpyVector(np.array(values, np.float32)))

    def table(size: int, references: dict[int, int], small: dict[int, int] | None = None) -> int:
        builder.StartObject(size)
        for slot, offset in references.items():
            builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, value in (small or {}).items():
            builder.PrependUint8Slot(slot, value, 0)
        return int(builder.EndObject())

    def tables(*offsets: int) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return int(builder.EndVector())

    unit = table(2, {1: table(2, {0: floats(mean), 1: floats(std)})}, {0: 1})  # NormalizationOptions
    files = [table(5, {0: builder.CreateString(name)}, {2: 3}) for name in labels]  # TENSOR_VALUE_LABELS
    image = table(7, {4: tables(unit)})
    categories = table(7, {6: tables(*files)})
    graph = table(10, {2: tables(image), 3: tables(table(7, {}), categories)})
    builder.Finish(table(8, {3: tables(graph)}), b"M001")
    return bytes(builder.Output())


def with_files(model: bytes, files: dict[str, str]) -> bytes:
    """The model with a zip of files behind it, as TFLite metadata pack them."""
    data = io.BytesIO(model)
    with zipfile.ZipFile(data, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return data.getvalue()


def postprocess_function(classes: int, *, max_detections: int, score: float, iou: float, is_per_class: bool) -> Any:
    """What the converter replaces by the operator: boxes' encodings [1, A, 4], scores [1, A, C], anchors [A, 4] in.

    As `export_tflite_graph_lib_tf2.py` of the API has it. What the function itself computes does not matter.
    """
    import tensorflow as tf

    attributes = {
        "max_detections": f"i: {max_detections}",
        "max_classes_per_detection": "i: 1",
        "detections_per_class": f"i: {max_detections}",
        "use_regular_nms": f"b: {str(is_per_class).lower()}",
        "nms_score_threshold": f"f: {score}",
        "nms_iou_threshold": f"f: {iou}",
        **{f"{axis}_scale": f"f: {scale}" for axis, scale in zip("yxhw", BOX_SCALES, strict=True)},
        "num_classes": f"i: {classes}",
    }
    described = " ".join(f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attributes.items())

    @tf.function(experimental_implements=f'name: "TFLite_Detection_PostProcess" {described}')  # type: ignore[untyped-decorator,unused-ignore]
    def postprocess(encodings: Any, scores: Any, anchors: Any) -> tuple[Any, ...]:
        return tuple(tf.constant(0.0, name=name) for name in ("boxes", "classes", "scores", "count"))

    return postprocess


def convert(function: Any, shape: Sequence[int], integer: str | None = None) -> bytes:
    """`function` of a float32 input of `shape` as a TFLite model; `integer` is the input's type of a quantised one."""
    import tensorflow as tf

    concrete = tf.function(function, input_signature=[tf.TensorSpec(shape, tf.float32, name="input")])
    module = tf.Module()
    module.function = concrete
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete.get_concrete_function()], module)
    converter.allow_custom_ops = True
    if integer is not None:
        # Grey ones and coloured ones, so that the means of cells fill the range that pixels have.
        colours = np.array(list(itertools.product((-1, 0, 1), repeat=3)), np.float32)
        examples = [[np.broadcast_to(colour, shape)] for colour in colours]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: iter(examples)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = getattr(tf, integer)
    return bytes(converter.convert())


def _coco_ssd(saved_model: Path) -> bytes:
    """The network of the converted coco-ssd, float, with its own anchors, and suppression for each class."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = tf.saved_model.load(str(saved_model)).signatures["serving_default"]
    graph = convert_variables_to_constants_v2(signature).graph.as_graph_def()  # with its functions inlined
    inside = next(node.name for node in graph.node if node.name.endswith("coco_ssd/Squeeze")).removesuffix("Squeeze")
    postprocess = postprocess_function(90, max_detections=100, score=0.01, iou=0.6, is_per_class=True)

    def detect(pixels: Any) -> tuple[Any, ...]:
        wanted = ("Squeeze", "Postprocessor/convert_scores", "Postprocessor/ExpandDims")
        encodings, scores, corners = tf.import_graph_def(
            graph, {f"{inside}Preprocessor/sub:0": pixels}, [f"{inside}{name}:0" for name in wanted], name=""
        )
        low, high = corners[0, :, :2], corners[0, :, 2:]
        return tuple(postprocess(encodings, scores, tf.concat([(low + high) / 2, high - low], 1)))

    return convert(detect, [1, 300, 300, 3])


def _tiny_ones(folder: Path) -> None:
    import tensorflow as tf

    to_box, to_scores = weights()
    postprocess = postprocess_function(
        CLASSES, max_detections=K, score=SCORE_THRESHOLD, iou=IOU_THRESHOLD, is_per_class=False
    )

    def predict(values: Any) -> tuple[Any, Any]:
        cells = tf.nn.avg_pool2d(values, CELL, CELL, "VALID")
        encodings, scores = (tf.nn.conv2d(cells, matrix[None, None], 1, "VALID") for matrix in (to_box, to_scores))
        return tf.reshape(encodings, [1, -1, 4]), tf.nn.sigmoid(tf.reshape(scores, [1, -1, CLASSES + 1]))

    def detect(values: Any) -> Any:
        return postprocess(*predict(values), tf.constant(anchors()))

    def save(name: str, model: bytes) -> None:
        (folder / f"{name}.tflite").write_bytes(model)

    resize = tf.compat.v1.image.resize_images
    np.savez(folder / "resized.npz", *(resize(noise(*before)[None], after).numpy()[0] for before, after in RESIZED))

    shape = (1, HEIGHT, WIDTH, 3)
    save("float", convert(detect, shape))
    save("reversed", convert(lambda values: detect(values)[::-1], shape))  # as the API does
    for integer in ("uint8", "int8"):
        save(integer, convert(detect, shape, integer))
    shares = convert(lambda values: detect(values * 2 - 1), shape)
    save("metadata", with_files(with_metadata(shares, [0.0], [255.0], ["labels.txt"]), {"labels.txt": LABELS}))
    save("no_postprocess", convert(predict, shape))
    save("classifier", convert(lambda values: tf.nn.softmax(tf.reduce_mean(values, [1, 2])), shape))
    save("grey", convert(lambda values: detect(tf.tile(values, [1, 1, 1, 3])), (1, HEIGHT, WIDTH, 1)))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        (Path(sys.argv[1]) / "coco_ssd.tflite").write_bytes(_coco_ssd(Path(sys.argv[2])))
    else:
        _tiny_ones(Path(sys.argv[1]))
