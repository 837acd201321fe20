"""Downloads from a server that stalls, cuts off, lies, changes the file: real requests over loopback."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beam_jobs.detectors import download
from beam_jobs.detectors.download import DownloadError, NotThereError
from tests.model_server import Fault, ModelServer, serving

DATA = b"".join(hashlib.sha256(bytes([i % 256, i // 256])).digest() for i in range(4000))
OTHER = DATA[::-1]
HALF = 60_000


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with serving() as server:
        server.files["/m.tar.gz"] = DATA
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02))


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "m.part"


def nobody(have: int, size: int | None) -> None:
    pass


def get(server: ModelServer, part: Path) -> bytes:
    download.download(f"{server.url}/m.tar.gz", part, nobody)
    return part.read_bytes()


def ranges(server: ModelServer) -> list[str | None]:
    return [range_ for _, range_ in server.asked_for()]


def test_progress_is_told(server: ModelServer, part: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    stamp = download.download(f"{server.url}/m.tar.gz", part, lambda have, size: seen.append((have, size)))
    assert part.read_bytes() == DATA
    assert seen[0] == (0, len(DATA))
    assert seen[-1] == (len(DATA), len(DATA))
    assert stamp == download.stamp_of(f"{server.url}/m.tar.gz") != ""


@pytest.mark.parametrize("kind", ["stall", "cut"])
def test_what_broke_off_goes_on_where_it_was(server: ModelServer, part: Path, kind: str) -> None:
    server.faults = [Fault(kind, HALF), Fault("status"), Fault(kind, 1), Fault(kind, 2000)]  # type: ignore[arg-type]
    assert get(server, part) == DATA
    # From the last byte that was there on: 60,000, then one more is the same one again.
    assert ranges(server) == [None, *[f"bytes={HALF - 1}-"] * 3, f"bytes={HALF + 1998}-"]


def test_another_process_goes_on(server: ModelServer, part: Path) -> None:
    code = f"""
import os, pathlib
from beam_jobs.detectors import download
def watch(have, size):
    if have >= {HALF}:
        os._exit(9)
download._CHUNK = 1000
download.download({server.url!r} + "/m.tar.gz", pathlib.Path({str(part)!r}), watch)
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 9
    had = part.stat().st_size
    assert HALF - 1000 <= had < len(DATA)
    assert get(server, part) == DATA
    assert ranges(server) == [None, f"bytes={had - 1}-"]


@pytest.mark.parametrize("understands", [{"range", "if-range"}, {"range"}, set()])
def test_a_file_that_changed_in_between_is_begun_anew(server: ModelServer, part: Path, understands: set[str]) -> None:
    server.understands = {"etag", "length", *understands}
    server.faults = [Fault("cut", HALF, then=lambda: server.files.update({"/m.tar.gz": OTHER}))]
    assert get(server, part) == OTHER


def test_a_file_that_became_shorter(server: ModelServer, part: Path) -> None:
    server.faults = [Fault("cut", HALF, then=lambda: server.files.update({"/m.tar.gz": OTHER[: HALF // 2]}))]
    assert get(server, part) == OTHER[: HALF // 2]


def test_without_a_validator_nothing_is_resumed(server: ModelServer, part: Path) -> None:
    server.understands = {"range", "length"}
    server.faults = [Fault("cut", HALF)]
    assert get(server, part) == DATA
    assert ranges(server) == [None, None]


def test_last_modified_will_do(server: ModelServer, part: Path) -> None:
    server.understands.remove("etag")
    server.faults = [Fault("cut", HALF)]
    assert get(server, part) == DATA
    assert ranges(server) == [None, f"bytes={HALF - 1}-"]


def test_a_server_that_states_no_length(server: ModelServer, part: Path) -> None:
    server.understands.remove("length")
    assert get(server, part) == DATA


def test_all_that_was_there_is_not_downloaded_again(server: ModelServer, part: Path) -> None:
    assert get(server, part) == DATA
    assert get(server, part) == DATA
    assert ranges(server) == [None, f"bytes={len(DATA) - 1}-"]


def test_a_part_of_another_address_is_not_gone_on_with(server: ModelServer, part: Path) -> None:
    server.files["/other.tar.gz"] = OTHER
    server.faults = [Fault("cut", HALF), *[Fault("status")] * 3]
    with pytest.raises(DownloadError):
        download.download(f"{server.url}/other.tar.gz", part, nobody)
    server.faults.clear()
    assert get(server, part) == DATA


def test_a_length_that_is_a_lie_is_given_up(server: ModelServer, part: Path) -> None:
    server.understands = {"length"}
    server.faults = [Fault("lie", 1000) for _ in range(9)]
    with pytest.raises(DownloadError, match=r"m\.tar\.gz cannot be downloaded: it ends after 128,000 of the 129,000"):
        get(server, part)
    assert len(server.asked) == 1 + 1 + 2, "once more from the start, then with two pauses"


def test_a_server_that_stays_ill_is_given_up(server: ModelServer, part: Path) -> None:
    server.faults = [Fault("status", code=500) for _ in range(9)]
    with pytest.raises(DownloadError, match="the server says HTTP 500 Internal Server Error"):
        get(server, part)
    assert len(server.asked) == 3


def test_a_server_that_hangs_is_given_up(server: ModelServer, part: Path) -> None:
    server.faults = [Fault("stall") for _ in range(9)]
    with pytest.raises(DownloadError, match=r"the server said nothing for 0\.3 s"):
        get(server, part)


@pytest.mark.parametrize(("code", "error"), [(404, NotThereError), (410, NotThereError), (403, DownloadError)])
def test_what_is_refused_is_not_asked_for_again(server: ModelServer, part: Path, code: int, error: type) -> None:
    server.faults = [Fault("status", code=code)]
    with pytest.raises(error, match=f"HTTP {code}"):
        get(server, part)
    assert len(server.asked) == 1


def test_a_file_that_is_too_large(server: ModelServer, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(DownloadError, match=r"has 128,000 bytes, more than the 1,000"):
        get(server, part)
    server.understands.remove("length")
    with pytest.raises(DownloadError, match=r"has more than the 1,000"):
        get(server, part)


def test_nobody_there(part: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}/m.tar.gz?signature=x"
    with pytest.raises(
        DownloadError, match=r"^http://127\.0\.0\.1:\d+/m\.tar\.gz\?… cannot be .*: Connection refused$"
    ):
        download.download(url, part, nobody)
    assert download.stamp_of(url) == ""
    with pytest.raises(DownloadError, match=r"no-such-host\.invalid/m\.tar\.gz cannot be downloaded: its host"):
        download.download("http://no-such-host.invalid/m.tar.gz", part, nobody)
    for url in ("http://host:port/m.tar.gz", "http://[::1/m.tar.gz"):
        with pytest.raises(DownloadError, match="is no address"):
            download.download(url, part, nobody)


def test_a_user_and_password_in_the_address(server: ModelServer, part: Path) -> None:
    server.user = "me:se cret"
    with pytest.raises(DownloadError, match=r"^http://127.*HTTP 401"):
        get(server, part)
    download.download(f"{server.url}/m.tar.gz".replace("//", "//me:se%20cret@"), part, nobody)
    assert part.read_bytes() == DATA
