"""What the patterns of all file systems have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from beam_jobs.errors import UsageError
from beam_jobs.matching.glob import has_wildcard, matches_itself
from beam_jobs.storage import display_name, join


class Matched(NamedTuple):
    """A file that a pattern stands for; size and time are None where they are not known."""

    uri: str
    size: int | None
    mtime_ns: int | None


@dataclass(slots=True)
class Tally:
    """What was left out by rule; `marked` are the folders that hold the mark."""

    hidden: int = 0
    dir_links: int = 0
    special: int = 0
    marked: set[str] = field(default_factory=set)

    @property
    def skipped(self) -> int:
        """All of it."""
        return self.hidden + self.dir_links + self.special + len(self.marked)


class Pattern(ABC):
    """One pattern of the command line.

    Args:
        mark: the path, relative to a folder, of a file that says that nothing in the folder is an input; or empty.
        base: the folder before the first wildcard; of a file its folder, of a folder itself.
    """

    mark: str
    base: str

    @abstractmethod
    def entries(self, tally: Tally) -> Iterator[Matched]:
        """The files, each once; what is left out is added to `tally`."""

    @abstractmethod
    def nothing(self) -> str:
        """Why there is no file, and what to do."""


def marked_itself(text: str) -> UsageError:
    """The error of an input that is a whole folder with the mark."""
    name = display_name(text.rstrip("/"))
    return UsageError(f"the input {name!r} is the folder of a run, not of pictures: name what you mean in it")


def split(top: str, segments: Sequence[str], is_dir: Callable[[str], bool]) -> tuple[str, Sequence[str]]:
    """The folder before the first wildcard, and the segments from there on.

    A folder that exists is meant literally where its name, read as a pattern, would miss it (`photos [1]/*.jpg`).
    """
    base = top
    for i, segment in enumerate(segments):
        below = join(base, segment)
        if has_wildcard(segment) and (matches_itself(segment) or not is_dir(below)):
            return base, segments[i:]
        base = below
    return base, []
