"""Memory that a process and its parent share: which file is being tried, and how many were."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

_HEAD = struct.Struct("=QQ")
_MOST = 1 << 24


class Place:
    """The memory; `path` is its file, which is made if there is none."""

    def __init__(self, path: Path) -> None:
        with open(path, "ab+") as file:
            file.truncate(_HEAD.size + _MOST)
            self._memory = mmap.mmap(file.fileno(), _HEAD.size + _MOST)

    @property
    def count(self) -> int:
        """How many files were begun. While somebody writes, all that it tells is whether another one was."""
        return int(_HEAD.unpack_from(self._memory)[0])

    @property
    def data(self) -> bytes:
        """The last of them. For who looks when nobody writes any more."""
        size = int(_HEAD.unpack_from(self._memory)[1])
        return self._memory[_HEAD.size : _HEAD.size + size]

    def set(self, data: bytes) -> None:
        """Begins another one, of 16 MiB at most."""
        self._memory[_HEAD.size : _HEAD.size + len(data)] = data
        _HEAD.pack_into(self._memory, 0, self.count + 1, len(data))
