"""Objects of S3 and of Google Cloud Storage. See the package for what the functions promise.

Beam's file systems make a client for each operation: 300 ms of CPU with boto3, where the request itself takes 4. So
these two are used through their own clients, one a process, which are thread-safe, keep their connections, and repeat
what failed for a while (429, 5xx, a broken connection) with exponential backoff. Endpoint and keys are Beam's options,
or else where the clients look by themselves: environment, profile, role.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import IO, Any, BinaryIO, NamedTuple, Protocol, cast

from beam_jobs.storage.entry import Entry

SCHEMES = ("s3", "gs")

#: Bytes that opening fetches: nearly every picture whole, in one request; and of each further request.
_FIRST_BLOCK, _BLOCK = 4 << 20, 16 << 20
_BUFFER = 1 << 20
_SPOOL = 8 << 20


class Block(NamedTuple):
    """Bytes of an object, and what tells this version of it from others; None where the store does not say."""

    data: bytes
    version: str | None


class Client(Protocol):
    """What a store can do. All raise OSErrors, once repeating did not help."""

    def read(self, url: str, start: int, length: int) -> Block:
        """Up to `length` bytes from `start`; fewer only at the end."""

    def stat(self, url: str) -> Entry | None:
        """The object of exactly this name."""

    def walk(self, prefix: str) -> Iterator[Entry]:
        """Every object whose URL starts so, a page of the listing at a time."""

    def names(self, folder: str) -> Iterator[str]:
        """The URLs directly below `folder/`; those that have some below them end in `/`."""

    def write(self, url: str, file: IO[bytes], size: int) -> None:
        """Makes an object, which appears when all of it is there."""

    def delete(self, url: str) -> None:
        """Deletes an object; that there is none is no error on every store."""


@cache
def _client(scheme: str) -> Client:
    if scheme == "s3":
        from beam_jobs.storage.s3 import S3Client

        return S3Client()
    from beam_jobs.storage.gcs import GcsClient

    return GcsClient()


def forget_clients() -> None:
    """Makes new clients from here on: their options have changed."""
    _client.cache_clear()


def _of(url: str) -> Client:
    scheme = url.split("://", 1)[0]
    try:
        return _client(scheme)
    except ImportError as error:
        what = {"s3": "aws", "gs": "gcp"}[scheme]
        text = f"no client for {scheme}:// is installed (pip install 'beam-detect[{what}]' brings it)"
        raise OSError(errno.EPROTONOSUPPORT, text, url) from error


def open_read(url: str) -> BinaryIO:
    """Open for reading; fails at once where there is no such object."""
    return cast(BinaryIO, io.BufferedReader(_Reader(_of(url), url), _BUFFER))


def exists(url: str) -> bool:
    """Whether there is an object, or one below `url/`."""
    return stat(url) is not None or is_dir(url)


def is_dir(url: str) -> bool:
    """Whether there is an object below `url/`."""
    try:
        return next(_of(url).names(url.rstrip("/") + "/"), None) is not None
    except FileNotFoundError:  # the bucket
        return False


def size(url: str) -> int:
    """The size in bytes."""
    found = stat(url)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return found.size


def list_dir(url: str) -> list[str]:
    """The names directly below a prefix."""
    top = url.rstrip("/") + "/"
    names = {name[len(top) :].rstrip("/") for name in _of(url).names(top)} - {""}
    if not names:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return list(names)


def stat(url: str) -> Entry | None:
    """The object of exactly this name, if there is one."""
    if url.endswith("/") or "/" not in url.split("://", 1)[1]:
        return None  # a folder or a bucket
    return _of(url).stat(url)


def walk(folder: str) -> Iterator[Entry]:
    """Every object below `folder/`, but for those by which some tools mark a folder."""
    try:
        for entry in _of(folder).walk(folder.rstrip("/") + "/"):
            if not entry.path.endswith("/"):
                yield entry
    except FileNotFoundError:  # the bucket
        return


def make_dirs(url: str) -> None:
    """There are no folders."""


@contextlib.contextmanager
def atomic_writer(url: str) -> Iterator[BinaryIO]:
    """Gather on the local disk, then upload under the final name: an object appears whole, and a rename is a copy."""
    with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
        yield cast(BinaryIO, spool)
        length = spool.seek(0, os.SEEK_END)
        spool.seek(0)
        _of(url).write(url, spool, length)


def remove(url: str) -> None:
    """Delete one object."""
    _of(url).delete(url)


def split(url: str) -> tuple[str, str]:
    """Bucket and key of a URL.

    Raises:
        OSError: it has no bucket.
    """
    bucket, _, key = url.split("://", 1)[1].partition("/")
    if not bucket:
        raise OSError(errno.EINVAL, "the address names no bucket", url)
    return bucket, key


class _Reader(io.RawIOBase):
    """An object, fetched block by block. A block is fetched whole or again, so that no byte depends on a retry."""

    def __init__(self, client: Client, url: str) -> None:
        self._client, self._url = client, url
        self._position = self._start = 0
        self._block = b""
        self._version: str | None = None
        self._size: int | None = None
        self._fetch(_FIRST_BLOCK)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._start <= self._position < self._start + len(self._block):
            if self._size is not None and self._position >= self._size:
                return 0
            self._fetch(_BLOCK)
        offset = self._position - self._start
        data = memoryview(self._block)[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            if self._size is None:
                self._size = size(self._url)
            offset += self._size
        elif whence == os.SEEK_CUR:
            offset += self._position
        if offset < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), self._url)
        self._position = offset
        return offset

    def _fetch(self, length: int) -> None:
        self._start = self._position
        self._block, version = self._client.read(self._url, self._start, length)
        if self._block and len(self._block) < length:
            self._size = self._start + len(self._block)
        if None not in (version, self._version) and version != self._version:
            raise OSError(errno.ESTALE, "it was replaced while it was read", self._url)
        self._version = version or self._version
