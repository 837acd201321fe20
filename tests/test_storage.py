"""Files anywhere: local ones, and remote ones by file systems that live in memory."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import storage
from beam_jobs.storage import TEMP_PREFIX, FileTooLargeError, atomic_writer, display_name
from tests.remote_stores import Hadoop, ObjectStore, Reader, StoreError, Writer


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(ObjectStore, "files", {})
    monkeypatch.setattr(ObjectStore, "fault", None)
    return ObjectStore.files


@pytest.fixture
def hadoop(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    monkeypatch.setattr(Hadoop, "files", {})
    return Hadoop.files


def test_local_work_does_not_import_beam(tmp_path: Path) -> None:
    code = f"""if True:
        import sys
        from beam_jobs import matching, storage
        path = {str(tmp_path / "a" / "b.txt")!r}
        storage.write_atomic(path, b"hello")
        assert storage.read_bytes(path) == b"hello" and storage.exists(path) and storage.size(path) == 5
        assert [f.file_name for f in matching.match([{str(tmp_path)!r}])] == ["a/b.txt"]
        storage.remove(path)
        assert "apache_beam" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code], check=True)


class TestLocal:
    def test_a_written_file_is_there_with_its_folders(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "x"
        storage.write_atomic(str(path), b"one")
        storage.write_atomic(str(path), b"two")
        assert path.read_bytes() == b"two"
        assert os.listdir(path.parent) == ["x"]

    def test_a_written_file_may_be_read_by_others(self, tmp_path: Path) -> None:
        old = os.umask(0o022)
        try:
            storage.write_atomic(str(tmp_path / "x"), b"")
        finally:
            os.umask(old)
        assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644

    def test_a_failed_write_leaves_what_was_there(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"old")
        with pytest.raises(KeyboardInterrupt):
            _write_half(str(tmp_path / "x"), KeyboardInterrupt())
        assert (tmp_path / "x").read_bytes() == b"old"
        assert os.listdir(tmp_path) == ["x"]

    def test_an_unfinished_file_is_recognised(self, tmp_path: Path) -> None:
        with atomic_writer(str(tmp_path / "x")):
            (name,) = os.listdir(tmp_path)
            assert name.startswith(TEMP_PREFIX)
        assert os.listdir(tmp_path) == ["x"]

    def test_a_folder_in_the_way_is_an_os_error(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        with pytest.raises(OSError, match="directory"):
            storage.write_atomic(str(tmp_path / "x"), b"")
        assert os.listdir(tmp_path) == ["x"]

    def test_the_longest_name_can_be_written(self, tmp_path: Path) -> None:
        storage.write_atomic(str(tmp_path / ("n" * 255)), b"x")
        assert storage.list_dir(str(tmp_path)) == ["n" * 255]

    def test_names_that_are_not_utf8_work(self, tmp_path: Path) -> None:
        path = os.path.join(str(tmp_path), os.fsdecode(b"caf\xe9.jpg"))
        storage.write_atomic(path, b"x")
        assert storage.read_bytes(path) == b"x"
        assert storage.list_dir(str(tmp_path)) == ["caf\udce9.jpg"]
        storage.remove(path)
        assert not storage.exists(path)

    def test_names_do_not_decide_on_decompression(self, tmp_path: Path) -> None:
        storage.write_atomic(str(tmp_path / "x.gz"), b"not gzip")
        assert storage.read_bytes(str(tmp_path / "x.gz")) == b"not gzip"

    def test_faults_are_os_errors(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            storage.open_read(str(tmp_path / "missing"))
        with pytest.raises(IsADirectoryError):
            storage.open_read(str(tmp_path))
        with pytest.raises(OSError, match="Invalid argument"):
            storage.open_read("a\0b")
        with pytest.raises(FileNotFoundError):
            storage.list_dir(str(tmp_path / "missing"))
        (tmp_path / "d" / "e").mkdir(parents=True)
        with pytest.raises(OSError, match="not empty"):
            storage.remove_dir(str(tmp_path / "d"))

    def test_a_fifo_does_not_block(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(OSError, match="Not a regular file"):
            storage.open_read(str(tmp_path / "fifo"))
        with pytest.raises(OSError, match="Not a regular file"):
            storage.read_bytes("/dev/zero")

    def test_no_more_than_the_limit_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"12345")
        assert storage.read_bytes(str(tmp_path / "x"), 5) == b"12345"
        with pytest.raises(FileTooLargeError) as caught:
            storage.read_bytes(str(tmp_path / "x"), 4)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (again.max_bytes, again.filename) == (4, str(tmp_path / "x"))


@pytest.mark.parametrize(
    ("path", "shown"),
    [("a b/ü.jpg", "a b/ü.jpg"), ("caf\udce9/\udcff", "caf%E9/%FF"), ("50%.jpg", "50%.jpg"), ("𝄞", "𝄞")],
)
def test_display_names(path: str, shown: str) -> None:
    assert display_name(path) == shown


@pytest.mark.parametrize(
    ("parts", "path"),
    [(("/", "a"), "/a"), (("", "a", "b"), "a/b"), (("/r/", "a/b"), "/r/a/b"), (("gs://b", "x"), "gs://b/x")],
)
def test_join(parts: tuple[str, ...], path: str) -> None:
    assert storage.join(*parts) == path


class TestObjectStore:
    def test_write_read_list_remove(self, objects: dict[str, bytes]) -> None:
        storage.write_atomic("obj://b/run/x[1].gz", b"data" * 1000)
        assert list(objects) == ["obj://b/run/x[1].gz"], "no temporary name: a rename would be a copy"
        assert storage.read_bytes("obj://b/run/x[1].gz") == b"data" * 1000
        assert storage.size("obj://b/run/x[1].gz") == 4000
        assert storage.exists("obj://b/run/x[1].gz")
        assert storage.is_dir("obj://b/run")
        assert storage.exists("obj://b/run")
        assert not storage.is_dir("obj://b/ru")
        objects["obj://b/run/sub/y"] = b""
        assert storage.list_dir("obj://b/run") == ["sub", "x[1].gz"]
        storage.remove("obj://b/run/x[1].gz")
        assert list(objects) == ["obj://b/run/sub/y"]

    def test_removing_a_folder_is_refused(self, objects: dict[str, bytes]) -> None:
        objects["obj://b/run/x"] = b""
        for url in ("obj://b/run", "obj://b/run/", "obj://b"):
            with pytest.raises(FileNotFoundError):
                storage.remove(url)
        assert objects

    def test_seeking(self, objects: dict[str, bytes]) -> None:
        objects["obj://b/x"] = bytes(range(100))
        with storage.open_read("obj://b/x") as file:
            file.seek(-3, os.SEEK_END)
            assert file.read() == bytes([97, 98, 99])
            file.seek(10)
            assert file.read(2) == bytes([10, 11])

    def test_files_of_a_bucket_are_read_side_by_side_and_come_in_order(
        self, objects: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        objects |= {f"obj://b/run/{i}": bytes([i]) for i in range(16)}
        together = threading.Barrier(8)
        original = storage.read_bytes

        def read_bytes(path: str) -> bytes:
            together.wait(timeout=60)  # for seven others
            return original(path)

        monkeypatch.setattr(storage, "read_bytes", read_bytes)
        assert list(storage.read_each("obj://b/run", map(str, range(16)))) == [bytes([i]) for i in range(16)]
        assert list(storage.read_each("obj://b/run", ())) == []

    def test_a_file_of_several_that_is_not_there_is_said_when_it_is_due(self, objects: dict[str, bytes]) -> None:
        objects["obj://b/a"] = objects["obj://b/c"] = b"x"
        contents = storage.read_each("obj://b", ["a", "b", "c"])
        assert next(contents) == b"x"
        with pytest.raises(FileNotFoundError):
            next(contents)

    def test_an_exception_inside_the_block_writes_nothing(self, objects: dict[str, bytes]) -> None:
        with pytest.raises(KeyError):
            _write_half("obj://b/x", KeyError())
        assert objects == {}

    @pytest.mark.parametrize("before", [{}, {"obj://b/x": b"a longer old object"}])
    def test_a_failed_upload_leaves_nothing_half_written(
        self, objects: dict[str, bytes], before: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        objects.update(before)
        monkeypatch.setattr(Writer, "write", _failing_write)
        with pytest.raises(OSError, match="slow down") as caught:
            storage.write_atomic("obj://b/x", b"whole")
        assert "0x7f" not in str(caught.value)
        assert objects.get("obj://b/x") != b"who"

    @pytest.mark.parametrize(
        ("fault", "expected"),
        [
            (StoreError("whatever", 404), FileNotFoundError),
            (StoreError("whatever", 403), PermissionError),
            (StoreError("throttled", 503), OSError),
            (ValueError("bad key"), OSError),
            (ConnectionResetError(104, "reset"), ConnectionResetError),
        ],
    )
    def test_faults_are_os_errors(
        self,
        objects: dict[str, bytes],
        monkeypatch: pytest.MonkeyPatch,
        fault: Exception,
        expected: type[OSError],
    ) -> None:
        objects["obj://b/x"] = b"data"
        with monkeypatch.context() as patch:
            patch.setattr(ObjectStore, "fault", fault)
            for action in (storage.size, storage.open_read, storage.is_dir, storage.list_dir):
                with pytest.raises(expected) as caught:
                    action("obj://b/x")
                assert caught.value.errno is not None
                assert caught.value.strerror
        monkeypatch.setattr(Reader, "fault", fault)
        with storage.open_read("obj://b/x") as file, pytest.raises(expected):
            file.read()

    def test_a_missing_object(self, objects: dict[str, bytes]) -> None:
        assert not storage.exists("obj://b/x")
        with pytest.raises(FileNotFoundError):
            storage.open_read("obj://b/x")
        with pytest.raises(FileNotFoundError):
            storage.list_dir("obj://b/x")

    def test_an_unknown_scheme_says_what_to_install(self) -> None:
        with pytest.raises(OSError, match=r"no file system for nope:// is installed"):
            storage.open_read("nope://b/x")


def _write_half(path: str, error: BaseException) -> None:
    with atomic_writer(path) as file:
        file.write(b"half")
        raise error


def _failing_write(self: Writer, data: Any) -> int:
    io.BytesIO.write(self, bytes(data)[:3])
    raise StoreError("slow down, <Connection object at 0x7f00aa>", 503)


class TestFileSystemWithFolders:
    def test_a_write_is_renamed_into_place(self, hadoop: dict[str, bytes]) -> None:
        storage.write_atomic("had://h/run/x", b"one")
        storage.write_atomic("had://h/run/x", b"two")
        assert hadoop == {"had://h/run/x": b"two"}

    def test_a_failed_write_leaves_what_was_there(
        self, hadoop: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hadoop["had://h/run/x"] = b"old"
        monkeypatch.setattr(Writer, "write", _failing_write)
        with pytest.raises(OSError, match="slow down"):
            storage.write_atomic("had://h/run/x", b"whole")
        assert hadoop == {"had://h/run/x": b"old"}

    def test_walking_goes_into_folders(self, hadoop: dict[str, bytes]) -> None:
        hadoop.update({"had://h/r/a/b/x": b"1", "had://h/r/y": b"", "had://h/other": b"2"})
        found = sorted(entry.path for entry in storage.walk_remote("had://h/r"))
        assert found == ["had://h/r/a/b/x", "had://h/r/y"]
        assert storage.is_dir("had://h/r/a")
        assert not storage.is_dir("had://h/r/y")
        assert storage.stat_remote("had://h/r/a") is None
