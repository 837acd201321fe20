"""Ctrl-C and SIGTERM, as an exception in the main thread."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The user, or the system, asks the job to end.

    Not an Exception: nothing on the way up may take it for a fault of its own.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_status = 128 + number


_received: list[int] = []


def received() -> Interrupted | None:
    """What was asked, if anything: code that is not ours may turn an `Interrupted` into an error of its own."""
    return Interrupted(_received[0]) if _received else None


#: What the user should know of what is left behind, if anything is.
left_behind: list[str] = []


#: What a first SIGINT does instead, if there is anything.
_instead: list[Callable[[], None]] = []


def install() -> None:
    """From now on SIGINT and SIGTERM raise `Interrupted`; a second one of a kind ends the program at once."""
    _received.clear()
    _instead.clear()
    left_behind.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


@contextmanager
def first(instead: Callable[[], None]) -> Iterator[None]:
    """Within the block, the first SIGINT does this, in the main thread, and interrupts nothing."""
    _instead.append(instead)
    try:
        yield
    finally:
        _instead.clear()


def _interrupt(number: int, _: FrameType | None) -> None:
    if number == signal.SIGINT and _instead:
        _instead.pop()()
        return
    signal.signal(number, signal.SIG_DFL)
    _received.append(number)
    raise Interrupted(number)
