"""Files of this machine. See the package for what the functions promise."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from typing import BinaryIO

#: Files whose name starts so are unfinished writes; what a killed run left of them may be deleted.
TEMP_PREFIX = ".tmp-beam-detect-"


def open_read(path: str, *, special: bool = False) -> BinaryIO:
    """Open a regular file; with `special` a pipe or a device too."""
    with _os_errors(path):
        if special:
            return open(path, "rb")
        # O_NONBLOCK: opening a fifo would wait for its writer. It changes nothing for a regular file.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "Not a regular file", path)
        return open(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def exists(path: str) -> bool:
    """Whether there is a file or a folder; a dangling link is none."""
    return os.path.exists(path)


def is_dir(path: str) -> bool:
    """Whether there is a folder, or a link to one."""
    return os.path.isdir(path)


def size(path: str) -> int:
    """The size in bytes."""
    with _os_errors(path):
        return os.stat(path).st_size


def list_dir(path: str) -> list[str]:
    """The names directly below a folder."""
    with _os_errors(path):
        return os.listdir(path)


def make_dirs(path: str) -> None:
    """Make a folder and its parents."""
    with _os_errors(path):
        os.makedirs(path, exist_ok=True)


@contextlib.contextmanager
def atomic_writer(path: str) -> Iterator[BinaryIO]:
    """Write beside the final name, flush to the disk, rename."""
    folder = os.path.dirname(path) or "."
    make_dirs(folder)
    # Not tempfile: it makes files that only their owner may read, and changing that needs the umask of the process.
    temporary = os.path.join(folder, TEMP_PREFIX + secrets.token_hex(8))
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(fd, "wb", closefd=False) as file:
            yield file
        os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    # The new name should survive a power cut, too; not every file system can promise it.
    with contextlib.suppress(OSError):
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder_fd)
        finally:
            os.close(folder_fd)


@contextlib.contextmanager
def exclusive(path: str) -> Iterator[bool]:
    """A lock of the folder's own, which leaves no file: the system lets go of it when this process ends."""
    make_dirs(path)
    free = True
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        free = False
    except OSError:  # a file system without locks
        pass
    try:
        yield free
    finally:
        os.close(fd)


def remove(path: str) -> None:
    """Delete one file."""
    with _os_errors(path):
        os.unlink(path)


@contextlib.contextmanager
def _os_errors(path: str) -> Iterator[None]:
    """A path that no file can have (a NUL byte) is an OSError like any other fault of a path."""
    try:
        yield
    except ValueError as error:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path) from error
