"""How far a run is, as its workers write it down from time to time: for people, and removed at the end."""

from __future__ import annotations

import contextlib
from collections import Counter

import msgspec

from beam_jobs import storage
from beam_jobs.errors import DECODE_ERRORS
from beam_jobs.runs.layout import PLAN_FOLDER

FOLDER = f"{PLAN_FOLDER}/progress"


class ProgressRecord(msgspec.Struct, frozen=True):
    """What a worker has done so far. After a retry some of it is counted twice.

    Args:
        failures: by code.
    """

    pictures: int
    tfrecord_files: int
    failures: dict[str, int]
    clips: int = 0

    def write(self, root: str, worker: str) -> None:
        """Writes it down in place of the worker's last one. That it cannot be written matters to nobody."""
        with contextlib.suppress(OSError):
            storage.write_atomic(storage.join(root, f"{FOLDER}/{worker}.json"), msgspec.json.encode(self))


def read_progress(root: str) -> ProgressRecord:
    """The sum over all workers."""
    pictures = tfrecord_files = clips = 0
    failures: Counter[str] = Counter()
    for name in names(root):
        with contextlib.suppress(OSError, *DECODE_ERRORS):
            data = storage.read_bytes(storage.join(root, f"{FOLDER}/{name}"))
            record = msgspec.json.decode(data, type=ProgressRecord)
            pictures += record.pictures
            tfrecord_files += record.tfrecord_files
            clips += record.clips
            failures.update(record.failures)
    return ProgressRecord(pictures, tfrecord_files, dict(failures), clips)


def names(root: str) -> list[str]:
    """The names of the records."""
    try:
        return [name for name in storage.list_dir(storage.join(root, FOLDER)) if name.endswith(".json")]
    except OSError:
        return []


def remove_progress(root: str) -> None:
    """Takes the records away."""
    with contextlib.suppress(OSError):
        for name in names(root):
            storage.remove(storage.join(root, f"{FOLDER}/{name}"))
        storage.remove_dir(storage.join(root, FOLDER))
