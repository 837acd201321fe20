"""`pipeline.config`, the Object Detection API's description of a model, as far as it says how to call the model.

A TrainEvalPipelineConfig in text:
https://github.com/tensorflow/models/blob/master/research/object_detection/protos/pipeline.proto
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from beam_jobs.detectors.resizing import ConditionalShape, FixedShape, KeepAspectRatio, PadToMultiple, Resizer
from beam_jobs.errors import UsageError

NAME = "pipeline.config"

_PACKAGE = "object_detection.protos"
#: The messages and fields that are read here; all others are unknown fields, and ignored. A type in capitals is an
#: enumeration below, another one a message; numbers of fields do not occur in text.
_MESSAGES: Mapping[str, Mapping[str, str]] = {
    "TrainEvalPipelineConfig": {"model": "DetectionModel"},
    "DetectionModel": {"ssd": "Model", "faster_rcnn": "Model", "center_net": "Model"},
    "Model": {
        "num_classes": "int32",
        "image_resizer": "ImageResizer",
        "feature_extractor": "FeatureExtractor",
        "post_processing": "PostProcessing",
    },
    "FeatureExtractor": {"type": "string"},
    "PostProcessing": {"batch_non_max_suppression": "BatchNonMaxSuppression"},
    "BatchNonMaxSuppression": {
        "score_threshold": "float",
        "iou_threshold": "float 0.6",
        "max_detections_per_class": "int32 100",
        "max_total_detections": "int32 100",
        "use_class_agnostic_nms": "bool",
        "soft_nms_sigma": "float",
        "use_static_shapes": "bool",
        "use_partitioned_nms": "bool",
        "use_combined_nms": "bool",
        "change_coordinate_frame": "bool true",
    },
    "ImageResizer": {
        "keep_aspect_ratio_resizer": "KeepAspectRatioResizer",
        "fixed_shape_resizer": "FixedShapeResizer",
        "identity_resizer": "IdentityResizer",
        "conditional_shape_resizer": "ConditionalShapeResizer",
        "pad_to_multiple_resizer": "PadToMultipleResizer",
    },
    "IdentityResizer": {},
    "KeepAspectRatioResizer": {
        "min_dimension": "int32 600",
        "max_dimension": "int32 1024",
        "resize_method": "RESIZE",
        "pad_to_max_dimension": "bool",
    },
    "FixedShapeResizer": {"height": "int32 300", "width": "int32 300", "resize_method": "RESIZE"},
    "ConditionalShapeResizer": {
        "condition": "CONDITION GREATER",
        "size_threshold": "int32 300",
        "resize_method": "RESIZE",
    },
    "PadToMultipleResizer": {"multiple": "int32 1"},
}
_ENUMERATIONS = {
    "RESIZE": ("BILINEAR", "NEAREST_NEIGHBOR", "BICUBIC", "AREA"),
    "CONDITION": ("INVALID", "GREATER", "SMALLER"),
}


@dataclass(frozen=True, slots=True)
class NonMaxSuppression:
    """An SSD's `batch_non_max_suppression`.

    Args:
        score_threshold, iou_threshold, max_detections_per_class, max_total_detections: as the config has them.
        class_agnostic: its `use_class_agnostic_nms`.
        variants: names of fields that ask for another algorithm than the plain one.
    """

    score_threshold: float
    iou_threshold: float
    max_detections_per_class: int
    max_total_detections: int
    class_agnostic: bool
    variants: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PipelineConfig:
    """What a config says of its model.

    Args:
        family: the API's meta-architecture: `ssd` (EfficientDet too), `faster_rcnn` (Mask R-CNN too), `center_net`.
        feature_extractor: its type; in TensorFlow 2 most end with `_keras`.
        num_classes: without the background.
        resizer: what the model does with a picture first.
        suppression: what an SSD does last.
    """

    family: str
    feature_extractor: str
    num_classes: int
    resizer: Resizer
    suppression: NonMaxSuppression


def find(root: Path) -> PipelineConfig | None:
    """The config in a model's folder; None if there is none.

    Raises:
        UsageError: it cannot be read; file, place and remedy.
    """
    path = root / NAME
    return parse(path.read_bytes(), str(path)) if path.is_file() else None


def root_of(saved_model: Path) -> Path:
    """The folder that has the config of a SavedModel, if there is one."""
    return saved_model.parent if saved_model.name == "saved_model" else saved_model


def parse(data: bytes, path: str) -> PipelineConfig:
    """The config in `data`; `path` is for messages.

    Raises:
        UsageError: it is no pipeline.config, or its model is of no known family or has no resizer.
    """
    config = _Config()
    try:
        text_format.Parse(data.decode(), config, allow_unknown_extension=True, allow_unknown_field=True)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(path, re.sub(r"^\d+:\d+ : ", "", str(error))[:200].rstrip("."), error) from error
    families = [field.name for field, _ in config.model.ListFields()]
    if len(families) != 1:
        raise _refusal(path, f"its model must be one of {', '.join(_MESSAGES['DetectionModel'])}")
    model = getattr(config.model, families[0])
    return PipelineConfig(
        families[0],
        model.feature_extractor.type,
        model.num_classes,
        _resizer(model.image_resizer, path),
        _suppression(model.post_processing.batch_non_max_suppression),
    )


def _suppression(said: Any) -> NonMaxSuppression:
    variants = ["soft_nms_sigma", "use_static_shapes", "use_partitioned_nms", "use_combined_nms"]
    asked = [name for name in variants if getattr(said, name)]
    return NonMaxSuppression(
        said.score_threshold,
        said.iou_threshold,
        said.max_detections_per_class,
        said.max_total_detections,
        said.use_class_agnostic_nms,
        tuple(asked + ["change_coordinate_frame"] * (not said.change_coordinate_frame)),
    )


def _resizer(said: Any, path: str) -> Resizer:
    kinds = [(field.name, value) for field, value in said.ListFields()]
    if len(kinds) != 1:
        raise _refusal(path, "its image_resizer is missing, or of no known kind")
    ((kind, fields),) = kinds
    if kind == "identity_resizer":
        return Resizer()
    if kind == "pad_to_multiple_resizer":
        return PadToMultiple(multiple=max(fields.multiple, 1))
    method = _ENUMERATIONS["RESIZE"][fields.resize_method]
    if kind == "fixed_shape_resizer":
        return FixedShape(method, fields.height, fields.width)
    if kind == "keep_aspect_ratio_resizer":
        return KeepAspectRatio(method, fields.min_dimension, fields.max_dimension, fields.pad_to_max_dimension)
    condition = _ENUMERATIONS["CONDITION"][fields.condition]
    if condition == "INVALID":
        raise _refusal(path, "the condition of its conditional_shape_resizer is INVALID")
    return ConditionalShape(method, condition, fields.size_threshold)


def _refusal(path: str, what: str, error: Exception | None = None) -> UsageError:
    line = f"line {error.GetLine()}: " if isinstance(error, text_format.ParseError) and error.GetLine() else ""
    return UsageError(f"{path} is not a {NAME} of the Object Detection API: {line}{what}.")


def _config_class() -> Any:
    """The message class of the whole, with the fields of `_MESSAGES`."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="beam_jobs/pipeline.proto", package=_PACKAGE, syntax="proto2")
    for name, values in _ENUMERATIONS.items():
        enumeration = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            enumeration.value.add(name=value, number=number)
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        message.extension_range.add(start=1000, end=2000)  # so that a stranger's may be there, and is ignored too
        for number, (field, said) in enumerate(fields.items(), start=1):
            kind, _, default = said.partition(" ")
            added = message.field.add(
                name=field, number=number, label=kinds.LABEL_OPTIONAL, default_value=default or None
            )
            if kind in _MESSAGES or kind in _ENUMERATIONS:
                added.type = kinds.TYPE_MESSAGE if kind in _MESSAGES else kinds.TYPE_ENUM
                added.type_name = f".{_PACKAGE}.{kind}"
            else:
                added.type = kinds.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.{next(iter(_MESSAGES))}"))


_Config = _config_class()
