"""`models.lock.json` in the cache: what each source gave when it was first fetched, and has to give from then on.

The zoo publishes no checksums, so a changed archive can only be told from the one that was there before.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
from filelock import FileLock

from beam_jobs import storage
from beam_jobs.detectors.cache import cache_folder
from beam_jobs.errors import DECODE_ERRORS, UsageError

_VERSION = 1


class Pin(msgspec.Struct, frozen=True):
    """What a source gave.

    Args:
        url: where it was, without what may be secret in it.
        contents_sha256: of all files (hex), as `cache.digest_of` has it.
        archive_sha256: of the archive that held them (hex); None when it was a folder.
    """

    url: str
    contents_sha256: str
    archive_sha256: str | None = None


class _Lock(msgspec.Struct):
    version: int
    models: dict[str, Pin]


def lock_path() -> Path:
    """Where the lock file is; it need not exist."""
    return cache_folder() / "models.lock.json"


def read_pin(name: str) -> Pin | None:
    """The pin of the cache entry `name`.

    Raises:
        UsageError: the lock file cannot be read.
    """
    return _read().models.get(name)


def write_pin(name: str, pin: Pin) -> None:
    """Pins the cache entry `name`; safe in several processes at once. OSError when the file cannot be written."""
    path = lock_path()
    with FileLock(path.with_name(f".{path.name}.lock")):
        lock = _read()
        lock.models[name] = pin
        lock.models = dict(sorted(lock.models.items()))
        storage.write_atomic(os.fspath(path), msgspec.json.format(msgspec.json.encode(lock), indent=1) + b"\n")


def _read() -> _Lock:
    path = lock_path()
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Lock)
    except FileNotFoundError:
        return _Lock(_VERSION, {})
    except (OSError, *DECODE_ERRORS) as error:
        raise UsageError(
            f"{path} cannot be read: {error}. Repair it, or remove it: what is fetched then is pinned anew."
        ) from error
