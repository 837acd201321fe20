"""Live progress on standard error: one line that changes on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from beam_jobs.processes.work import Tally
from beam_jobs.words import counted

_TERMINAL_SECONDS = 0.2
_PIPE_SECONDS = 30.0


class Engine(Protocol):
    """What a job runs on."""

    state: str


class Progress:
    """Shows how far a job is, from counts that somebody else keeps. A context manager.

    Args:
        total: planned inputs.
        tally: the counts so far.
        engine: what runs the job, where it has a `state` that is worth a word.
        clock: seconds; injected by tests.
    """

    def __init__(
        self,
        total: int,
        tally: Tally,
        engine: Engine | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total = total
        self._tally = tally
        self._engine = engine
        self._clock = clock
        self._terminal = _is_terminal()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)

    def __enter__(self) -> Progress:
        self._start = self._clock()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        if self._terminal:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def line(self) -> str:
        """What there is to say now."""
        done, failed = self._tally.done, self._tally.failures.total()
        seconds = self._clock() - self._start
        rate = done / seconds if seconds > 0 else 0.0
        # The number of records in TFRecord files is known only at their end; so is that of all frames.
        known = not self._tally.tfrecord_files and not self._tally.clips and done <= self._total
        words = [f"{done:,} of {counted(self._total, 'picture')}" if known else counted(done, "picture")]
        if done:
            words.append(f"{rate:.1f} pictures/s")
            if known:
                words.append(f"{duration((self._total - done) / rate)} left")
        if failed:
            words.append(f"{failed:,} failed")
        if self._engine and self._engine.state:
            words.append(self._engine.state)
        return ", ".join(words)

    def _run(self) -> None:
        while not self._stop.wait(_TERMINAL_SECONDS if self._terminal else _PIPE_SECONDS):
            if self._terminal:
                width = shutil.get_terminal_size().columns
                sys.stderr.write(f"\r\033[K{self.line()[: width - 1]}")
            else:
                sys.stderr.write(self.line() + "\n")
            sys.stderr.flush()


class Transfer:
    """Shows how far a download is: call it with the bytes so far, and in all if that is known. A context manager.

    Args:
        clock: seconds; injected by tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._terminal = _is_terminal()
        self._first: tuple[float, int] | None = None
        self._shown_at = 0.0
        self._line = ""

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._terminal and self._line:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def __call__(self, have: int, size: int | None) -> None:
        now = self._clock()
        if self._first is None or have < self._first[1]:
            self._first, self._shown_at = (now, have), now
        if now - self._shown_at < (_TERMINAL_SECONDS if self._terminal else _PIPE_SECONDS):
            return
        self._shown_at = now
        self._line = self._words(have, size, now)
        sys.stderr.write(f"\r\033[K{self._line}" if self._terminal else self._line + "\n")
        sys.stderr.flush()

    def _words(self, have: int, size: int | None, now: float) -> str:
        assert self._first is not None
        start, already = self._first
        rate = (have - already) / (now - start)
        words = [f"{have / 1e6:,.1f} MB" if size is None else f"{have / 1e6:,.1f} of {size / 1e6:,.1f} MB"]
        words.append(f"{rate / 1e6:,.1f} MB/s")
        if size is not None and rate > 0:
            words.append(f"{duration((size - have) / rate)} left")
        return ", ".join(words)


def _is_terminal() -> bool:
    """Whether standard error is a terminal on which a line can be changed."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


@contextmanager
def status(text: str) -> Iterator[None]:
    """Says on a terminal what takes its time, for as long as it does."""
    shown = _is_terminal()
    if shown:
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
    try:
        yield
    finally:
        if shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


@contextmanager
def counting(what: str, total: int, clock: Callable[[], float] = time.monotonic) -> Iterator[Callable[[int], None]]:
    """Says on a terminal how much of something is done, and when the rest will be.

    Args:
        what: as `samples`.
        clock: seconds; injected by tests.

    Yields:
        What is to be told how many more are done.
    """
    start, done, last = clock(), 0, -_TERMINAL_SECONDS
    shown = _is_terminal()

    def tell(more: int) -> None:
        nonlocal done, last
        done += more
        seconds = clock() - start
        if shown and seconds - last >= _TERMINAL_SECONDS:
            last = seconds
            left = f", {duration((total - done) * seconds / done)} left" if done else ""
            sys.stderr.write(f"\r\033[K{done:,} of {total:,} {what}{left}")
            sys.stderr.flush()

    tell(0)
    try:
        yield tell
    finally:
        if shown:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


def duration(seconds: float) -> str:
    """`seconds` for people: 42 s, 3 min 05 s, 2 h 07 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
