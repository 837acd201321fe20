"""Patterns of URLs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.matching.glob import Glob, has_wildcard
from beam_jobs.matching.pattern import Matched, Pattern, Tally, marked_itself, split


class RemotePattern(Pattern):
    """A file, a folder (or prefix of objects) or a glob of a file system that Beam knows.

    Raises:
        UsageError: it is nothing that exists, its bucket is a pattern, or the file system does not answer.
    """

    def __init__(self, url: str, mark: str = "") -> None:
        self._url = url
        self.mark = mark
        self._file: storage.Entry | None = None
        self._glob = Glob(["**"])
        scheme, rest = url.split("://", 1)
        bucket, *segments = rest.rstrip("/").split("/")
        if not bucket or has_wildcard(bucket):
            raise UsageError(f"the input {url!r} has no bucket before its first wildcard")
        top = f"{scheme}://{bucket}"
        try:
            self._file = storage.stat_remote(url)
            if self._file is not None:
                self.base = url.rpartition("/")[0]
            elif storage.is_dir(url):
                self.base = url.rstrip("/")
                if mark and storage.exists(storage.join(self.base, mark)):
                    raise marked_itself(url)
            else:
                self.base, wild = split(top, segments, storage.is_dir)
                if not wild:
                    raise UsageError(f"the input {url!r} does not exist")
                self._glob = Glob([*wild, "**"] if url.endswith("/") else wild)
        except OSError as error:
            raise self._silent(error) from error

    def entries(self, tally: Tally) -> Iterator[Matched]:
        """See `Pattern`."""
        if self._file is not None:
            yield Matched(self._file.path, self._file.size, self._file.mtime_ns)
            return
        prefix = self.base + "/"
        hidden: set[str] = set()
        try:
            marked = self._marked()
            for found in storage.walk_remote(self.base):
                if self._matches(path := found.path[len(prefix) :], hidden):
                    if folder := _above(path, marked):
                        tally.marked.add(prefix + folder)
                    else:
                        yield Matched(found.path, found.size, found.mtime_ns)
        except OSError as error:
            raise self._silent(error) from error
        tally.hidden += len(hidden)

    def nothing(self) -> str:
        """See `Pattern`."""
        return f"the input {self._url!r} matches no file below {self.base!r}"

    def _marked(self) -> set[str]:
        """The folders with the mark, relative to the base. A listing of its own: what comes first is not known."""
        if not self.mark:
            return set()
        prefix, suffix = self.base + "/", "/" + self.mark
        paths = (found.path[len(prefix) :] for found in storage.walk_remote(self.base))
        return {path.removesuffix(suffix) for path in paths if path.endswith(suffix)}

    def _matches(self, path: str, hidden: set[str]) -> bool:
        """Whether a file matches; what hides it (itself, or a folder above it) is put into `hidden`."""
        *folders, name = path.split("/")
        state = self._glob.start
        for depth, folder in enumerate(folders, start=1):
            step = self._glob.step(state, folder)
            if step.hidden_folder and not step.folder:
                hidden.add("/".join(folders[:depth]))
            if not step.folder:
                return False
            state = step.folder
        last = self._glob.step(state, name)
        if last.hidden_file:
            hidden.add(path)
        return last.is_file

    def _silent(self, error: OSError) -> UsageError:
        return UsageError(f"the input {self._url!r} cannot be looked up: {storage.reason(error)}")


def _above(path: str, folders: Collection[str]) -> str:
    """The outermost of `folders` that `path` is in; empty if there is none."""
    if not folders:
        return ""
    ends = (at for at, char in enumerate(path) if char == "/")
    return next((path[:end] for end in ends if path[:end] in folders), "")
