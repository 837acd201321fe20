"""Files in buckets: real clients, and servers on loopback that speak as the stores do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from beam_jobs import storage
from beam_jobs.storage import objects
from tests.buckets import FEW_ATTEMPTS
from tests.store_server import BUCKET, Fault, Store


class TestObjects:
    def test_write_read_list_remove(self, top: str) -> None:
        odd = f"{top}/w/a [1]*?#%20ü+ .gz"
        storage.write_atomic(odd, b"odd")
        storage.write_atomic(f"{top}/w/sub/empty", b"")
        assert storage.read_bytes(odd) == b"odd"
        assert storage.read_bytes(f"{top}/w/sub/empty") == b""
        assert storage.list_dir(f"{top}/w") == ["a [1]*?#%20ü+ .gz", "sub"]
        assert sorted(e.path for e in storage.walk_remote(f"{top}/w")) == [odd, f"{top}/w/sub/empty"]
        entry = storage.stat_remote(odd)
        assert entry is not None
        assert entry.size == 3
        assert entry.mtime_ns
        assert [storage.is_dir(f"{top}/{name}") for name in ("w", "w/", "ww", "w/sub/empty")] == [1, 1, 0, 0]
        storage.remove(odd)
        assert storage.list_dir(f"{top}/w") == ["sub"]
        assert not storage.exists(odd)

    def test_pieces_of_a_large_object(self, top: str) -> None:
        data = os.urandom(objects._FIRST_BLOCK + 1000)
        storage.write_atomic(f"{top}/large", data)
        storage.write_atomic(f"{top}/exact", data[: objects._FIRST_BLOCK])
        assert storage.read_bytes(f"{top}/large") == data
        assert storage.read_bytes(f"{top}/exact") == data[: objects._FIRST_BLOCK]
        with storage.open_read(f"{top}/large") as file:
            file.seek(-10, os.SEEK_END)
            assert file.read() == data[-10:]
            file.seek(7)
            assert file.read(9) == data[7:16]
            file.seek(len(data) + 5)
            assert file.read() == b""

    def test_what_is_not_there(self, top: str, store: Store) -> None:
        for url in (f"{top}/none", f"{store.scheme}://no-such-bucket/x"):
            for action in (storage.open_read, storage.size, storage.list_dir):
                with pytest.raises(FileNotFoundError):
                    action(url)
            assert not storage.exists(url)
            assert list(storage.walk_remote(url)) == []
        with pytest.raises(FileNotFoundError):
            storage.write_atomic(f"{store.scheme}://no-such-bucket/x", b"")

    @pytest.mark.parametrize("kind", ["503 SlowDown", "500 InternalError", "reset"])
    def test_what_fails_at_first_is_done_again(self, kind: str, top: str, store: Store) -> None:
        store.set_faults(Fault(kind, "*"))
        storage.write_atomic(f"{top}/x", b"data" * 1000)
        assert storage.read_bytes(f"{top}/x") == b"data" * 1000
        assert storage.list_dir(top) == ["x"]
        assert store.injected() >= 3

    def test_a_body_that_breaks_off_is_fetched_again(self, s3: Store, tmp_path: Path) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}"
        storage.write_atomic(url, b"data" * 1000)
        s3.set_faults(Fault("half"))
        assert storage.read_bytes(url) == b"data" * 1000
        assert s3.injected() == 1

    def test_what_goes_on_failing_says_so(self, s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in FEW_ATTEMPTS.items():
            monkeypatch.setenv(name, value)
        objects.forget_clients()
        s3.set_faults(Fault("503 SlowDown", times=1000))
        with pytest.raises(OSError, match=r"SlowDown \(HTTP 503\)"):
            storage.read_bytes(f"s3://{BUCKET}/x")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
        objects.forget_clients()
        with pytest.raises(PermissionError, match="InvalidToken"):
            storage.write_atomic(f"s3://{BUCKET}/x", b"")


@pytest.mark.slow
def test_a_listing_of_100_000_objects(s3: Store) -> None:
    s3.list_many("many/", 100_000)
    code = f"""if True:
        import resource
        from beam_jobs import matching
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = last = 0
        for one in matching.match(["s3://{BUCKET}/many/*.jpg"]):
            assert found == 0 or one.file_name > last
            found, last = found + 1, one.file_name
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(found, last, grown // 1024)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    found, last, grown_mb = ran.stdout.split()
    assert (found, last) == ("100000", "099999.jpg")
    assert int(grown_mb) < 100
