"""TFRecord files: good, damaged, and against TensorFlow."""

from __future__ import annotations

import gzip
import io
import os
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from beam_jobs.errors import InputError
from beam_jobs.formats.tfrecord import HEAD_BYTES, frame, looks_like_tfrecord, read_records, write_records

RECORDS = [b"first", b"", b"x" * 3000, bytes(range(256)), b"last"]


def written(records: Sequence[bytes] = RECORDS, compress: bool = False) -> bytes:
    file = io.BytesIO()
    write_records(file, records, compress=compress)
    return file.getvalue()


def outcome(data: bytes, max_bytes: int = 1 << 20) -> list[bytes | str]:
    """The records; the codes of errors."""
    found = read_records(io.BytesIO(data), max_bytes=max_bytes)
    return [r.code if isinstance(r, InputError) else r for r in found]


@pytest.mark.parametrize("compress", [False, True])
class TestGood:
    def test_records_come_back_in_order(self, tmp_path: Path, compress: bool) -> None:
        path = tmp_path / "new" / "x.tfrecord"
        write_records(str(path), RECORDS, compress=compress)
        with path.open("rb") as file:
            assert list(read_records(file)) == RECORDS
        assert looks_like_tfrecord(path.read_bytes()[:HEAD_BYTES])

    def test_files_put_together_are_a_file(self, compress: bool) -> None:
        assert outcome(written(compress=compress) * 2) == RECORDS * 2

    def test_long_records(self, compress: bool) -> None:
        records = [os.urandom(3 << 20), b"", os.urandom((1 << 20) + 1)]
        assert outcome(written(records, compress), 4 << 20) == records

    def test_the_same_bytes_each_time(self, compress: bool) -> None:
        assert written(compress=compress) == written(compress=compress)

    def test_short_reads_of_the_stream(self, compress: bool) -> None:
        class Trickle(io.BytesIO):
            def read(self, n: int | None = -1) -> bytes:
                return super().read(min(n or 0, 7))

        assert list(read_records(Trickle(written(compress=compress)))) == RECORDS


def test_an_empty_file_has_no_records() -> None:
    assert outcome(b"") == []
    assert outcome(written([], compress=True)) == []


def test_gzip_padding_is_ignored() -> None:
    assert outcome(written(compress=True) + bytes(5000)) == RECORDS


def test_a_plain_file_whose_length_looks_like_gzip() -> None:
    record = bytes(0x088B1F)
    data = written([record, b"next"])
    assert data.startswith(b"\x1f\x8b\x08")
    assert looks_like_tfrecord(data[:HEAD_BYTES])
    assert outcome(data) == [record, b"next"]


class TestDamaged:
    def test_a_wrong_byte_in_the_data_costs_that_record(self) -> None:
        data = bytearray(written())
        data[data.index(b"xxx")] ^= 1
        assert outcome(bytes(data)) == [b"first", b"", "corrupt_record", bytes(range(256)), b"last"]

    def test_a_wrong_length_ends_the_file(self) -> None:
        data = bytearray(written())
        data[len(frame(b"first"))] ^= 1
        assert outcome(bytes(data)) == [b"first", "corrupt_record"]

    def test_an_early_end(self) -> None:
        data = written()
        starts = [0]
        for record in RECORDS:
            starts.append(starts[-1] + len(frame(record)))
        for end in [*range(60), len(data) - 1]:
            whole = sum(start <= end for start in starts[1:])
            assert outcome(data[:end]) == RECORDS[:whole] + ([] if end in starts else ["truncated"])

    def test_an_early_end_of_gzip(self) -> None:
        records = [os.urandom(2000) for _ in range(5)]
        data = written(records, compress=True)
        found = outcome(data[: len(data) // 2])
        assert found[-1] == "truncated"
        assert found[:-1] == records[: len(found) - 1]
        assert len(found) > 1
        assert outcome(data[:-1]) == [*records, "truncated"]

    def test_damage_and_rubbish_in_gzip(self) -> None:
        records = [os.urandom(2000) for _ in range(5)]
        data = bytearray(written(records, compress=True))
        assert outcome(bytes(data) + b"rubbish") == [*records, "corrupt_record"]
        data[-6] ^= 1
        assert outcome(bytes(data)) == [*records[:-1], "corrupt_record"], "gzip's own checksum is wrong"

    def test_a_record_that_is_too_long_costs_itself(self) -> None:
        for compress in (False, True):
            found = list(read_records(io.BytesIO(written(compress=compress)), max_bytes=256))
            assert [f if isinstance(f, bytes) else str(f) for f in found] == [
                b"first",
                b"",
                "a record of 3,000 bytes; the limit is 256",
                bytes(range(256)),
                b"last",
            ]

    @pytest.mark.parametrize("claimed", [1 << 29, 1 << 62, (1 << 64) - 1])
    def test_a_lying_length_takes_no_memory(self, claimed: int) -> None:
        length = frame(b"")[:0] + struct.pack("<Q", claimed)
        # The frame of a record of eight bytes holds the checksum of those eight bytes at its end.
        header = length + frame(length)[-4:]
        for data in (header + b"short", gzip.compress(header + bytes(50 << 20))):
            tracemalloc.start()
            assert outcome(data, 1 << 30) == ["truncated"]
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < (120 << 20 if claimed == 1 << 29 else 8 << 20), "no more than what is really there"

    @given(st.data(), st.booleans())
    def test_whatever_is_changed_nothing_wrong_comes_out(self, data: st.DataObject, compress: bool) -> None:
        damaged = bytearray(written(compress=compress))
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(damaged)))
            kind = data.draw(st.sampled_from(["flip", "cut", "insert", "delete"]))
            if kind == "flip" and at < len(damaged):
                damaged[at] ^= data.draw(st.integers(1, 255))
            elif kind == "cut":
                del damaged[at:]
            elif kind == "insert":
                damaged[at:at] = data.draw(st.binary(min_size=1, max_size=20))
            else:
                del damaged[at : at + data.draw(st.integers(1, 50))]
        looks_like_tfrecord(bytes(damaged[:HEAD_BYTES]))
        found = list(read_records(io.BytesIO(bytes(damaged)), max_bytes=2500))
        assert {f for f in found if isinstance(f, bytes)} <= set(RECORDS)
        assert {f.code for f in found if isinstance(f, InputError)} <= {"truncated", "corrupt_record", "too_large"}


class TestLooksLike:
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
    def test_pictures_do_not(self, kind: str) -> None:
        for size in ((1, 1), (640, 480)):
            file = io.BytesIO()
            Image.new("RGB", size).save(file, kind)
            for data in (file.getvalue(), gzip.compress(file.getvalue())):
                assert not looks_like_tfrecord(data[:HEAD_BYTES])

    @pytest.mark.parametrize("head", [b"", b"\x1f\x8b\x08", b"\x1f\x8b\x08" + b"x" * 50, bytes(12), b"text " * 99])
    def test_other_bytes_do_not(self, head: bytes) -> None:
        assert not looks_like_tfrecord(head)

    def test_the_head_is_enough_for_gzip_with_a_long_name(self) -> None:
        file = io.BytesIO()
        with gzip.GzipFile("n" * 255, "wb", fileobj=file) as packed:
            packed.write(written([os.urandom(20_000), *(bytes([i]) * i for i in range(256))]))
        assert looks_like_tfrecord(file.getvalue()[:HEAD_BYTES])


@pytest.mark.slow
def test_tensorflow_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    ours, theirs = (str(tmp_path / name) for name in ("ours", "theirs"))
    for compress in (False, True):
        write_records(f"{ours}{compress:d}", RECORDS, compress=compress)
    code = f"""if True:
        import tensorflow as tf
        records = {RECORDS!r}
        for i, kind in enumerate(["", "GZIP"]):
            found = [r.numpy() for r in tf.data.TFRecordDataset({ours!r} + str(i), kind)]
            assert found == records, found
            with tf.io.TFRecordWriter({theirs!r} + str(i), kind) as writer:
                for record in records:
                    writer.write(record)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    for compress in (False, True):
        assert outcome(Path(f"{theirs}{compress:d}").read_bytes()) == RECORDS
    assert Path(f"{theirs}0").read_bytes() == written()
