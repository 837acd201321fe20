"""FlatBuffers read in place, as far as TFLite files need it. A file that is cut off is an error, not a crash.

Format: https://flatbuffers.dev/internals. Fields go by their slot: their place in the schema's table, from 0; a union
takes two, its type and its value.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


class FlatbufferError(ValueError):
    """Something is said to lie where the data have ended."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of `data` that starts at the byte `start`.

    What it does not have is 0 or empty, as the format has it. All methods raise FlatbufferError.
    """

    data: bytes
    start: int

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The table that everything hangs from."""
        return cls(data, _number(data, 0, "I"))

    def number(self, slot: int, code: str, default: int = 0) -> int:
        """An integer, by `struct`'s code: `I` uint32, `b` int8, `B` uint8, `Q` uint64 …"""
        place = self._place(slot)
        return default if place is None else _number(self.data, place, code)

    def table(self, slot: int) -> Table | None:
        """Another table."""
        place = self._target(slot)
        return None if place is None else Table(self.data, place)

    def tables(self, slot: int) -> list[Table]:
        """A vector of tables."""
        place = self._target(slot)
        if place is None:
            return []
        offsets = _vector(self.data, place, "<u4")
        first = place + 4
        return [Table(self.data, first + 4 * i + int(offset)) for i, offset in enumerate(offsets)]

    def numbers(self, slot: int, dtype: str) -> NDArray[Any]:
        """A vector of numbers, by numpy's little-endian dtype: a view of the data."""
        place = self._target(slot)
        return np.empty(0, dtype) if place is None else _vector(self.data, place, dtype)

    def text(self, slot: int) -> str:
        """A string; bytes that are not UTF-8 are replaced."""
        return self.numbers(slot, "<u1").tobytes().decode(errors="replace")

    def _place(self, slot: int) -> int | None:
        """Where a field's own bytes are; None when the table does not have it."""
        vtable = self.start - _number(self.data, self.start, "i")
        entry = 4 + 2 * slot
        if entry + 2 > _number(self.data, vtable, "H"):
            return None
        offset = _number(self.data, vtable + entry, "H")
        return self.start + offset if offset else None

    def _target(self, slot: int) -> int | None:
        """Where what a field refers to is."""
        place = self._place(slot)
        return None if place is None else place + _number(self.data, place, "I")


def _number(data: bytes, place: int, code: str) -> int:
    size = struct.calcsize(f"<{code}")
    if not 0 <= place <= len(data) - size:
        raise FlatbufferError(f"the file ends at byte {len(data)}, before byte {place + size} that it refers to")
    value: int = struct.unpack_from(f"<{code}", data, place)[0]
    return value


def _vector(data: bytes, place: int, dtype: str) -> NDArray[Any]:
    count = _number(data, place, "I")
    end = place + 4 + count * np.dtype(dtype).itemsize
    if end > len(data):
        raise FlatbufferError(f"the file ends at byte {len(data)}, before byte {end} that it refers to")
    return np.frombuffer(data, dtype, count, place + 4)
