"""The readers and damaged files: the short form of `scripts/fuzz`, and that it would find what there is to find."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import _fuzz
from scripts._fuzz_targets import Target, targets


@pytest.mark.parametrize("name", targets())
def test_a_damaged_file_is_read_or_refused(name: str) -> None:
    count, found = _fuzz.fuzz(name, seed=1, executions=200, seconds=60)
    assert found == []
    assert count == 200


def bad_targets() -> dict[str, Target]:
    """Readers that do with an empty file, which is tried first, what none may do."""

    def reader(bad: Callable[[], object]) -> Callable[[bytes, Path], object]:
        return lambda data, _: None if data else bad()

    def die() -> None:
        os._exit(3)

    def eat() -> object:
        return bytearray(4 << 30)

    def hang() -> None:
        time.sleep(3600)

    def fail() -> None:
        raise KeyError("x")

    return {bad.__name__: Target((b"a file",), reader(bad), (ValueError,)) for bad in (die, eat, hang, fail)}


@pytest.mark.parametrize(
    ("what", "said"),
    [("die", "the process ended with 3"), ("eat", "MemoryError"), ("hang", "TooLongError"), ("fail", "KeyError")],
)
def test_what_a_reader_must_not_do_is_found(what: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fuzz, "MAX_SECONDS", 1)
    count, found = _fuzz.fuzz(what, seed=1, executions=1, seconds=60, factory="tests.test_fuzz:bad_targets")
    assert count == 1
    assert [finding.why.split(":")[0] for finding in found] == [said]
    assert found[0].data == b""
