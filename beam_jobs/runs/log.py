"""The log of a run: lines of JSON in `DIR/log/`, for whoever asks later what happened when, and why it took so long.

Each start of the program adds a file; elsewhere each worker does. The log is no part of the result: the manifest does
not list it, and a run does not fail because it cannot be written. It holds neither pixels nor keys.
"""

from __future__ import annotations

import secrets
import threading
from collections import Counter, deque
from datetime import UTC, datetime
from typing import Literal

import msgspec

from beam_jobs import storage
from beam_jobs.runs import layout

Level = Literal["info", "warning", "error"]

#: Of each code so many lines are written; then each tenth up to ten times as many, each hundredth, …
ALL_LINES = 10_000
#: Lines that are kept until there is a folder to write them to.
_BEFORE = 1000


class RunLog:
    """Writes the lines of one process. Thread-safe. Keeps what comes before `open`, which is little.

    A line has `time` (UTC), `level`, `stage`, `code`, `message`, `input` where it is about one, and what else there is
    to say. It also has `number`, how many there were of its code, where some of these are left out.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()
        self._file: storage.Appender | None = None
        self._before: deque[bytes] = deque(maxlen=_BEFORE)
        self._closed = False

    def open(self, root: str) -> None:
        """From now on lines go to a file of the run in `root`."""
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}.jsonl"
        with self._lock:
            self._file = storage.appender(storage.join(root, layout.LOG_FOLDER, name))
            for line in self._before:
                self._file.write(line)
            self._before.clear()

    def info(self, stage: str, code: str, message: str, **details: object) -> None:
        """Writes a line about what went as it should."""
        self._write("info", stage, code, message, details)

    def warning(self, stage: str, code: str, message: str, **details: object) -> None:
        """Writes a line about what costs an input, or some time."""
        self._write("warning", stage, code, message, details)

    def error(self, stage: str, code: str, message: str, **details: object) -> None:
        """Writes a line about what ends the run."""
        self._write("error", stage, code, message, details)

    def flush(self) -> None:
        """Writes what is held back, where files cannot grow."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Nothing more is written."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()

    def _write(self, level: Level, stage: str, code: str, message: str, details: dict[str, object]) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        with self._lock:
            self._numbers[code] += 1
            number = self._numbers[code]
            every = 10 ** max(0, len(str(number - 1)) - len(str(ALL_LINES)) + 1)
            if self._closed or number % every:
                return
            if every > 1:
                details["number"] = number
            line = {"time": now, "level": level, "stage": stage, "code": code, "message": message, **details}
            data = msgspec.json.encode(line) + b"\n"
            if self._file is None:
                self._before.append(data)
            else:
                self._file.write(data)


def names(root: str) -> list[str]:
    """The names of the files of a log, in `LOG_FOLDER`."""
    try:
        return [name for name in storage.list_dir(storage.join(root, layout.LOG_FOLDER)) if name.endswith(".jsonl")]
    except OSError:
        return []
