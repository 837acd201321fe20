"""Unpacking: nothing leaves the folder, nothing but files and folders comes out, and not without end."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from beam_jobs.detectors import archive
from beam_jobs.detectors.archive import ArchiveError
from tests.model_server import ZOO_FILES, archive_of, archive_of_members, member


def unpack(tmp_path: Path, data: bytes, **bounds: int) -> Path:
    folder = tmp_path / "a" / "in"
    folder.mkdir(parents=True)
    (tmp_path / "x.tar.gz").write_bytes(data)
    archive.unpack(tmp_path / "x.tar.gz", folder, **bounds)
    return folder


def everything_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_all_files_come_out(tmp_path: Path) -> None:
    folder = unpack(tmp_path, archive_of(ZOO_FILES, "./ssd/"))
    files = {path.relative_to(folder / "ssd").as_posix(): path.read_bytes() for path in folder.rglob("*.*")}
    assert files == ZOO_FILES


def test_permissions_and_long_names(tmp_path: Path) -> None:
    info, data = member("d/" + "n" * 200, b"x")
    info.mode, info.uid = 0o4777, 12345
    folder = unpack(tmp_path, archive_of_members(member("d", type=tarfile.DIRTYPE), (info, data)))
    stat = (folder / info.name).stat()
    assert stat.st_mode & 0o7022 == 0, "as the umask has it"
    assert stat.st_uid == os.getuid()


@pytest.mark.parametrize(
    ("hostile", "said"),
    [
        (member("/tmp/beam-detect-hostile", b"x"), "a name that leads out of it, '/tmp/beam-detect-hostile'"),
        (member("../out", b"x"), r"a name that leads out of it, '\.\./out'"),
        (member("good/../../out", b"x"), "a name that leads out of it"),
        (member("../dir", type=tarfile.DIRTYPE), "a name that leads out of it"),
        (member("link", type=tarfile.SYMTYPE, target="/etc"), "a link, 'link'"),
        (member("link", type=tarfile.LNKTYPE, target="good/file"), "a link, 'link'"),
        (member("fifo", type=tarfile.FIFOTYPE), "neither a file nor a folder, 'fifo'"),
        (member("null", type=tarfile.CHRTYPE), "neither a file nor a folder, 'null'"),
        (member("disk", type=tarfile.BLKTYPE), "neither a file nor a folder, 'disk'"),
        (member("good/file", b"again"), "'good/file' twice"),
        (member("good/file/below", b"x"), "'good/file/below' twice"),
        (member("good", b"x"), "'good' twice"),
        (member(".", b"x"), "a file without a name"),
    ],
)
def test_what_is_hostile_is_refused(tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes], said: str) -> None:
    with pytest.raises(ArchiveError, match=f"holds (something that is )?{said}"):
        unpack(tmp_path, archive_of_members(member("good/file", b"data"), hostile))
    assert everything_in(tmp_path / "a") == ["in", "in/good", "in/good/file"]
    assert not Path("/tmp/beam-detect-hostile").exists()


def test_bounds(tmp_path: Path) -> None:
    data = archive_of({"a": b"x" * 600, "b": b"x" * 600})
    with pytest.raises(ArchiveError, match="unpacks to more than 1 files"):
        unpack(tmp_path / "1", data, max_files=1)
    with pytest.raises(ArchiveError, match="or 1,000 bytes"):
        unpack(tmp_path / "2", data, max_bytes=1000)
    assert everything_in(unpack(tmp_path / "3", data, max_files=2, max_bytes=1200)) == ["model", "model/a", "model/b"]


def zipped_zeros(start: bytes, megabytes: int) -> bytes:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb") as file:
        file.write(start)
        for _ in range(megabytes):
            file.write(bytes(1 << 20))
    return packed.getvalue()


def bombs() -> dict[str, bytes]:
    """50 MB from 50 kB each: as a file, as a name, as what follows the last member."""
    file, name = member("file")[0], member("name", type=tarfile.GNUTYPE_LONGNAME)[0]
    file.size = name.size = 50 << 20
    return {
        "file": zipped_zeros(file.tobuf(), 50),
        "name": zipped_zeros(name.tobuf(tarfile.GNU_FORMAT), 50),
        "end": zipped_zeros(b"", 50),
    }


@pytest.mark.parametrize("kind", ["file", "name", "end"])
def test_a_bomb_goes_off_neither_on_disk_nor_in_memory(tmp_path: Path, kind: str) -> None:
    data = bombs()[kind]
    assert len(data) < 60_000
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError):
            unpack(tmp_path, data, max_bytes=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert everything_in(tmp_path / "a" / "in") == []


@pytest.mark.parametrize("length", [0, 1, 10, 30_000, -300, -8, -1])
def test_a_truncated_archive(tmp_path: Path, length: int) -> None:
    whole = archive_of(ZOO_FILES)
    with pytest.raises(ArchiveError, match=r"is cut off, or no \.tar\.gz"):
        unpack(tmp_path, whole[:length])


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    data = bytearray(archive_of(ZOO_FILES))
    data[data.index(b"graph")] ^= 1
    with pytest.raises(ArchiveError, match="CRC"):
        unpack(tmp_path, bytes(data))


def test_what_is_no_archive(tmp_path: Path) -> None:
    for i, data in enumerate((b"<!DOCTYPE html>" * 50, gzip.compress(b"just text, zipped " * 99))):
        with pytest.raises(ArchiveError, match=r"no \.tar\.gz"):
            unpack(tmp_path / str(i), data)
