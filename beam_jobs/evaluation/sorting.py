"""Sorting rows of any number in bounded memory: sorted runs on this machine's disk, then a merge of their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[Any]
#: Columns of rows, the weightiest first.
Keys = Callable[[Rows], Sequence[NDArray[Any]]]

#: Of a run so small a part of what may be held is read at once: beyond so many runs their blocks are more than that.
_BLOCKS = 128


class RowSorter:
    """Sorts the rows of a structured dtype; equal rows stay in the order in which they were added."""

    def __init__(self, file: BinaryIO, kind: np.dtype[Any], keys: Keys, at_once: int) -> None:
        """For rows of `kind`; at most about `at_once` are held, more lie in `file`, which is new and not buffered."""
        self._file = file
        self._kind, self._keys, self._at_once = kind, keys, at_once
        self._block = max(1, at_once // _BLOCKS)
        self._parts: list[Rows] = []
        self._held = 0
        self._ends: list[int] = []

    def add(self, rows: Rows) -> None:
        """Adds rows. Rows that are equal must come in one call, or their order is not kept."""
        self._parts.append(rows)
        self._held += len(rows)
        if self._held > self._at_once:
            self._write_run()

    def sorted(self) -> Iterator[Rows]:
        """All rows, ascending, some at a time; once. Takes the rows away."""
        if not self._ends:
            yield self._take()
            return
        if self._held:
            self._write_run()
        starts = [0, *self._ends[:-1]]
        spans = zip(starts, self._ends, strict=True)
        yield from self._merged([_Run(self._file, self._kind, self._block, *span) for span in spans])

    def _take(self) -> Rows:
        rows = np.concatenate([np.empty(0, self._kind), *self._parts])
        self._parts, self._held = [], 0
        return rows[np.lexsort(self._keys(rows)[::-1])]

    def _write_run(self) -> None:
        rows = self._take()
        rows.tofile(self._file)
        self._ends.append((self._ends[-1] if self._ends else 0) + len(rows))

    def _merged(self, runs: list[_Run]) -> Iterator[Rows]:
        blocks = [run.read() for run in runs]
        while any(map(len, blocks)):
            # What is up to the least of the last rows cannot be preceded by anything that is still on disk.
            lasts = [self._last(block) for block, run in zip(blocks, runs, strict=True) if run.more]
            stops = [self._until(block, min(lasts)) if lasts else len(block) for block in blocks]
            rows = np.concatenate([block[:stop] for block, stop in zip(blocks, stops, strict=True)])
            yield rows[np.lexsort(self._keys(rows)[::-1])]
            blocks = [block[stop:] for block, stop in zip(blocks, stops, strict=True)]
            blocks = [block if len(block) else run.read() for block, run in zip(blocks, runs, strict=True)]

    def _last(self, rows: Rows) -> tuple[Any, ...]:
        return tuple(column[0].item() for column in self._keys(rows[-1:]))

    def _until(self, rows: Rows, last: tuple[Any, ...]) -> int:
        """How many of the rows are not after `last`."""
        start, stop = 0, len(rows)
        for column, value in zip(self._keys(rows), last, strict=True):
            part = column[start:stop]
            start, stop = (start + int(np.searchsorted(part, value, side)) for side in ("left", "right"))
        return stop


class _Run:
    """Rows start..stop of the file, to be read in blocks."""

    def __init__(self, file: BinaryIO, kind: np.dtype[Any], block: int, start: int, stop: int) -> None:
        self._file, self._kind, self._block, self._at, self._stop = file, kind, block, start, stop

    @property
    def more(self) -> bool:
        """Whether there is something that was not read yet."""
        return self._at < self._stop

    def read(self) -> Rows:
        """The next rows, none at the end."""
        self._file.seek(self._at * self._kind.itemsize)
        rows = np.fromfile(self._file, self._kind, min(self._block, self._stop - self._at))
        self._at += len(rows)
        return rows
