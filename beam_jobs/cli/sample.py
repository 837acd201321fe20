"""A few of a job's pictures, for what is to be tried on pictures like its own before it starts."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from beam_jobs import storage
from beam_jobs.detectors.base import Picture
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import decode
from beam_jobs.records import ImageKey

#: So many pictures, out of so many inputs: the others may be TFRecord files, or no pictures at all.
_PICTURES, _INPUTS = 4, 12
#: Larger ones are passed over.
_MAX_BYTES, _MAX_PIXELS = 32 << 20, 25_000_000


def sample_pictures(keys: Iterable[ImageKey]) -> list[Picture]:
    """The first few inputs that are pictures of usual size, decoded: uint8 [height, width, 3] each; perhaps none."""
    return list(islice((picture for key in islice(keys, _INPUTS) for picture in _decoded(key)), _PICTURES))


def _decoded(key: ImageKey) -> list[Picture]:
    try:
        with storage.open_read(key.uri) as stream:
            data = stream.read(_MAX_BYTES + 1)
        return [decode(data, max_pixels=_MAX_PIXELS).pixels] if len(data) <= _MAX_BYTES else []
    except (OSError, InputError):  # the job will say what is wrong with it
        return []
