"""The JSON documents of a run, read: what is damaged is said, and nothing of it is believed."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from beam_jobs import storage
from beam_jobs.errors import DECODE_ERRORS, UsageError

T = TypeVar("T")


def read_document(root: str, path: str, kind: type[T]) -> T:
    """A document of the run in `root`.

    Raises:
        FileNotFoundError: it is not there.
        UsageError: it is not such a document.
    """
    return decode_document(root, path, storage.read_bytes(storage.join(root, path)), kind)


def decode_document(root: str, path: str, data: bytes, kind: type[T]) -> T:
    """The document of the run in `root` with these bytes.

    Raises:
        UsageError: it is not such a document.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except DECODE_ERRORS as error:
        place = storage.join(root, path)
        raise UsageError(
            f"{storage.display_name(place)} is damaged: {error}. The run cannot be used: --overwrite replaces it."
        ) from error
