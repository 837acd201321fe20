"""What a listing of remote files holds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """A file in a listing: its path, its size in bytes, its time of change in ns since 1970 (None: unknown)."""

    path: str
    size: int
    mtime_ns: int | None
