"""Which pictures of its group a detector process is at, in memory that its parent sees too: telling costs nothing.

The parent asks only when a process has died, or has not answered for a while. A message for each picture would wake it
as often, and cost both more than a tenth of a millisecond.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Sequence
from typing import NamedTuple

_AT = struct.Struct("=qqd")
#: Behind two of these, the byte that counts what was said, modulo 256: whether the first or the second is the last.
_COUNT = 2 * _AT.size


class At(NamedTuple):
    """What a process is at.

    Args:
        position: of the first of these pictures in the group; where that is frames of a clip, the number of a frame.
        pictures: how many.
        since: `time.monotonic`, which is the same in all processes of a machine.
    """

    position: int
    pictures: int
    since: float


class Place:
    """The memory: both processes make one of the same file, and only one at a time writes to it.

    What is being written is not looked at: it becomes the last by its count, one byte, which is there or is not.

    Args:
        descriptor: of the file, which `memory_file` makes; it may be closed afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, _COUNT + 1)

    def set(self, positions: Sequence[int]) -> None:
        """From now on the process is at the pictures of these positions."""
        count = (self._memory[_COUNT] + 1) % 256
        _AT.pack_into(self._memory, count % 2 * _AT.size, positions[0], len(positions), time.monotonic())
        self._memory[_COUNT] = count

    def get(self) -> At:
        """What was said last."""
        while True:
            count = self._memory[_COUNT]
            at = At(*_AT.unpack_from(self._memory, count % 2 * _AT.size))
            if self._memory[_COUNT] == count:  # else it may have been written over meanwhile
                return at

    def close(self) -> None:
        """Gives the memory back."""
        self._memory.close()


def memory_file() -> int:
    """The descriptor of a file for a `Place`, which exists as long as somebody has it open."""
    descriptor = os.memfd_create("place")
    os.truncate(descriptor, _COUNT + 1)
    return descriptor
