"""Label maps: what the ids of a model's classes are called.

A `.pbtxt` is a StringIntLabelMap, text or binary:
https://github.com/tensorflow/models/blob/master/research/object_detection/protos/string_int_label_map.proto
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from beam_jobs.errors import DECODE_ERRORS, UsageError
from beam_jobs.formats.textfile import json_fault, read_whole
from beam_jobs.storage import display_name

_MAX_BYTES = 64 << 20
_BACKGROUND = 0
_WHAT = 'it must hold items like: item { id: 1 display_name: "person" }, or be a COCO file with "categories"'

# fmt: off
#: The 80 classes of COCO. Their ids have gaps.
COCO_CATEGORIES: dict[int, str] = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}
# fmt: on


class _Category(msgspec.Struct):
    id: int
    name: str


class _Categories(msgspec.Struct):
    categories: list[_Category]


def load_label_map(path: str) -> dict[int, str]:
    """Names by class id, in order of the ids; what kind of file it is, its content says. gzip is unpacked.

    As in the Object Detection API: a display_name is preferred to a name, and id 0 is the background and left out. An
    item without any name is left out: its class keeps its number. The API takes the first name of an id that has two;
    here it is refused, since one of them is wrong.

    Raises:
        UsageError: it is no label map, or an item has no id, a negative one, or that of another name; file, place and
            remedy.
    """
    data = read_whole(path, "label map", _MAX_BYTES)
    name = display_name(path)
    try:
        names = _names(_from_json(data) if data.lstrip()[:1] in (b"{", b"[") else _from_proto(data))
    except _FaultError as fault:
        raise UsageError(f"the label map {name!r} cannot be used: {fault}; {_WHAT}") from fault
    if not names:
        raise UsageError(f"the label map {name!r} names no class; {_WHAT}")
    return dict(sorted(names.items()))


class _FaultError(Exception):
    pass


def _names(items: Iterable[tuple[int, str, str]]) -> dict[int, str]:
    names: dict[int, str] = {}
    for category_id, name, place in items:
        if category_id < 0:
            raise _FaultError(f"{place} has the negative id {category_id}")
        if category_id == _BACKGROUND or not name:
            continue
        if names.setdefault(category_id, name) != name:
            raise _FaultError(f"{place} calls class {category_id} {name!r}, which is {names[category_id]!r} already")
    return names


def _from_json(data: bytes) -> Iterator[tuple[int, str, str]]:
    is_list = data.lstrip().startswith(b"[")
    try:
        if is_list:
            categories = msgspec.json.decode(data, type=list[_Category])
        else:
            categories = msgspec.json.decode(data, type=_Categories).categories
    except DECODE_ERRORS as error:
        raise _FaultError(json_fault(data, error)) from error
    for i, category in enumerate(categories):
        yield category.id, category.name, f"{'' if is_list else 'categories'}[{i}]"


def _from_proto(data: bytes) -> Iterator[tuple[int, str, str]]:
    label_map = _LabelMap()
    lines: list[int] = []
    try:
        text = data.decode()
        text_format.Parse(text, label_map, allow_unknown_extension=True, allow_unknown_field=True)
        lines = _lines_of_items(text)
    except (text_format.ParseError, UnicodeDecodeError, RecursionError) as error:
        label_map = _binary(data, error)
    for i, item in enumerate(label_map.item):
        place = f"item {i + 1}" + (f" (line {lines[i]})" if len(lines) == len(label_map.item) else "")
        if not item.HasField("id"):
            raise _FaultError(f"{place} has no id")
        yield item.id, item.display_name or item.name, place


def _binary(data: bytes, text_error: Exception) -> Any:
    """Data that are no text proto, as a binary one; the text's error when they are none either."""
    try:
        label_map = _LabelMap.FromString(data)
    except DecodeError:
        label_map = None
    if label_map is not None and label_map.item:
        return label_map
    if isinstance(text_error, text_format.ParseError):
        # protobuf's message says `line:column : "what stands there": what is wrong`; lines may be very long.
        what = re.sub(r"^\d+:\d+ : ", "", str(text_error))
        place = f"line {text_error.GetLine()}: " if text_error.GetLine() else ""
        raise _FaultError(place + (what if len(what) <= 200 else what[:200] + "…"))
    raise _FaultError("it is neither text nor a binary StringIntLabelMap")


def _lines_of_items(text: str) -> list[int]:
    """The lines on which the items start. Quoted text and comments go, so that they cannot look like items."""
    plain = re.sub(r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|#[^\n]*)""", "", text)
    return [plain.count("\n", 0, found.start()) + 1 for found in re.finditer(r"\bitem\b\s*:?\s*[{<]", plain)]


def _label_map_class() -> Any:
    """The message class, with the fields that count here; the others are unknown fields, and ignored."""
    kinds = descriptor_pb2.FieldDescriptorProto
    package = "object_detection.protos"
    file = descriptor_pb2.FileDescriptorProto(name="beam_jobs/label_map.proto", package=package, syntax="proto2")
    item = file.message_type.add(name="StringIntLabelMapItem")
    for number, (name, kind) in enumerate(
        (("name", kinds.TYPE_STRING), ("id", kinds.TYPE_INT32), ("display_name", kinds.TYPE_STRING)), start=1
    ):
        item.field.add(name=name, number=number, type=kind, label=kinds.LABEL_OPTIONAL)
    file.message_type.add(name="StringIntLabelMap").field.add(
        name="item", number=1, type=kinds.TYPE_MESSAGE, label=kinds.LABEL_REPEATED, type_name=f".{package}.{item.name}"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.StringIntLabelMap"))


_LabelMap = _label_map_class()
