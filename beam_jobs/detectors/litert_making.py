"""Makes the LiteRT form of a SavedModel, and compares the two: `python -m … WORK TARGET`, as `litert_forms` orders it.

For SSDs (EfficientDets too) and CenterNets of the Object Detection API: their graph is cut behind the API's resizing
(`network_cut`), and of an SSD's also before its suppression, where it has the outputs `raw_detection_*`. What lies
before the cut is found out by trying: the resizing must be that of `pipeline.config`, and the normalisation one of
colours, which becomes the first layer of the network.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import api_outputs, form_making, litert_form, pipeline_config
from beam_jobs.detectors.agreement import LITERT, disagreement
from beam_jobs.detectors.base import DetectorSpec, Picture
from beam_jobs.detectors.form_making import Verdict
from beam_jobs.detectors.freezing import frozen_outputs
from beam_jobs.detectors.litert_detector import open_litert
from beam_jobs.detectors.litert_form import DESCRIPTION, FAMILIES, NETWORK, Form, Letterbox
from beam_jobs.detectors.loaded_model import LoadedModel, first_line
from beam_jobs.detectors.network_cut import Cut, find_cut, network_of
from beam_jobs.detectors.nms import Suppression
from beam_jobs.detectors.pipeline_config import PipelineConfig
from beam_jobs.detectors.raw_outputs import PostProcessing
from beam_jobs.detectors.resizing import FixedShape, KeepAspectRatio, Size
from beam_jobs.detectors.scenes import scenes
from beam_jobs.detectors.tensorflow_detector import open_original
from beam_jobs.detectors.tensorflow_runtime import tf
from beam_jobs.detectors.tflite_conversion import to_tflite, without_add_n

Floats = NDArray[np.float32]

_RAW_BOXES, _RAW_SCORES = "raw_detection_boxes", "raw_detection_scores"
#: Of what the network gets, as a share of the range of colours.
_TOLERANCE = 1e-4


class _NoFormError(Exception):
    """The model has no LiteRT form, for a reason that people can understand."""


def make(spec: DetectorSpec, pictures: Sequence[Picture], target: Path) -> Verdict:
    """Writes the LiteRT form of `spec` to the folder `target`, unless one lies beside it; looks whether it agrees.

    Raises:
        UsageError: the original cannot be opened.
    """
    original = open_original(spec)
    location = Path(spec.location)
    folder = litert_form.beside(location)
    try:
        if folder is None:
            folder = target
            config = pipeline_config.find(pipeline_config.root_of(location))
            network, form = convert(original.model, config)
            (folder / NETWORK).write_bytes(network)
            form.write(folder)
        differs = disagreement(original, open_litert(folder, spec), pictures, LITERT)
    except _NoFormError as error:
        differs = str(error)
    # Of any kind: TensorFlow's converter raises what it meets, and the original is there.
    except Exception as error:
        differs = f"it cannot be made: {type(error).__name__}: {first_line(error)}"
    if differs:
        for name in (NETWORK, DESCRIPTION):
            (target / name).unlink(missing_ok=True)
    return Verdict(reason=differs)


def convert(model: LoadedModel, config: PipelineConfig | None) -> tuple[bytes, Form]:
    """The TFLite model and the form of a loaded SavedModel.

    Args:
        config: what it was exported by.

    Raises:
        _NoFormError: it has none.
        Exception: it cannot be converted, of many kinds.
    """
    if config is None:
        raise _NoFormError(f"there is no {pipeline_config.NAME} beside the model")
    _check_kind(model, config)
    size = _input_size(config)
    function, frozen = _frozen(model)
    outputs = frozen_outputs(model, function)
    post = _post_processing(config, outputs) if config.family == "ssd" else None
    wanted = [outputs[name] for name in ((_RAW_BOXES, _RAW_SCORES) if post else api_outputs.REQUIRED)]
    [source] = function.inputs
    cut = find_cut(function.graph, source.op, wanted, size)
    if cut is None:
        raise _NoFormError(f"its graph has no place where a resized picture of {size.height}x{size.width} goes in")
    before = _before(frozen, source, cut, model.takes.dtype)
    letterbox, colours = _normalisation(before, config.resizer, size)
    graph = without_add_n(network_of(function.graph, wanted, cut))
    skipped = 0 if post is None else outputs[_RAW_SCORES].shape[-1] - config.num_classes
    network = _network(graph, cut, [tensor.name for tensor in wanted], size, colours, skipped)
    return to_tflite(network), Form(*size, post, letterbox)


def _check_kind(model: LoadedModel, config: PipelineConfig) -> None:
    if config.family not in FAMILIES:
        names = " and ".join(FAMILIES)
        raise _NoFormError(f"LiteRT takes {names}, and its {pipeline_config.NAME} says {config.family}")
    if more := set(model.outputs) - {*api_outputs.REQUIRED, api_outputs.COUNT}:
        raise _NoFormError(f"it gives more than boxes: {', '.join(sorted(more))}")
    if model.takes.content != "pixels":
        raise _NoFormError("it takes encoded pictures")


def _input_size(config: PipelineConfig) -> Size:
    resizer = config.resizer
    is_fixed = isinstance(resizer, FixedShape) or (isinstance(resizer, KeepAspectRatio) and resizer.pad)
    if not is_fixed or resizer.method != "BILINEAR":
        raise _NoFormError(f"its resizer does not bring pictures to one size, or not bilinearly: {resizer}")
    return resizer.padded(Size(1, 1))


def _post_processing(config: PipelineConfig, outputs: dict[str, Any]) -> PostProcessing:
    said = config.suppression
    if said.variants:
        raise _NoFormError(f"its {pipeline_config.NAME} asks for {', '.join(said.variants)}")
    if not {_RAW_BOXES, _RAW_SCORES} <= set(outputs):
        raise _NoFormError(f"it has no outputs {_RAW_BOXES} and {_RAW_SCORES}")
    if outputs[_RAW_SCORES].shape[-1] not in (config.num_classes, config.num_classes + 1):
        raise _NoFormError(f"its {_RAW_SCORES} are not of {config.num_classes} classes, with or without a background")
    # Of all classes together the API knows one limit only.
    per_class = said.max_total_detections if said.class_agnostic else said.max_detections_per_class
    rules = Suppression(said.iou_threshold, said.score_threshold, per_class, said.max_total_detections)
    return PostProcessing(rules, class_agnostic=said.class_agnostic, drop_empty=True)


def _frozen(model: LoadedModel) -> tuple[Any, Any]:
    """The model's function with its weights as constants, and the GraphDef of that."""
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2_as_graph

    function, graph = convert_variables_to_constants_v2_as_graph(model.function, lower_control_flow=False)
    return function, graph


@dataclass(frozen=True, slots=True)
class _Before:
    """What comes before the cut: from a picture, uint8 [height, width, 3], to what the network gets."""

    function: Any
    dtype: str

    def __call__(self, picture: Picture) -> Floats:
        given: Floats = self.function(tf.cast(picture[np.newaxis], self.dtype))[0].numpy()
        return given


def _before(frozen: Any, source: Any, cut: Cut, dtype: str) -> _Before:
    graph = tf.compat.v1.graph_util.extract_sub_graph(frozen, [cut.picture])
    spec = tf.TensorSpec(source.shape, dtype)

    def imported(picture: Any) -> Any:
        return tf.graph_util.import_graph_def(graph, {source.name: picture}, [f"{cut.picture}:0"], name="")[0]

    return _Before(tf.compat.v1.wrap_function(imported, [spec]), dtype)


def _normalisation(before: _Before, resizer: Any, size: Size) -> tuple[Letterbox | None, Floats]:
    """How pictures keep their proportions, and what becomes of colours: float32 [4, 3], by which R, G, B, 1 is
    multiplied.

    Raises:
        _NoFormError: it is not so.
    """
    # Of a size that is left as it is.
    unchanged = Size(resizer.high, resizer.low) if isinstance(resizer, KeepAspectRatio) else size
    noise = np.random.default_rng(0).integers(0, 256, (*unchanged, 3), np.uint8)
    known = np.concatenate([noise.reshape(-1, 3), np.ones((unchanged.pixels, 1))], axis=1)
    given = before(noise)[: unchanged.height, : unchanged.width].reshape(-1, 3)
    colours = np.linalg.lstsq(known, given.astype(np.float64))[0]
    form = Form(*size)
    if isinstance(resizer, KeepAspectRatio):
        corner = before(noise[:, : size.width // 4])[-1, -1]
        padding = np.linalg.solve(colours[:3].T, corner - colours[3])
        red, green, blue = (padding.round(4) + 0.0).tolist()
        form = Form(*size, letterbox=Letterbox(resizer.low, resizer.high, (red, green, blue)))
    for picture in (noise, *scenes(), noise[:, : size.width // 4]):
        ours = form.prepared(picture)[0] @ colours[:3] + colours[3]
        if np.abs(before(picture) - ours).max() > _TOLERANCE * np.abs(colours[:3]).max() * 255:
            raise _NoFormError(f"it does not resize and normalise pictures as {resizer} would")
    return form.letterbox, colours.astype(np.float32)


def _network(graph: Any, cut: Cut, wanted: Sequence[str], size: Size, colours: Floats, skipped: int) -> Any:
    """The function of the network, as `litert_form` has it.

    Args:
        skipped: columns of raw scores that are of no class.
    """
    inputs = [tf.TensorSpec([1, *size, 3], tf.float32, "picture")]
    if cut.true_shape:
        inputs.append(tf.TensorSpec([1, 3], tf.int32, "true_shape"))

    @tf.function(input_signature=inputs)
    def network(picture: Any, true_shape: Any = None) -> dict[str, Any]:
        normalised = tf.nn.bias_add(tf.nn.conv2d(picture, colours[np.newaxis, np.newaxis, :3], 1, "VALID"), colours[3])
        given = {cut.picture: normalised} | ({cut.true_shape: true_shape} if cut.true_shape else {})
        found = tf.graph_util.import_graph_def(graph, given, wanted, name="")
        named = dict(zip(("boxes", "scores", "classes"), found, strict=False))
        return named | {"scores": named["scores"][..., skipped:]}

    return network


def main(work: Path, target: Path) -> None:
    """Makes the form that is ordered in `work`."""
    form_making.answer(make, work, target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
