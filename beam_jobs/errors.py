"""What can go wrong, by what follows from it.

A picture that gives no result is an `InputError`: it becomes a row of the failures table and the job goes on.
A `UsageError` ends the job before anything has run; a `JobError` ends it incomplete.
"""

from __future__ import annotations

from typing import Literal

import msgspec

#: What msgspec raises of bytes that are no JSON, or not of the kind that was asked for.
DECODE_ERRORS = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)

Stage = Literal["expand", "read", "decode", "infer"]


class InputError(Exception):
    """One input gives no result; its neighbours are not concerned.

    Args:
        stage: the step that refused it.
        code: a short stable word, the key that people group failures by (`truncated`, `not_an_image`, …).
        message: one sentence for people. The same on every run: no address, process id, host, time or temporary path.
    """

    def __init__(self, stage: Stage, code: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[InputError], tuple[Stage, str, str]]:
        return type(self), (self.stage, self.code, self.message)


class UsageError(Exception):
    """The job cannot start: the message names the input, the reason and the remedy (exit status 2)."""


class JobError(Exception):
    """The job cannot be completed: the message says what stopped it and what to do (exit status 3)."""
