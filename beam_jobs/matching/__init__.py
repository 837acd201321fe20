"""Patterns and lists become inputs: a stream of the files that a job is about.

Nothing is silently lost: what has a matching name but cannot be looked at (a dangling or looping link, a folder that
may not be listed) is an input of its own, which fails when it is read; what is left out by rule is counted.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.matching.local import LocalPattern
from beam_jobs.matching.pattern import Pattern, Tally
from beam_jobs.matching.remote import RemotePattern
from beam_jobs.matching.streams import is_stream, named_streams
from beam_jobs.storage import display_name
from beam_jobs.words import shown_url

__all__ = ["Found", "Matches", "display_name", "is_stream", "match", "match_list", "named_streams"]

#: No path is as long; what has such a line is not a list of paths.
_MAX_LINE = 1 << 16


class Found(NamedTuple):
    """An input.

    Args:
        uri: what is opened: a local path is absolute, undecodable bytes are surrogate escapes.
        file_name: the name in the tables; valid UTF-8, `/` between segments.
        size: in bytes; None where it is not known.
        mtime_ns: the time of change in ns since 1970; None where it is not known.
    """

    uri: str
    file_name: str
    size: int | None
    mtime_ns: int | None


class Matches(ABC):
    """Inputs as they are found, in no particular order and never all in memory. The counters are right at the end.

    Raises:
        UsageError: while it is iterated: a pattern or a list without any input, or an input outside of the root.
    """

    def __init__(self) -> None:
        self._tally = Tally()

    @property
    def hidden_skipped(self) -> int:
        """Names left out because they start with a dot; a folder counts once."""
        return self._tally.hidden

    @property
    def dir_links_skipped(self) -> int:
        """Links to folders that were not followed."""
        return self._tally.dir_links

    @property
    def special_skipped(self) -> int:
        """Fifos, sockets and devices that were left out."""
        return self._tally.special

    @property
    def runs_skipped(self) -> list[str]:
        """Folders that were left out because they hold the mark."""
        return sorted(self._tally.marked)

    @abstractmethod
    def __iter__(self) -> Iterator[Found]: ...


def match(
    patterns: Sequence[str], *, root: str | None = None, run_mark: str = "", streams: Iterable[str] = ()
) -> Matches:
    """The files that the patterns stand for.

    A pattern is a file, a folder (every regular file below it, links to folders not followed) or a glob of files. What
    exists is taken literally before it is read as a glob. `*` follows a link to a folder, `**` does not. Names that
    start with a dot are left out unless the pattern's segment does so, too.

    Args:
        root: the folder that file names are relative to. Without it: the folder before the first wildcard (a file:
            its folder), or the deepest such folder that several patterns have in common.
        run_mark: the path, in the folder of a run, of a file that tells that it is one. What lies in such a folder
            below an input is left out: it is what was found, not what is to be looked at. Empty: nothing is.
        streams: names of live streams, which are inputs as they are.

    Raises:
        UsageError: a pattern is nothing that exists, or cannot be looked at. While iterating: see `Matches`.
    """
    named = list(streams)
    if not patterns and not named:
        raise UsageError("no input was given: name a file, a folder or a pattern")
    made: list[Pattern] = [(RemotePattern if storage.is_remote(p) else LocalPattern)(p, run_mark) for p in patterns]
    top = _top(root) if root is not None else _common([p.base for p in made]) if made else None
    return _PatternMatches(made, _namer(top, root), named)


def match_list(path: str, *, root: str | None = None) -> Matches:
    """The files that a list names, one path a line; literal, never patterns, and not required to be there.

    Args:
        path: the list, on any file system; a pipe too. UTF-8 or any other bytes; blank lines are skipped.
        root: the folder that file names are relative to; without it a file name is the line as it is written.
    """
    return _ListMatches(path, root)


class _PatternMatches(Matches):
    def __init__(self, patterns: Sequence[Pattern], name_of: Callable[[str], str], streams: Sequence[str]) -> None:
        super().__init__()
        self._patterns = patterns
        self._name_of = name_of
        self._streams = streams

    def __iter__(self) -> Iterator[Found]:
        self._tally = Tally()
        for name in self._streams:
            yield Found(name, name, None, None)
        for pattern in self._patterns:
            before = self._tally.skipped
            found = None
            for found in pattern.entries(self._tally):
                yield Found(found.uri, self._name_of(found.uri), found.size, found.mtime_ns)
            if found is None:
                skipped = self._tally.skipped - before
                but = f" (left out by rule: {skipped}, hidden names, links to folders, special files or runs)"
                raise UsageError(f"{pattern.nothing()}{but if skipped else ''}")


class _ListMatches(Matches):
    def __init__(self, path: str, root: str | None) -> None:
        super().__init__()
        self._path = path
        self._root = root

    def __iter__(self) -> Iterator[Found]:
        name_of = None if self._root is None else _namer(_top(self._root), self._root)
        empty = True
        for line in self._lines():
            empty = False
            if is_stream(line):
                raise UsageError(f"the list names the live stream {shown_url(line)}: streams are given as --input")
            if storage.is_remote(line):
                uri, size, mtime_ns = line, None, None
            else:
                uri = os.path.abspath(line)
                try:
                    stat = os.stat(uri)
                    size, mtime_ns = stat.st_size, stat.st_mtime_ns
                except OSError:
                    size = mtime_ns = None  # the reader will say why
            yield Found(uri, display_name(line) if name_of is None else name_of(uri), size, mtime_ns)
        if empty:
            raise UsageError(f"the list {display_name(self._path)!r} names no file: it needs one path a line")

    def _lines(self) -> Iterator[str]:
        name = repr(display_name(self._path))
        try:
            with storage.open_read(self._path, special=True) as file:
                number = 0
                while line := file.readline(_MAX_LINE):
                    number += 1
                    if b"\0" in line or (len(line) == _MAX_LINE and not line.endswith(b"\n")):
                        what = "a NUL byte" if b"\0" in line else f"more than {_MAX_LINE:,} bytes"
                        raise UsageError(f"{name}, line {number}, has {what}: the list needs one path a line")
                    if number == 1:
                        line = line.removeprefix(b"\xef\xbb\xbf")  # an editor's byte order mark
                    line = line.removesuffix(b"\n").removesuffix(b"\r")
                    if line.strip():
                        yield os.fsdecode(line)
        except OSError as error:
            raise UsageError(f"the list {name} cannot be read: {storage.reason(error)}") from error


def _namer(top: str | None, root: str | None) -> Callable[[str], str]:
    """How an input is called: relative to `top`; the whole URI when that is None."""
    if top is None:
        return display_name
    prefix = top if top.endswith("/") else top + "/"

    def name_of(uri: str) -> str:
        if not uri.startswith(prefix):
            raise UsageError(
                f"{display_name(uri)!r} is not below --root {display_name(root or prefix)!r}:"
                " give a root that holds all inputs"
            )
        return display_name(uri[len(prefix) :])

    return name_of


def _top(root: str) -> str:
    return root if storage.is_remote(root) else os.path.abspath(root)


def _common(folders: Sequence[str]) -> str | None:
    """The deepest folder that holds all of them; None when there is none (other schemes or buckets)."""
    # A folder is its segments; the root of a file system, or a bucket, is the first of them.
    first, *others = (_segments(folder) for folder in folders)
    for other in others:
        same = [a == b for a, b in zip(first, other, strict=False)]
        first = first[: same.index(False) if False in same else len(same)]
    return storage.join(*first) if first else None


def _segments(folder: str) -> list[str]:
    if not storage.is_remote(folder):
        return ["/", *filter(None, folder.split("/"))]
    scheme, rest = folder.split("://", 1)
    bucket, *parts = rest.rstrip("/").split("/")
    return [f"{scheme}://{bucket}", *parts]
