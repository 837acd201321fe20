"""Files of the other file systems that Beam knows. See the package for what the functions promise."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any, BinaryIO, cast

from beam_jobs.storage.entry import Entry
from beam_jobs.storage.local import TEMP_PREFIX

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_BUFFER = 1 << 20
_SPOOL = 8 << 20


def open_read(url: str) -> BinaryIO:
    """Open for reading, with errors that are OSErrors while it is read, too."""
    with _os_errors(url):
        return cast(BinaryIO, io.BufferedReader(_Reader(url), _BUFFER))


def exists(url: str) -> bool:
    """Whether there is a file, a folder or a prefix of objects."""
    return stat(url) is not None or is_dir(url)


def is_dir(url: str) -> bool:
    """Whether there is a folder, or an object below `url/`."""
    fs = _file_system(url)
    with _os_errors(url):
        if not fs.has_dirs():
            return next(iter(fs._list(url.rstrip("/") + "/")), None) is not None
        return bool(fs.exists(url)) and _is_folder(fs, url)


def size(url: str) -> int:
    """The size in bytes."""
    with _os_errors(url):
        return int(_file_system(url).size(url))


def list_dir(url: str) -> list[str]:
    """The names directly below a folder or prefix."""
    fs = _file_system(url)
    top = url.rstrip("/") + "/"
    with _os_errors(url):
        names = {found.path[len(top) :].split("/", 1)[0] for found in fs._list(top)} - {""}
    if not names and not is_dir(url):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    return list(names)


def stat(url: str) -> Entry | None:
    """The remote file of exactly this name; None when there is none, or when it is a folder."""
    if url.endswith("/") or "/" not in url.split("://", 1)[1]:
        return None  # a folder or a bucket; some of Beam's file systems raise ValueError here
    fs = _file_system(url)
    try:
        with _os_errors(url):
            if not fs.exists(url):
                return None
            found = fs.metadata(url)
            return None if _is_folder(fs, url, found.size_in_bytes) else _entry(found)
    except FileNotFoundError:
        return None


def walk(folder: str) -> Iterator[Entry]:
    """Every file below a remote folder, as the listing comes; nothing when the folder is not there.

    `FileSystems.match` would hold all of them at once, reads `[` in a folder's name as a pattern, and knows neither
    hidden names nor segments; so this uses the listing beneath it.
    """
    fs = _file_system(folder)
    folders = [folder.rstrip("/") + "/"]
    with _os_errors(folder):
        if fs.has_dirs() and not fs.exists(folder):
            return
    while folders:
        top = folders.pop()
        with _os_errors(top):
            for found in fs._list(top):
                if found.path.endswith("/"):
                    continue  # the empty object by which some tools mark a folder
                if _is_folder(fs, found.path, found.size_in_bytes):
                    folders.append(found.path + "/")
                else:
                    yield _entry(found)


def make_dirs(url: str) -> None:
    """Make a folder, where the file system has folders."""
    fs = _file_system(url)
    with _os_errors(url):
        if fs.has_dirs() and not fs.exists(url):
            fs.mkdirs(url)


@contextlib.contextmanager
def atomic_writer(url: str) -> Iterator[BinaryIO]:
    """Gather on the local disk, then upload."""
    # Beam's remote files have no way to abandon a write: closing one after an error, or just dropping it, completes
    # the object with what it has got.
    with tempfile.SpooledTemporaryFile(_SPOOL) as spool:
        yield cast(BinaryIO, spool)
        spool.seek(0)
        fs = _file_system(url)
        with _os_errors(url):
            if not fs.has_dirs():
                # An object appears when its upload is completed, all at once. A temporary name would gain nothing:
                # a rename there is a copy and a delete.
                _upload(fs, spool, url)
                return
            temporary = f"{url.rpartition('/')[0]}/{TEMP_PREFIX}{secrets.token_hex(8)}"
            _upload(fs, spool, temporary)
            try:
                if fs.exists(url):
                    _delete(fs, url)  # HDFS refuses to rename onto a file; readers trust the manifest, not the name
                fs.rename([temporary], [url])
            except BaseException:
                with contextlib.suppress(Exception):
                    _delete(fs, temporary)
                raise


def remove(url: str) -> None:
    """Delete one file."""
    if stat(url) is None:  # Beam would delete all that is below a folder
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    with _os_errors(url):
        _delete(_file_system(url), url)


def _delete(fs: Any, url: str) -> None:
    fs.delete([url])


def _upload(fs: Any, source: IO[bytes], url: str) -> None:
    from apache_beam.io.filesystem import CompressionTypes

    before = stat(url)
    try:
        with fs.create(url, compression_type=CompressionTypes.UNCOMPRESSED) as target:
            shutil.copyfileobj(source, target, _BUFFER)
    except BaseException:
        # Nothing half-written may stay; an older object that the upload did not reach does.
        with contextlib.suppress(Exception):
            if stat(url) != before:
                _delete(fs, url)
        raise


class _Reader(io.RawIOBase):
    def __init__(self, url: str) -> None:
        from apache_beam.io.filesystem import CompressionTypes

        self._url = url
        self._file: BinaryIO | None = None
        self._file = _file_system(url).open(url, compression_type=CompressionTypes.UNCOMPRESSED)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._file is not None and bool(self._file.seekable())

    def readinto(self, buffer: Any) -> int:
        assert self._file is not None
        # Pieces of a stated length only: read() without one makes Beam fetch 8 kB a request.
        with _os_errors(self._url):
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        assert self._file is not None
        with _os_errors(self._url):
            self._file.seek(offset, whence)
            return self._file.tell()

    def close(self) -> None:
        file, self._file = self._file, None
        super().close()
        if file is not None:
            file.close()


def _file_system(url: str) -> Any:
    from apache_beam.io.filesystems import FileSystems

    try:
        return FileSystems.get_filesystem(url)
    except ValueError as error:
        scheme = url.split("://", 1)[0]
        text = f"no file system for {scheme}:// is installed (apache-beam[gcp], [aws], [azure] or [hadoop] bring them)"
        raise OSError(errno.EPROTONOSUPPORT, text, url) from error
    except OSError as error:
        raise _translated(error, url) from error


def _is_folder(fs: Any, url: str, size_in_bytes: int = 0) -> bool:
    """Whether an entry is a folder, on a file system that has them: Beam's metadata do not say (HDFS gives size 0)."""
    if size_in_bytes or not fs.has_dirs():
        return False
    try:
        names = [found.path for found in fs._list(url)]
    except OSError:
        return False  # not a folder, or one that may not be listed: it stays an entry, and fails when it is opened
    return names not in ([url], [url + "/"])


def _entry(found: Any) -> Entry:
    seconds: float | None = found.last_updated_in_seconds
    return Entry(found.path, int(found.size_in_bytes), int(seconds * 1e9) if seconds else None)


@contextlib.contextmanager
def _os_errors(url: str) -> Iterator[None]:
    """Turn what the clients of the stores raise into OSErrors; those that the system raised pass."""
    try:
        yield
    # The clients raise whatever they like: S3ClientError, google.api_core exceptions, ValueError, HdfsError, …
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise _translated(error, url) from error


def _translated(error: BaseException, url: str) -> OSError:
    causes = list(_causes(error))
    inner = causes[-1]
    if isinstance(inner, OSError) and inner.errno is not None:
        return OSError(inner.errno, inner.strerror, url)
    # No addresses of objects: the same fault gives the same message.
    text = _ADDRESS.sub("", str(inner).strip().split("\n", 1)[0])[:300] or type(inner).__name__
    code = next((code for cause in causes if isinstance(code := getattr(cause, "code", None), int)), None)
    if code == 404 or re.search(r"not found|does not exist", text, re.IGNORECASE):
        return OSError(errno.ENOENT, os.strerror(errno.ENOENT), url)
    if code in (401, 403):
        return OSError(errno.EACCES, f"{os.strerror(errno.EACCES)} (HTTP {code})", url)
    return OSError(errno.EIO, text, url)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, then those that Beam wrapped in it, outermost first."""
    yield error
    details = getattr(error, "exception_details", None)
    values: Iterable[object] = details.values() if isinstance(details, dict) else [details]
    for value in values:
        if isinstance(value, BaseException):
            yield from _causes(value)
            return
