"""The bytes of the pictures of a group: taken in order, the next ones read while the detector is at work on one."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.formats import tfrecord
from beam_jobs.imaging.video import HEAD_BYTES, ClipFile, demuxer_of
from beam_jobs.imaging.video_stream import Progress

#: Files are read ahead until they hold so many bytes together; what is being read comes on top.
AHEAD_BYTES = 32 << 20
#: Files of a store that a process reads at a time: with 30 ms an answer, 130 a second.
STORE_READERS = 4
#: How often a file that is written to meanwhile is read, and the first of the pauses between.
_READS, _PAUSE_SECONDS = 4, 0.05

#: A file's bytes; None of a TFRecord file, and what a clip is: of these only the beginning was read. A stream's begin.
Content = bytes | ClipFile | Progress | None


class ReadAhead:
    """Reads files in threads of its own before they are asked for. A context manager.

    Local files are read one at a time. Those of a store several at a time: most of the time is waiting for an answer.

    Args:
        uris: the files, in the order in which they are taken.
        read: reads one; what it raises is raised where that file is taken.
        most_bytes: nothing more is begun while so many bytes, or more, wait to be taken.
    """

    def __init__(self, uris: Sequence[str], read: Callable[[str], Content], most_bytes: int = AHEAD_BYTES) -> None:
        self._uris = uris
        self._read = read
        self._most_bytes = most_bytes
        self._ready: dict[int, Content | Exception] = {}
        self._begun = self._taken = 0
        self._bytes = 0
        self._stopped = False
        self._changed = threading.Condition()
        readers = min(len(uris), STORE_READERS if any(map(storage.is_remote, uris)) else 1)
        self._threads = [threading.Thread(target=self._run, name="read-ahead", daemon=True) for _ in range(readers)]
        #: CPU seconds of the reading so far.
        self.cpu_s = 0.0

    def __enter__(self) -> ReadAhead:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        # Not waited for: one may hang in a file that nobody wants any more.
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def take(self) -> Content:
        """The next file, once it is there; call it once for each.

        Raises:
            Exception: what reading it raised.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._taken in self._ready)
            content = self._ready.pop(self._taken)
            self._taken += 1
            self._bytes -= _size(content)
            self._changed.notify_all()
        if isinstance(content, Exception):
            raise content
        return content

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._bytes < self._most_bytes or self._stopped)
                if self._stopped or self._begun == len(self._uris):
                    return
                position = self._begun
                self._begun += 1
            content: Content | Exception
            start = time.thread_time()
            try:
                content = self._read(self._uris[position])
            except Exception as error:
                content = error
            with self._changed:
                self.cpu_s += time.thread_time() - start
                self._ready[position] = content
                self._bytes += _size(content)
                self._changed.notify_all()


def _size(content: Content | Exception) -> int:
    return len(content) if isinstance(content, bytes) else 0


def read_picture(uri: str, limit: int, *, or_records: bool, or_clip: bool = False) -> Content:
    """The bytes of a picture file. One that is written to meanwhile is read again, a few times.

    Args:
        limit: a file of more bytes is refused.
        or_records: look whether it is a TFRecord file, and give None then.
        or_clip: look whether it is a clip, and give that then.

    Raises:
        InputError: stage `read`: it cannot be read, or is too large.
    """
    try:
        data = _read(uri, limit, or_records=or_records, or_clip=or_clip)
    except OSError as error:
        raise InputError("read", *why_unreadable(error)) from error
    if isinstance(data, bytes) and len(data) > limit:
        raise InputError("read", "too_large", f"The file has more than {limit} bytes.")
    return data


def _read(uri: str, limit: int, *, or_records: bool, or_clip: bool) -> Content:
    for attempt in range(1, _READS + 1):
        with storage.open_read(uri) as stream:
            before = storage.stamp(stream)
            head = stream.read(max(tfrecord.HEAD_BYTES, HEAD_BYTES))
            if or_records and tfrecord.looks_like_tfrecord(head[: tfrecord.HEAD_BYTES]):
                return None
            if or_clip and (demuxer := demuxer_of(head)):
                return ClipFile(uri, demuxer)
            data = head + stream.read(limit + 1 - len(head))
            if storage.stamp(stream) == before:
                return data
        time.sleep(_PAUSE_SECONDS * attempt)
    raise OSError(errno.ESTALE, "it was written to while it was read", uri)


def read_clip(uri: str) -> ClipFile:
    """What a file is that must be a clip.

    Raises:
        InputError: it cannot be read, or is none.
    """
    try:
        with storage.open_read(uri) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError as error:
        raise InputError("read", *why_unreadable(error)) from error
    if not head:
        raise InputError("decode", "empty", "the file is empty")
    if (demuxer := demuxer_of(head)) is None:
        raise InputError("decode", "not_a_video", f"not a clip of a kind that is known: it starts with {head[:12]!r}")
    return ClipFile(uri, demuxer)


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
        errno.EREMOTEIO: f"the store says {error.strerror}",
        errno.ESTALE: "it was written to, or replaced, while it was read",
    }.get(error.errno or 0, f"the system says {type(error).__name__}")
    return "unreadable", f"The file cannot be read: {reason}."
