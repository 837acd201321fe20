"""What is wrong with a COCO file, where, and what it is instead: for the messages of those who read them."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
import numpy as np
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.errors import DECODE_ERRORS, UsageError
from beam_jobs.formats.textfile import json_fault
from beam_jobs.storage import display_name

_PLACE = re.compile(r"(?s)(?P<fault>.*?)(?: - at `\$\.?(?P<place>(?P<list>\w*)\[(?P<index>\d+)\])?\.?(?P<rest>.*)`)?$")
_BYTE = re.compile(r"\(byte (\d+)\)")
_NOT_JSON_NUMBERS = (b"NaN", b"Infinity", b"nan", b"inf")


class _Entry(msgspec.Struct, gc=False):
    id: msgspec.Raw = msgspec.Raw()
    image_id: msgspec.Raw = msgspec.Raw()


class _Entries(msgspec.Struct):
    images: list[_Entry] = []
    annotations: list[_Entry] = []
    categories: list[_Entry] = []


def head_of(what: str, path: str, size: int) -> bytes:
    """The first bytes of a file; `UsageError` when it cannot be read."""
    try:
        with storage.open_read(path) as stream:
            return stream.read(size)
    except OSError as error:
        raise refusal(what, path, f"it cannot be read: {storage.reason(error)}", "check the file") from error


class FaultError(Exception):
    """What is wrong, with its place, and the remedy."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def check_boxes(boxes: NDArray[np.float64], place: str, name_of: Callable[[int], str]) -> None:
    """Refuse boxes (x, y, width, height; [N, 4]) that have no place or size.

    Args:
        place: what comes before the index in a message (`annotations`).
        name_of: who the one at an index is (`id 7`).

    Raises:
        FaultError: for the first one that is not finite or has a negative width or height.
    """
    bad = ~np.isfinite(boxes).all(1) | (boxes[:, 2:] < 0).any(1)
    if bad.any():
        at = int(np.argmax(bad))
        box = boxes[at].tolist()
        fault = "a value that is not finite" if not np.isfinite(box).all() else "a negative width or height"
        raise FaultError(
            f"{place}[{at}] ({name_of(at)}): bbox {box} has {fault}",
            "a bbox is [x, y, width, height] in pixels; correct it or leave it out",
        )


def refusal(what: str, path: str, fault: str, remedy: str) -> UsageError:
    """The error that says which file cannot be used, why, and what to do.

    Args:
        what: what the file is to the user (`ground truth`).
    """
    return UsageError(f"the {what} {display_name(path)!r} cannot be used: {fault}; {remedy}")


def fault_of(data: bytes, error: Exception) -> tuple[str, str]:
    """What is wrong with a COCO file, with its place (`annotations[12] (id 7)`), and the remedy.

    Args:
        data: the file.
        error: one of `DECODE_ERRORS`, raised for `data`.
    """
    if not isinstance(error, msgspec.ValidationError):
        return _not_json(data, error)
    found = _PLACE.fullmatch(str(error))
    fault = json_fault(data, error)
    if found is not None and found["place"] is not None:
        fault = found["fault"]
        fault = f"{_named(data, found['list'], int(found['index']))}: " + (
            f"{found['rest']}: {_lower(fault)}" if found["rest"] else _lower(fault)
        )
    return fault, "see https://cocodataset.org/#format-data for what is expected"


def kind_of(data: bytes) -> str:
    """What a JSON text looks like to somebody who knows COCO's files, in a few words."""
    try:
        if data.lstrip()[:1] == b"[":
            entries = msgspec.json.decode(data, type=list[msgspec.Raw])
            keys = set(msgspec.json.decode(entries[0], type=dict[str, msgspec.Raw])) if entries else set()
            if not entries:
                return "it is an empty list"
            if "score" in keys:
                return "it is a list with scores: it looks like COCO results"
            return f"it is a list of {_listed(keys)}"
        keys = set(msgspec.json.decode(data, type=dict[str, msgspec.Raw]))
    except DECODE_ERRORS:
        return "it is neither an object nor a list of objects"
    if {"images", "annotations"} <= keys:
        return "it looks like a COCO ground truth"
    if {"job", "files", "counts"} <= keys:
        return "it looks like the run.json of a run"
    return f"it is an object of {_listed(keys)}" if keys else "it is an empty object"


def _not_json(data: bytes, error: Exception) -> tuple[str, str]:
    if place := _BYTE.search(str(error)):
        at = int(place[1])
        line = data.count(b"\n", 0, at) + 1
        number = next((word for word in _NOT_JSON_NUMBERS if data.startswith(word, at)), None)
        if number is not None:
            sign = "-" if data[at - 1 : at] == b"-" else ""
            return (
                f"line {line} (byte {at:,}) has {sign}{number.decode()}, which is not a JSON number",
                "leave out what has no number, and write the file again",
            )
        if at == 0:
            return "it is neither JSON nor a TFRecord file", "name another file"
        what = str(error)[: place.start()].strip().removeprefix("JSON is malformed: ")
        return f"it is not JSON: {what}, line {line} (byte {at:,})", "write it again"
    if "truncated" in str(error):
        return ("it ends early" if data.strip() else "it is empty"), "copy or write it again"
    return json_fault(data, error), "write it again"


def _named(data: bytes, name: str, index: int) -> str:
    """An entry by its place, and by its id when that can be read."""
    place = f"{name}[{index}]"
    try:
        if name:
            return f"{place} (id {_text(getattr(msgspec.json.decode(data, type=_Entries), name)[index].id)})"
        return f"{place} (image_id {_text(msgspec.json.decode(data, type=list[_Entry])[index].image_id)})"
    except (*DECODE_ERRORS, AttributeError, IndexError, ValueError):
        return place


def _text(raw: msgspec.Raw) -> str:
    text = bytes(raw).decode()
    if not text or len(text) > 40:
        raise ValueError
    return text


def _listed(keys: set[str]) -> str:
    some = sorted(keys)
    return ", ".join(some[:5]) + (", …" if len(some) > 5 else "") if some else "no keys"


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]
