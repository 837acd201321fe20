"""Files anywhere: a local path, an object (`s3://`, `gs://`), or a URL of another file system that Beam knows.

The only importer of Beam's FileSystems, and only when a URL is met: local work never waits for Beam's import.
Whatever goes wrong is an `OSError` (`FileNotFoundError`, `PermissionError`, …), on every file system.
Undecodable bytes of a local path are surrogate escapes, as in `os.fsdecode`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from types import ModuleType
from typing import Any, BinaryIO, cast

from beam_jobs.storage import local, objects, remote
from beam_jobs.storage.appender import Appender, LocalAppender, RemoteAppender
from beam_jobs.storage.entry import Entry
from beam_jobs.storage.local import TEMP_PREFIX

__all__ = [
    "TEMP_PREFIX",
    "Appender",
    "Entry",
    "FileTooLargeError",
    "appender",
    "atomic_writer",
    "display_name",
    "exclusive",
    "exists",
    "is_dir",
    "is_remote",
    "join",
    "list_dir",
    "make_dirs",
    "open_read",
    "read_bytes",
    "read_each",
    "reason",
    "remove",
    "remove_dir",
    "set_options",
    "size",
    "stamp",
    "stat_remote",
    "walk_remote",
    "write_atomic",
]

#: Files of a bucket that are read at a time.
_READ_AHEAD = 8
_SCHEME = re.compile(r"[a-zA-Z][-a-zA-Z0-9+.]*://")


class FileTooLargeError(OSError):
    """A file is longer than the caller accepts."""

    def __init__(self, path: str, max_bytes: int) -> None:
        super().__init__(errno.EFBIG, f"longer than {max_bytes:,} bytes", path)
        self.max_bytes = max_bytes

    def __reduce__(self) -> tuple[type[FileTooLargeError], tuple[Any, int]]:
        return type(self), (self.filename, self.max_bytes)


def is_remote(path: str) -> bool:
    """Whether `path` is a URL (`scheme://…`) and not a local path."""
    return _SCHEME.match(path) is not None


def display_name(path: str) -> str:
    """The path as valid UTF-8, for tables and messages: as it is, but for undecodable bytes, which become `%FF`."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return re.sub("[\ud800-\udfff]", lambda found: f"%{ord(found[0]) & 0xFF:02X}", path)
    return path


def reason(error: OSError) -> str:
    """Why, in a few words, without the path: for messages that name the path themselves. The same on every run."""
    return error.strerror or str(error) or type(error).__name__


def join(root: str, *parts: str) -> str:
    """`root/part/…`, for local paths and URLs alike; the parts are relative and use `/`."""
    path = root
    for part in parts:
        path = f"{path}{part}" if not path or path.endswith("/") else f"{path}/{part}"
    return path


def open_read(path: str, *, special: bool = False) -> BinaryIO:
    """Open for reading: the bytes as they are, never decompressed because of the name's ending.

    Args:
        special: accept local pipes and devices too (`/dev/stdin`); else only regular files, so that a fifo cannot
            block and a device cannot feed for ever.
    """
    store = _store(path)
    return cast(BinaryIO, local.open_read(path, special=special) if store is local else store.open_read(path))


def read_bytes(path: str, max_bytes: int | None = None) -> bytes:
    """The whole file.

    Raises:
        FileTooLargeError: it holds more than `max_bytes`; no more than that was read.
    """
    with open_read(path) as file:
        if max_bytes is None:
            return file.read()
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FileTooLargeError(path, max_bytes)
    return data


def read_each(root: str, paths: Iterable[str]) -> Iterator[bytes]:
    """Whole files below a folder, in order. Of a bucket's the next ones are read meanwhile: each costs a round trip."""
    places = (join(root, path) for path in paths)
    if not is_remote(root):
        yield from map(read_bytes, places)
        return
    threads = ThreadPoolExecutor(_READ_AHEAD, "read")
    try:
        reading = deque(threads.submit(read_bytes, place) for place in islice(places, _READ_AHEAD))
        while reading:
            data = reading.popleft().result()
            reading.extend(threads.submit(read_bytes, place) for place in islice(places, 1))
            yield data
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


def stamp(file: BinaryIO) -> tuple[int, int] | None:
    """What changes when an open local file is written to: its size and time of change; None of others."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # `io.UnsupportedOperation` is one
        return None
    return status.st_size, status.st_mtime_ns


def exists(path: str) -> bool:
    """Whether there is a file or a folder (on an object store: any object below `path/`)."""
    return bool(_store(path).exists(path))


def is_dir(path: str) -> bool:
    """Whether `path` is a folder (on an object store: there is an object below `path/`)."""
    return bool(_store(path).is_dir(path))


def size(path: str) -> int:
    """The size of a file in bytes."""
    return int(_store(path).size(path))


def list_dir(path: str) -> list[str]:
    """The names directly below a folder, sorted by code point.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    return sorted(_store(path).list_dir(path))


def make_dirs(path: str) -> None:
    """Make a folder and its parents where they are missing; nothing to do on an object store."""
    _store(path).make_dirs(path)


@contextlib.contextmanager
def atomic_writer(path: str) -> Iterator[BinaryIO]:
    """A binary file that appears at `path` whole or not at all; parent folders are made, an old file is replaced.

    Leaving the block by an exception leaves what was there before. Do not close the file inside the block.
    """
    with _store(path).atomic_writer(path) as file:
        yield file


def write_atomic(path: str, data: bytes) -> None:
    """Write a whole file, as `atomic_writer` does."""
    with atomic_writer(path) as file:
        file.write(data)


def appender(path: str) -> Appender:
    """A new file that grows by whole lines, for logs; several where files cannot grow (`name-00000.jsonl` …)."""
    return RemoteAppender(path) if is_remote(path) else LocalAppender(path)


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[bool]:
    """Whether a folder, made if need be, is nobody else's for as long as the block lasts.

    Only this machine's processes are told apart, and only in local folders; elsewhere it is always free.
    """
    if is_remote(path):
        yield True
        return
    with local.exclusive(path) as free:
        yield free


def remove(path: str) -> None:
    """Delete one file; FileNotFoundError when it is not there, except on some object stores, where that passes."""
    _store(path).remove(path)


def remove_dir(path: str) -> None:
    """Delete an empty folder; OSError when it holds anything. Folders of remote file systems are left."""
    if not is_remote(path):
        os.rmdir(path)


def stat_remote(url: str) -> Entry | None:
    """The remote file of exactly this name; None when there is none, or when it is a folder."""
    return cast("Entry | None", _store(url).stat(url))


def walk_remote(folder: str) -> Iterator[Entry]:
    """Every file below a remote folder, as the listing comes; nothing when the folder is not there."""
    return cast(Iterator[Entry], _store(folder).walk(folder))


def set_options(beam_args: Sequence[str]) -> None:
    """Give the file systems their options (endpoint, keys, project, …), as flags of Beam's. Imports Beam.

    A runner's workers have them already; the launcher and processes of our own have not.
    """
    from apache_beam.io.filesystems import FileSystems
    from apache_beam.options.pipeline_options import PipelineOptions

    FileSystems.set_options(PipelineOptions(list(beam_args)))
    objects.forget_clients()


def _store(path: str) -> ModuleType:
    if not is_remote(path):
        return local
    return objects if path.split("://", 1)[0] in objects.SCHEMES else remote
