"""The bytes of the pictures of a group: read in order, the next ones while the detector is at work on one."""

from __future__ import annotations

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.formats import tfrecord

#: Files are read ahead until they hold so many bytes together; the one that is being read comes on top.
AHEAD_BYTES = 32 << 20

#: A file's bytes; None of a TFRecord file, of which only the beginning was read.
Content = bytes | None


class ReadAhead:
    """Reads files in a thread of its own, in order, before they are asked for. A context manager.

    Args:
        uris: the files.
        read: reads one; what it raises is raised where that file is taken.
        most_bytes: nothing is read while so many bytes, or more, wait to be taken.
    """

    def __init__(self, uris: Sequence[str], read: Callable[[str], Content], most_bytes: int = AHEAD_BYTES) -> None:
        self._uris = uris
        self._read = read
        self._most_bytes = most_bytes
        self._ready: deque[Content | Exception] = deque()
        self._bytes = 0
        self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)
        #: CPU seconds of the reading so far.
        self.cpu_s = 0.0

    def __enter__(self) -> ReadAhead:
        if self._uris:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Not waited for: it may hang in a file that nobody wants any more.
        with self._changed:
            self._stopped = True
            self._changed.notify()

    def take(self) -> Content:
        """The next file, once it is there; call it once for each.

        Raises:
            Exception: what reading it raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready)
            content = self._ready.popleft()
            self._bytes -= _size(content)
            self._changed.notify()
        if isinstance(content, Exception):
            raise content
        return content

    def _run(self) -> None:
        for uri in self._uris:
            with self._changed:
                self._changed.wait_for(lambda: self._bytes < self._most_bytes or self._stopped)
                if self._stopped:
                    return
            content: Content | Exception
            start = time.thread_time()
            try:
                content = self._read(uri)
            except Exception as error:
                content = error
            with self._changed:
                self.cpu_s += time.thread_time() - start
                self._ready.append(content)
                self._bytes += _size(content)
                self._changed.notify()


def _size(content: Content | Exception) -> int:
    return len(content) if isinstance(content, bytes) else 0


def read_picture(uri: str, limit: int, *, or_records: bool) -> Content:
    """The bytes of a picture file.

    Args:
        limit: a file of more bytes is refused.
        or_records: look whether it is a TFRecord file, and give None then.

    Raises:
        InputError: stage `read`: it cannot be read, or is too large.
    """
    try:
        with storage.open_read(uri) as stream:
            head = stream.read(tfrecord.HEAD_BYTES)
            if or_records and tfrecord.looks_like_tfrecord(head):
                return None
            data = head + stream.read(limit + 1 - len(head))
    except OSError as error:
        raise InputError("read", *why_unreadable(error)) from error
    if len(data) > limit:
        raise InputError("read", "too_large", f"The file has more than {limit} bytes.")
    return data


def why_unreadable(error: OSError) -> tuple[str, str]:
    """A code and a message without paths: the row has them."""
    if isinstance(error, FileNotFoundError):
        return "not_found", "There is no such file, or it is a link to nothing."
    reason = {
        errno.EACCES: "there is no permission to read it",
        errno.EISDIR: "it is a folder",
        errno.ELOOP: "it is a link that leads back to itself",
        errno.ENAMETOOLONG: "its name is too long",
        errno.EPROTONOSUPPORT: "no file system for such an address is installed",
    }.get(error.errno or 0, f"the system says {type(error).__name__}")
    return "unreadable", f"The file cannot be read: {reason}."
