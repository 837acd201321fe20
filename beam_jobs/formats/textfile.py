"""Files that a user gives with the job: read whole, unpacked when they are gzip, refused by name and place."""

from __future__ import annotations

import re
import zlib

import msgspec

from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.storage import display_name

_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def read_whole(path: str, what: str, max_bytes: int | None = None) -> bytes:
    """The bytes of a file, without gzip and without a byte order mark.

    Args:
        what: what the file is to the user (`label map`), for messages.
        max_bytes: more, packed or unpacked, is not such a file.

    Raises:
        UsageError: it cannot be read.
    """
    name = repr(display_name(path))
    try:
        data = storage.read_bytes(path, max_bytes)
    except OSError as error:
        raise UsageError(f"the {what} {name} cannot be read: {storage.reason(error)}") from error
    if data.startswith(_GZIP_MAGIC):
        try:
            inflate = zlib.decompressobj(wbits=31)
            data = inflate.decompress(data, max_bytes or 0)
        except zlib.error as error:
            raise UsageError(f"the {what} {name} is a damaged gzip file: unpack it with gunzip to see") from error
        if not inflate.eof:
            why = (
                "is cut off"
                if max_bytes is None or len(data) < max_bytes
                else f"unpacks to {max_bytes:,} bytes or more"
            )
            raise UsageError(f"the {what} {name} is a gzip file that {why}")
    return data.removeprefix(_BYTE_ORDER_MARK)


def json_fault(data: bytes, error: Exception) -> str:
    """What is wrong with a JSON text, and where: the line of a syntax error, the path (`$.images[3]`) of a wrong value.

    Args:
        error: what msgspec raised for `data`.
    """
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        return text[:1].lower() + text[1:]
    if place := re.search(r"\(byte (\d+)\)", text):
        line = data.count(b"\n", 0, int(place[1])) + 1
        return f"{text[: place.start()].strip()}, line {line}"
    return text
