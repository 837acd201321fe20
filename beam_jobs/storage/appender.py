"""A file that grows line by line, for logs: others may read it meanwhile, and a killed writer leaves what it wrote.

It is never in the way: what cannot be written is dropped.
"""

from __future__ import annotations

import contextlib
import os
import threading

from beam_jobs.storage import local, objects, remote

#: Bytes that are held until they are put elsewhere.
_HELD = 1 << 20
#: For how long closing waits for a store that does not answer.
_CLOSE_SECONDS = 5.0


class LocalAppender:
    """A local file; every line is in it at once. Made with the first one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd: int | None = None

    def write(self, data: bytes) -> None:
        """Adds whole lines, or nothing of them."""
        with contextlib.suppress(OSError):
            if self._fd is None:
                local.make_dirs(os.path.dirname(self._path) or ".")
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o666)
            size = os.fstat(self._fd).st_size
            if os.write(self._fd, data) < len(data):
                os.ftruncate(self._fd, size)  # the disk is full: nobody shall meet half a line

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The file has its end."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class RemoteAppender:
    """Files that cannot grow: lines are gathered, and put as files whose names count up."""

    def __init__(self, path: str) -> None:
        self._stem, self._dot, self._suffix = path.rpartition(".")
        self._store = objects if path.split("://", 1)[0] in objects.SCHEMES else remote
        self._held: list[bytes] = []
        self._bytes = 0
        self._number = 0
        self._lock = threading.Lock()

    def write(self, data: bytes) -> None:
        """Adds whole lines."""
        self._held.append(data)
        self._bytes += len(data)
        if self._bytes > _HELD:
            self.flush()

    def flush(self) -> None:
        """Puts what was gathered."""
        with self._lock:
            lines, self._held, self._bytes = self._held, [], 0
            if not lines:
                return
            path = f"{self._stem}-{self._number:05d}{self._dot}{self._suffix}"
            self._number += 1
            with contextlib.suppress(OSError), self._store.atomic_writer(path) as file:
                file.write(b"".join(lines))

    def close(self) -> None:
        """Puts the rest, if the store answers soon."""
        thread = threading.Thread(target=self.flush, name="log", daemon=True)
        thread.start()
        thread.join(_CLOSE_SECONDS)


Appender = LocalAppender | RemoteAppender
