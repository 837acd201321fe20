"""Files that are read ahead: in order, with their errors in their place, and not too many at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.processes.reading import ReadAhead, read_picture


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_each_file_and_each_error_comes_in_its_turn():
    def read(uri: str) -> bytes | None:
        if uri == "bad":
            raise InputError("read", "not_found", "It is not there.")
        return None if uri == "records" else uri.encode()

    with ReadAhead(["a", "bad", "records", "b"], read) as files:
        assert files.take() == b"a"
        with pytest.raises(InputError, match="not there"):
            files.take()
        assert files.take() is None
        assert files.take() == b"b"


def test_the_next_files_are_read_before_they_are_asked_for_up_to_a_bound():
    begun: list[str] = []

    def read(uri: str) -> bytes:
        begun.append(uri)
        return bytes(10)

    with ReadAhead(list("abcdef"), read, most_bytes=25) as files:
        until(lambda: len(begun) == 3)  # with two of them there were 20 bytes
        time.sleep(0.05)
        assert begun == ["a", "b", "c"]
        files.take()
        until(lambda: len(begun) == 4)
        for _ in range(5):
            files.take()
    assert begun == list("abcdef")


def test_a_file_that_hangs_holds_up_only_who_wants_it():
    never = threading.Event()
    with ReadAhead(["a", "hangs"], lambda uri: b"" if uri == "a" else bytes(never.wait(60))) as files:
        assert files.take() == b""
    never.set()


def test_what_is_not_wanted_any_more_is_not_read():
    begun: list[str] = []

    def read(uri: str) -> bytes:
        begun.append(uri)
        return bytes(10)

    with ReadAhead(list("abc"), read, most_bytes=5) as files:
        files.take()
        until(lambda: len(begun) == 2)
    time.sleep(0.05)
    assert begun == ["a", "b"]


def test_files_of_a_store_are_read_side_by_side_and_taken_in_order():
    together = threading.Barrier(4)

    def read(uri: str) -> bytes:
        together.wait(10)  # breaks, and raises, unless four are being read
        return uri.encode()

    uris = [f"s3://b/{i}" for i in range(8)]
    with ReadAhead(uris, read) as files:
        assert [files.take() for _ in uris] == [uri.encode() for uri in uris]


def test_a_file_that_is_written_to_is_read_again(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old" * 100)
    stamps, changes = storage.stamp, iter((b"newer" * 200, b"newest" * 300))

    def written_to(file):
        if file.tell() and (data := next(changes, None)) is not None:
            path.write_bytes(data)
        return stamps(file)

    monkeypatch.setattr(storage, "stamp", written_to)
    data = read_picture(str(path), 1 << 20, or_records=False)
    assert data == b"newest" * 300


def test_a_file_that_never_rests_is_a_failure(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    stamps = iter(range(100))
    monkeypatch.setattr(storage, "stamp", lambda _: (next(stamps), 0))
    with pytest.raises(InputError, match="it was written to, or replaced, while it was read") as refused:
        read_picture(str(path), 1 << 20, or_records=True)
    assert refused.value.code == "unreadable"
