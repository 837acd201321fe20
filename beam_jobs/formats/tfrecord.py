"""TFRecord files, plain or gzip: a length, its checksum, the data, their checksum, and so on.

The format: https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details. Memory is bounded by the
longest record that is accepted, whatever a damaged file claims.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import google_crc32c

from beam_jobs import storage
from beam_jobs.errors import InputError

#: As many first bytes of a file as `looks_like_tfrecord` may need: a gzip header with a long name, a Huffman table.
HEAD_BYTES = 1024
#: Records that are handed on together hold about so many bytes at most.
GROUP_BYTES = 16 << 20

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")
_GZIP_MAGIC = b"\x1f\x8b\x08"
_PIECE = 1 << 20


def looks_like_tfrecord(head: bytes) -> bool:
    """Whether a file that starts so is a TFRecord file: its first length has the right checksum.

    Args:
        head: the first `HEAD_BYTES` bytes, or the whole file when it is shorter.
    """
    if _is_header(head[: _HEADER.size]):
        return True
    if not head.startswith(_GZIP_MAGIC):
        return False
    try:
        return _is_header(zlib.decompressobj(wbits=31).decompress(head, _HEADER.size))
    except zlib.error:
        return False


def read_records(stream: BinaryIO, *, max_bytes: int = 1 << 30) -> Iterator[bytes | InputError]:
    """The records in order; in the place of one that cannot be read, why.

    A record with a wrong checksum (`corrupt_record`) or longer than `max_bytes` (`too_large`) costs itself only. After
    a broken length or an early end (`truncated`) nothing more can be found: one last error stands for the rest.

    Raises:
        OSError: the stream cannot be read.
    """
    source = _Bytes(stream)
    try:
        while header := source.read(_HEADER.size):
            if len(header) < _HEADER.size:
                raise _truncated()
            if not _is_header(header):
                raise _corrupt("the length of a record has a wrong checksum; what follows cannot be read")
            length, _ = _HEADER.unpack(header)
            if length > max_bytes:
                if source.skip(length + _CRC.size) < length + _CRC.size:
                    raise _truncated()
                yield InputError("expand", "too_large", f"a record of {length:,} bytes; the limit is {max_bytes:,}")
                continue
            data = source.read(length)
            crc = source.read(_CRC.size)
            if len(crc) < _CRC.size:
                raise _truncated()
            if _CRC.unpack(crc)[0] == _masked_crc(data):
                yield data
            else:
                yield _corrupt("the data of a record have a wrong checksum")
    except InputError as last:
        yield last


def write_records(target: str | BinaryIO, records: Iterable[bytes], *, compress: bool = False) -> None:
    """Write a TFRecord file, to a path (atomically) or to an open file; `compress`: gzip, the same bytes each time."""
    if isinstance(target, str):
        with storage.atomic_writer(target) as file:
            write_records(file, records, compress=compress)
    elif compress:
        with gzip.GzipFile(filename="", mode="wb", fileobj=target, mtime=0) as packed:
            for record in records:
                packed.write(frame(record))
    else:
        for record in records:
            target.write(frame(record))


def frame(record: bytes) -> bytes:
    """A record as it stands in a file."""
    length = struct.pack("<Q", len(record))
    return b"".join((length, _CRC.pack(_masked_crc(length)), record, _CRC.pack(_masked_crc(record))))


def _masked_crc(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _is_header(data: bytes) -> bool:
    return len(data) == _HEADER.size and _HEADER.unpack(data)[1] == _masked_crc(data[:8])


def _truncated() -> InputError:
    return InputError("expand", "truncated", "the file ends inside a record")


def _corrupt(what: str) -> InputError:
    return InputError("expand", "corrupt_record", what)


class _Bytes:
    """The bytes of a stream, unpacked when it is gzip, in pieces.

    Raises:
        InputError: from `read` and `skip`: the gzip stream is damaged or ends early.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._ready = self._fill(b"", _HEADER.size)
        # A plain file's first length may happen to look like gzip's magic; its checksum tells.
        self._packed = not _is_header(self._ready[: _HEADER.size]) and self._ready.startswith(_GZIP_MAGIC)
        self._members = 0
        self._inflate = zlib.decompressobj(wbits=31)
        if self._packed:
            self._input, self._ready = self._ready, b""

    def read(self, n: int) -> bytes:
        """The next `n` bytes; fewer at the end."""
        pieces: list[bytes] = []
        while n and (piece := self._piece(n)):
            pieces.append(piece)
            n -= len(piece)
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def skip(self, n: int) -> int:
        """Pass over `n` bytes; how many there were."""
        left = n
        while left and (piece := self._piece(left)):
            left -= len(piece)
        return n - left

    def _piece(self, n: int) -> bytes:
        """One to `n` bytes, nothing at the end."""
        n = min(n, _PIECE)
        if self._packed:
            return self._unpack(n)
        if not self._ready:
            return self._stream.read(n)
        piece, self._ready = self._ready[:n], self._ready[n:]
        return piece

    def _unpack(self, n: int) -> bytes:
        while True:
            if self._inflate.eof and not self._next_member():
                return b""
            if not self._input:
                self._input = self._stream.read(_PIECE)
            ended = not self._input
            try:
                piece = self._inflate.decompress(self._input, n)
            except zlib.error as error:
                raise _corrupt("the gzip stream is damaged; what follows cannot be read") from error
            self._input = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if piece:
                return piece
            if ended and not self._inflate.eof:
                raise InputError("expand", "truncated", "the gzip stream ends early")

    def _next_member(self) -> bool:
        """Whether another gzip member follows; zeros after the last one are padding, as gzip itself takes them."""
        self._input = self._fill(self._input.lstrip(b"\0"), 1)
        while self._input and not (rest := self._input.lstrip(b"\0")):
            self._input = self._stream.read(_PIECE)
        if not self._input:
            return False
        self._input = rest
        self._inflate = zlib.decompressobj(wbits=31)
        return True

    def _fill(self, data: bytes, n: int) -> bytes:
        while len(data) < n and (more := self._stream.read(n - len(data))):
            data += more
        return data
