"""Patterns of local paths."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from beam_jobs.errors import UsageError
from beam_jobs.matching.glob import Glob, State, has_wildcard
from beam_jobs.matching.pattern import Matched, Pattern, Tally, marked_itself, split
from beam_jobs.storage import display_name, reason


class LocalPattern(Pattern):
    """A file, a folder or a glob of this machine.

    Raises:
        UsageError: it is nothing that exists, or its folder may not be looked at.
    """

    def __init__(self, text: str, mark: str = "") -> None:
        self._text = text
        self.mark = mark
        if not text or "\0" in text:
            raise UsageError(f"the input {text!r} is not a path: name a file, a folder or a pattern")
        path = os.path.abspath(text)
        self._file: str | None = None
        self._glob = Glob(["**"])
        self._is_folder = os.path.isdir(path)
        if self._is_folder:
            self.base = path
            if self._is_marked(path):
                raise marked_itself(text)
        elif self._lexists(path):
            self._file = path
            self.base = os.path.dirname(path)
        else:
            self.base, segments = split("/", path.strip("/").split("/"), os.path.isdir)
            if not segments:
                raise UsageError(f"the input {self._name} does not exist{_hint(path)}")
            if not os.path.isdir(self.base):
                folder = display_name(self.base)
                raise UsageError(
                    f"the input {self._name} matches nothing: there is no folder {folder!r}{_hint(self.base)}"
                )
            self._glob = Glob([*segments, "**"] if text.endswith("/") else segments)

    @property
    def _name(self) -> str:
        return repr(display_name(self._text))

    def entries(self, tally: Tally) -> Iterator[Matched]:
        """See `Pattern`. A file that was named is an input whatever it is."""
        if self._file is not None:
            yield _matched(self._file)
        else:
            yield from self._walk(tally)

    def nothing(self) -> str:
        """See `Pattern`."""
        if self._is_folder:
            return f"the input {self._name} is a folder without files"
        return (
            f"the input {self._name} matches no file in {display_name(self.base)!r}; a pattern matches files, not"
            " folders, and ** any number of folders"
        )

    def _is_marked(self, folder: str) -> bool:
        return bool(self.mark) and os.path.exists(os.path.join(folder, self.mark))

    def _lexists(self, path: str) -> bool:
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if has_wildcard(path):
                return False  # a pattern may be longer than any name
            raise UsageError(f"the input {self._name} cannot be looked at: {reason(error)}") from error
        return True

    def _walk(self, tally: Tally) -> Iterator[Matched]:
        # A stack, and one folder open at a time: a tree may be deeper than Python's stack or the limit of open files.
        folders: list[tuple[str, State]] = [(self.base, self._glob.start)]
        while folders:
            folder, state = folders.pop()
            if folder != self.base and self._is_marked(folder):
                tally.marked.add(folder)
                continue
            try:
                entries = os.scandir(folder)
            except OSError as error:
                if folder == self.base:
                    raise UsageError(
                        f"the input {self._name} matches nothing: {display_name(folder)!r} cannot be listed:"
                        f" {reason(error)}"
                    ) from error
                yield _matched(folder)
                continue
            with entries:
                for entry in entries:
                    step = self._glob.step(state, entry.name)
                    if not step.any:
                        continue
                    path = os.path.join(folder, entry.name)
                    kind = _kind(entry)
                    if kind == stat.S_IFDIR:
                        if below := step.linked_folder if entry.is_symlink() else step.folder:
                            folders.append((path, below))
                        elif step.folder:
                            tally.dir_links += 1
                        else:
                            tally.hidden += step.hidden_folder
                    elif not step.is_file:
                        tally.hidden += step.hidden_file
                    elif kind in (stat.S_IFREG, None):
                        yield _matched(path)
                    else:
                        tally.special += 1


def _hint(path: str) -> str:
    parent = os.path.dirname(path)
    while not os.path.isdir(parent) and parent != "/":
        parent = os.path.dirname(parent)
    return f" (the nearest folder that exists is {display_name(parent)!r})"


def _kind(entry: os.DirEntry[str]) -> int | None:
    """Of what the name leads to; None: to nothing that can be looked at."""
    try:
        if entry.is_file():  # these two need no system call for what is not a link
            return stat.S_IFREG
        if entry.is_dir():
            return stat.S_IFDIR
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError:
        return None


def _matched(path: str) -> Matched:
    try:
        found = os.stat(path)
    except OSError:
        return Matched(path, None, None)  # the reader will say why
    if stat.S_ISDIR(found.st_mode):
        return Matched(path, None, None)
    return Matched(path, found.st_size, found.st_mtime_ns)
