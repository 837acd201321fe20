"""Patterns of path segments: `*`, `?`, `[…]`, and `**` for any number of folders. Case matters.

A pattern is matched one name at a time from its base folder down, so that a walk knows where nothing can match.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

_ANY_FOLDERS = "**"

#: Which segments of the pattern the next name may be.
State = frozenset[int]


def has_wildcard(segment: str) -> bool:
    """Whether a segment holds a character of a pattern."""
    return any(c in segment for c in "*?[")


def matches_itself(segment: str) -> bool:
    """Whether a segment, read as a pattern, matches the name that is written the same (`a[1]` does not)."""
    return fnmatch.fnmatchcase(segment, segment)


@dataclass(frozen=True, slots=True)
class Step:
    """What a name can be below a state.

    Args:
        is_file: as a file it matches the whole pattern.
        folder: the state below it, as a folder; empty: nothing below it can match.
        linked_folder: the same for a link to a folder: `**` does not follow links.
        hidden_file: it would be such a file, did its name not start with a dot.
        hidden_folder: more could match below it, did its name not start with a dot.
    """

    is_file: bool
    folder: State
    linked_folder: State
    hidden_file: bool = False
    hidden_folder: bool = False

    @property
    def any(self) -> bool:
        """Whether there is anything to find out about the name."""
        return self.is_file or bool(self.folder) or self.hidden_file or self.hidden_folder


class Glob:
    """A pattern relative to its base folder.

    Args:
        segments: the pattern, cut at `/`. A last `**` means every file below. A name that starts with a dot is matched
            only by a segment that does.
    """

    def __init__(self, segments: Sequence[str]) -> None:
        kept = [s for s, after in zip(segments, [*segments[1:], ""], strict=True) if not s == after == _ANY_FOLDERS]
        if kept[-1] == _ANY_FOLDERS:
            kept.append("*")
        self._segments = kept
        self._patterns = [re.compile(fnmatch.translate(s)).match for s in kept]
        self._last = len(kept) - 1
        self.start = self._from(0)

    def step(self, state: State, name: str) -> Step:
        """What `name` can be, in a folder that is at `state`."""
        if not name.startswith("."):
            return self._step(state, name)
        step = self._step(frozenset(i for i in state if self._segments[i].startswith(".")), name)
        open_step = self._step(state, name)
        return replace(
            step,
            hidden_file=open_step.is_file and not step.is_file,
            hidden_folder=open_step.folder != step.folder,
        )

    def _step(self, state: State, name: str) -> Step:
        linked: State = frozenset()
        repeated: State = frozenset()
        is_file = False
        for i in state:
            if self._segments[i] == _ANY_FOLDERS:
                repeated |= self._from(i)
            elif self._patterns[i](name):
                if i == self._last:
                    is_file = True
                else:
                    linked |= self._from(i + 1)
        return Step(is_file, linked | repeated, linked)

    def _from(self, i: int) -> State:
        """`i`, and what follows it when `**` there stands for no folder."""
        end = i
        while self._segments[end] == _ANY_FOLDERS:
            end += 1
        return frozenset(range(i, end + 1))
