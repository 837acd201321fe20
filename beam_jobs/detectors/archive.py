"""Unpacking an archive that nobody vouches for: plain files and folders below one folder, and no more than so much."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Protocol

#: A model has a few dozen files at most.
MAX_FILES = 10_000
#: The zoo's largest models have 3 GB with their checkpoints.
MAX_BYTES = 8 << 30

# Of what stands before a member's data, long names included, and behind the last one: tarfile reads it all at once.
_MAX_HEADER = 1 << 20
_CHUNK = 1 << 20


class ArchiveError(Exception):
    """What is wrong with the archive, in a few words that can follow its name."""


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Bounded:
    """A stream that gives no more than it was last allowed to: what an archive unpacks to need not be finite."""

    def __init__(self, stream: _Readable) -> None:
        self._stream = stream
        self._left = 0

    def allow(self, size: int) -> None:
        """From now on `size` bytes more."""
        self._left = size

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise ArchiveError(f"has a header of more than {_MAX_HEADER:,} bytes")
        return data


def is_gzip(path: Path) -> bool:
    """Whether the file begins as a .gz does."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


def unpack(archive: Path, folder: Path, *, max_files: int = MAX_FILES, max_bytes: int = MAX_BYTES) -> None:
    """Unpacks a .tar.gz into the empty folder `folder`.

    Owners, permissions and times are not taken over.

    Raises:
        ArchiveError: it is broken, holds a name that leads elsewhere, a link, a device, the same name twice, or more
            than `max_files` entries or `max_bytes` bytes. What was unpacked until then is left.
        OSError: `folder` cannot be written.
    """
    try:
        with gzip.open(archive) as stream:
            _unpack(_Bounded(stream), folder, max_files, max_bytes)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArchiveError(f"is cut off, or no .tar.gz: {str(error).rstrip('.') or type(error).__name__}") from error


def _unpack(stream: _Bounded, folder: Path, max_files: int, max_bytes: int) -> None:
    files, left = 0, max_bytes
    stream.allow(_MAX_HEADER)
    with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]  # it needs no more than read
        while (member := tar.next()) is not None:
            files += 1
            left -= member.size
            if files > max_files or left < 0 or member.size < 0:
                raise ArchiveError(f"unpacks to more than {max_files:,} files or {max_bytes:,} bytes")
            target = folder / _relative(member)
            stream.allow(member.size + _MAX_HEADER)  # some of the next header is read ahead
            try:
                if member.isdir():
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    _write(tar, member, target)
            except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
                raise ArchiveError(f"holds {member.name!r} twice") from error
            stream.allow(_MAX_HEADER)
    # To the end: what gzip's checksum says is known only there.
    while stream.read(_CHUNK):
        pass


def _relative(member: tarfile.TarInfo) -> PurePosixPath:
    """Where the member goes, below the folder."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\0" in member.name:
        raise ArchiveError(f"holds a name that leads out of it, {member.name!r}")
    if not (member.isdir() or member.isreg()) or member.issparse():
        kind = "a link" if member.issym() or member.islnk() else "something that is neither a file nor a folder"
        raise ArchiveError(f"holds {kind}, {member.name!r}")
    if member.isreg() and not path.parts:
        raise ArchiveError("holds a file without a name")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = tar.extractfile(member)
    assert source is not None  # a regular file
    with source, target.open("xb") as file:
        left = member.size
        while left:
            data = source.read(min(_CHUNK, left))
            if not data:
                raise EOFError("it ends in the middle of a file")
            file.write(data)
            left -= len(data)
