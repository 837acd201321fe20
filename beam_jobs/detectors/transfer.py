"""Bringing a model's files to this machine: an archive or a folder, by http(s) or through the file systems of Beam."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from beam_jobs import storage
from beam_jobs.detectors import archive, download
from beam_jobs.detectors.download import DownloadError, NotThereError, Watch

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Arrived:
    """What was brought.

    Args:
        is_file: it is in one file, perhaps an archive, and not in a folder.
        stamp: what `stamp_of` says of it.
    """

    url: str
    is_file: bool
    stamp: str


@dataclass(frozen=True, slots=True)
class _File:
    """A file to copy: its path, and its name below the folder that it is in."""

    path: str
    name: str
    size: int
    mtime_ns: int | None


def bring(url: str, part: Path, folder: Path, watch: Watch) -> Arrived:
    """Brings the file at `url` to the file `part`, or the files below the folder at `url` into `folder`.

    Raises:
        NotThereError: there is no such file or folder.
        DownloadError: it cannot be read, or is too large.
        OSError: the target cannot be written.
    """
    if download.is_http(url):
        return Arrived(url, is_file=True, stamp=download.download(url, part, watch))
    with _reading(url):
        files = _files(url)
    total = sum(file.size for file in files)
    if len(files) > archive.MAX_FILES or total > archive.MAX_BYTES:
        raise DownloadError(
            f"{url} holds more than a model may have, {archive.MAX_FILES:,} files or {archive.MAX_BYTES:,} bytes"
        )
    is_file = [file.name for file in files] == [""]
    have = 0
    for file in files:
        target = part if is_file else folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        have = _copy(file.path, target, have, total, watch)
    if have != total:
        raise DownloadError(f"{url} gave {have:,} bytes and not {total:,}: it was changed while it was read")
    return Arrived(url, is_file, _stamp(files))


def stamp_of(url: str) -> str:
    """What changes when the file or folder does, found out without reading it; "" when it cannot be told."""
    if download.is_http(url):
        return download.stamp_of(url)
    try:
        return _stamp(_files(url))
    except (OSError, NotThereError, DownloadError):
        return ""


def _files(url: str) -> list[_File]:
    """The file at `url`, with an empty name, or those below the folder `url`, by name."""
    if storage.is_remote(url):
        one = storage.stat_remote(url)
        # One more than may be: somebody's whole bucket is not listed in vain.
        found = [one] if one else list(itertools.islice(storage.walk_remote(url), archive.MAX_FILES + 1))
        files = [_File(entry.path, entry.path[len(url) + 1 :], entry.size, entry.mtime_ns) for entry in found]
    else:
        top = Path(url)
        paths = [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]
        names = ["" if path == top else path.relative_to(top).as_posix() for path in paths]
        stats = [path.stat() for path in paths]
        files = [
            _File(os.fspath(path), name, stat.st_size, stat.st_mtime_ns)
            for path, name, stat in zip(paths, names, stats, strict=True)
        ]
    if not files:
        raise NotThereError(f"{url} is not there")
    for file in files:
        # An object's name may be anything.
        parts = file.name.split("/")
        if file.name and (PurePosixPath(file.name).is_absolute() or {"", ".", ".."} & set(parts)):
            raise DownloadError(f"{url} holds a name that leads out of it, {file.name!r}")
    return sorted(files, key=lambda file: file.name)


def _stamp(files: list[_File]) -> str:
    lines = "".join(f"{file.name}\0{file.size}\0{file.mtime_ns}\n" for file in files)
    return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()


def _copy(path: str, target: Path, have: int, total: int, watch: Watch) -> int:
    """Copies a file; gives how many bytes there are then, of all files."""
    with _reading(path):
        source = storage.open_read(path)
    with source, target.open("wb") as file:
        while True:
            watch(have, total)
            with _reading(path):
                data = source.read(_CHUNK)
            if not data:
                return have
            file.write(data)
            have += len(data)


@contextlib.contextmanager
def _reading(url: str) -> Iterator[None]:
    """Tells what goes wrong there from what goes wrong here."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotThereError(f"{url} is not there") from error
    except OSError as error:
        kind = NotThereError if error.errno == errno.ENOTDIR else DownloadError
        raise kind(f"{url} cannot be read: {storage.reason(error)}") from error
