"""The readers and damaged files: the short form of `scripts/fuzz`, and that it would find what there is to find."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from scripts import _fuzz
from scripts._fuzz_targets import Target, targets


@pytest.mark.parametrize("name", targets())
def test_a_damaged_file_is_read_or_refused(name: str) -> None:
    count, found = _fuzz.fuzz(name, seed=1, executions=200, seconds=20)
    assert found == []
    assert count == 200


def _bad(data: bytes, _: Path) -> None:
    if data.startswith(b"die"):
        os._exit(3)
    if data.startswith(b"eat"):
        bytearray(4 << 30)
    if data.startswith(b"hang"):
        time.sleep(3600)
    if data.startswith(b"raise"):
        raise KeyError("x")
    raise ValueError("refused")


@pytest.mark.parametrize(
    ("what", "said"),
    [("die", "the process ended with 3"), ("eat", "MemoryError"), ("hang", "TooLongError"), ("raise", "KeyError")],
)
def test_what_a_reader_must_not_do_is_found(what: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = (what.encode() + b"." * 100,)
    monkeypatch.setattr(_fuzz, "targets", lambda: {"bad": Target((), _bad, (ValueError,))})
    monkeypatch.setattr(_fuzz, "mutated", lambda *_: seeds[0])
    monkeypatch.setattr(_fuzz, "MAX_SECONDS", 1)
    _, found = _fuzz.fuzz("bad", seed=1, executions=1, seconds=20)
    assert [finding.why.split(":")[0] for finding in found] == [said]
    assert found[0].data == seeds[0]
