"""The JSON documents of a run, read: what is damaged is said, and nothing of it is believed."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from beam_jobs import storage
from beam_jobs.errors import UsageError

T = TypeVar("T")


def read_document(root: str, path: str, kind: type[T]) -> T:
    """A document of the run in `root`.

    Raises:
        FileNotFoundError: it is not there.
        UsageError: it is not such a document.
    """
    place = storage.join(root, path)
    try:
        return msgspec.json.decode(storage.read_bytes(place), type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            f"{storage.display_name(place)} is damaged: {error}. The run cannot be used: --overwrite replaces it."
        ) from error
