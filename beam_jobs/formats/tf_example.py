"""tf.Example, as the TF Object Detection API writes it, without TensorFlow.

Keys: https://github.com/tensorflow/models/blob/master/research/object_detection/dataset_tools/create_coco_tf_record.py
The messages: tensorflow/core/example/{example,feature}.proto.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from beam_jobs.errors import InputError
from beam_jobs.storage import display_name

#: What a feature can hold when an example is made.
Value = bytes | str | float | Sequence[bytes | str] | Sequence[float]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """The picture of a record, encoded, and its names, if it has any; valid UTF-8, undecodable bytes as `%FF`."""

    encoded: bytes
    filename: str | None
    source_id: str | None


class Features:
    """The features of a tf.Example, by key.

    Raises:
        InputError: `not_an_example`.
    """

    def __init__(self, record: bytes) -> None:
        try:
            example = _Example.FromString(record)
        except DecodeError as error:
            raise InputError("read", "not_an_example", "the record is not a tf.Example") from error
        if not example.HasField("features"):
            # Much parses as a message of which no field is known.
            raise InputError("read", "not_an_example", "the record is a tf.Example without features, or none at all")
        self._features = example.features.feature

    def keys(self) -> list[str]:
        """The keys, sorted."""
        return sorted(self._features)

    def bytes(self, key: str) -> list[bytes]:
        """The byte strings of a key; empty when it is missing or of another kind."""
        return list(self._features[key].bytes_list.value) if key in self._features else []

    def floats(self, key: str) -> NDArray[np.float32]:
        """The floats of a key; empty when it is missing or of another kind."""
        return np.array(self._features[key].float_list.value if key in self._features else [], np.float32)

    def ints(self, key: str) -> NDArray[np.int64]:
        """The integers of a key; empty when it is missing or of another kind."""
        return np.array(self._features[key].int64_list.value if key in self._features else [], np.int64)

    def text(self, key: str) -> str | None:
        """The first value of a key as a name; None when it is missing or empty. A number is a name, too."""
        if found := self.bytes(key):
            return display_name(found[0].decode("utf-8", "surrogateescape")) or None
        numbers = self.ints(key)
        return str(numbers[0]) if len(numbers) else None


def parse_image(record: bytes) -> ImageRecord:
    """The picture of a record: `image/encoded`, `image/filename`, `image/source_id`.

    Raises:
        InputError: `not_an_example`, `no_image` (without `image/encoded`), `empty` (with an empty one).
    """
    features = Features(record)
    encoded = features.bytes("image/encoded")
    if not encoded:
        keys = features.keys()
        some = ", ".join(keys[:5]) + (", …" if len(keys) > 5 else "") if keys else "no features"
        raise InputError("read", "no_image", f"the record has no image/encoded; it has {some}")
    if not encoded[0]:
        raise InputError("read", "empty", "the record's image/encoded is empty")
    return ImageRecord(encoded[0], features.text("image/filename"), features.text("image/source_id"))


def make_example(features: Mapping[str, Value]) -> bytes:
    """A tf.Example: text and bytes as bytes, int as int64, float as float; the same bytes for the same features.

    Raises:
        TypeError: a sequence that mixes kinds, or another type.
    """
    example = _Example()
    for key, value in features.items():
        values = [value] if isinstance(value, bytes | str | int | float) else list(value)
        feature = example.features.feature[key]
        if all(isinstance(v, bytes | str) for v in values):
            feature.bytes_list.value.extend(v.encode() if isinstance(v, str) else v for v in values)
        elif all(isinstance(v, int | np.integer) for v in values):
            feature.int64_list.value.extend(values)
        elif all(isinstance(v, int | float | np.number) for v in values):
            feature.float_list.value.extend(values)
        else:
            raise TypeError(f"{key}: a feature is bytes, text, int or float, got {values[:3]!r}")
    serialized: bytes = example.SerializeToString(deterministic=True)
    return serialized


def _example_class() -> Any:
    """tf.Example's message class, in a pool of its own: TensorFlow's, when it is loaded too, is not disturbed."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="beam_jobs/example.proto", package="tensorflow", syntax="proto3")

    def field(message: Any, name: str, number: int, kind: int, type_name: str = "", repeated: bool = False) -> Any:
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        made = message.field.add(name=name, number=number, type=kind, label=label)
        if type_name:
            made.type_name = type_name
        return made

    for name, kind in (
        ("BytesList", kinds.TYPE_BYTES),
        ("FloatList", kinds.TYPE_FLOAT),
        ("Int64List", kinds.TYPE_INT64),
    ):
        field(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, name in enumerate(("Bytes", "Float", "Int64"), start=1):
        one = field(feature, f"{name.lower()}_list", number, kinds.TYPE_MESSAGE, f".tensorflow.{name}List")
        one.oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    field(entry, "key", 1, kinds.TYPE_STRING)
    field(entry, "value", 2, kinds.TYPE_MESSAGE, ".tensorflow.Feature")
    field(features, "feature", 1, kinds.TYPE_MESSAGE, ".tensorflow.Features.FeatureEntry", repeated=True)
    field(file.message_type.add(name="Example"), "features", 1, kinds.TYPE_MESSAGE, ".tensorflow.Features")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


_Example = _example_class()
