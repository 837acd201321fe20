"""Image ids by file name, from the `images` of a COCO dataset."""

from __future__ import annotations

import io
from collections.abc import Sequence
from hashlib import blake2b
from typing import Annotated

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.errors import DECODE_ERRORS, UsageError
from beam_jobs.formats.textfile import json_fault, read_whole
from beam_jobs.records import MAX_IMAGE_ID
from beam_jobs.storage import display_name

_SCHEMA = pa.schema([pa.field("name_digest", pa.uint64(), False), pa.field("image_id", pa.int64(), False)])


class CocoImage(msgspec.Struct, gc=False):
    """What is read of an image of a COCO dataset."""

    id: Annotated[int, msgspec.Meta(ge=0, lt=MAX_IMAGE_ID)]
    file_name: Annotated[str, msgspec.Meta(min_length=1)]


class _Dataset(msgspec.Struct):
    images: list[CocoImage]


_DECODER = msgspec.json.Decoder(_Dataset)


class _Index:
    """Ids by name, as two arrays sorted by a 64-bit digest of the name: 16 bytes a name, however long it is.

    Among ten million names, one of ten million others meets a digest by chance once in 180,000 jobs.
    """

    def __init__(self, digests: NDArray[np.uint64], ids: NDArray[np.int64]) -> None:
        self.digests = digests
        self.ids = ids

    def get(self, name: str) -> int | None:
        digest = np.uint64(_digest(name))
        at = int(np.searchsorted(self.digests, digest))
        return int(self.ids[at]) if at < len(self.digests) and self.digests[at] == digest else None


class ImageIds:
    """Ids by exact name, and by a base name that is unique among the images. 32 bytes an image."""

    def __init__(self, exact: _Index, by_base: _Index) -> None:
        self._exact = exact
        self._by_base = by_base

    @classmethod
    def of(cls, images: Sequence[CocoImage]) -> ImageIds:
        """From the images of a dataset.

        Raises:
            ValueError: an id has two names, or a name two ids.
        """
        ids = np.fromiter((image.id for image in images), np.int64, len(images))
        names = np.fromiter((_digest(image.file_name) for image in images), np.uint64, len(images))
        bases = np.fromiter((_digest(_base(image.file_name)) for image in images), np.uint64, len(images))
        for keys, values, fault in ((ids, names, "the same id"), (names, ids, "the same file_name")):
            if (clash := _clash(keys, values)) is not None:
                first, second = (f"images[{at}] ({images[at].id}, {images[at].file_name!r})" for at in clash)
                raise ValueError(f"{first} and {second} have {fault}")
        digests, first_at = np.unique(names, return_index=True)
        ids, bases = ids[first_at], bases[first_at]  # an image that is listed twice has a unique base name still
        base_digests, at, count = np.unique(bases, return_index=True, return_counts=True)
        return cls(_Index(digests, ids), _Index(base_digests[count == 1], ids[at[count == 1]]))

    def __len__(self) -> int:
        return len(self._exact.ids)

    def exact(self, name: str) -> int | None:
        """The id of the image of this name."""
        return self._exact.get(name)

    def by_base(self, name: str) -> int | None:
        """The id of the only image whose name ends with this base name; None when several do."""
        return self._by_base.get(name)

    def save(self, path: str) -> None:
        """Write an Arrow file, for `load`."""
        with storage.atomic_writer(path) as file, pa.ipc.new_file(file, _SCHEMA) as writer:
            for index in (self._exact, self._by_base):
                writer.write_batch(pa.record_batch([pa.array(index.digests), pa.array(index.ids)], schema=_SCHEMA))

    @classmethod
    def load(cls, path: str) -> ImageIds:
        """Read what `save` wrote. A local file is mapped: processes that load it share its memory.

        Raises:
            OSError: it cannot be read, or is something else.
        """
        try:
            source = io.BytesIO(storage.read_bytes(path)) if storage.is_remote(path) else pa.memory_map(path)
            reader = pa.ipc.open_file(source)
            exact, by_base = (_index(reader.get_batch(i)) for i in range(2))
        except (pa.ArrowInvalid, TypeError, ValueError) as error:
            raise OSError(f"{display_name(path)!r} is not an index of image ids") from error
        return cls(exact, by_base)


def load_image_ids(path: str) -> ImageIds:
    """The ids of a COCO dataset's images; a gzip file, too. Only `id` and `file_name` are kept.

    While it runs, memory holds the file and some 200 bytes an image.

    Raises:
        UsageError: it is no COCO dataset, or gives an id two names or a name two ids; file, place and remedy.
    """

    def refused(fault: str, remedy: str) -> UsageError:
        return UsageError(f"the COCO file {display_name(path)!r} cannot be used for image ids: {fault}; {remedy}")

    data = read_whole(path, "COCO file")
    try:
        images = _DECODER.decode(data).images
    except DECODE_ERRORS as error:
        shape = 'it must hold {"images": [{"id": …, "file_name": …}, …]} with ids from 0 to 2^53 − 1'
        raise refused(json_fault(data, error), shape) from error
    del data
    try:
        return ImageIds.of(images)
    except ValueError as error:
        raise refused(str(error), "each image needs an id and a file_name of its own") from error


def _clash(keys: NDArray[np.generic], values: NDArray[np.generic]) -> tuple[int, int] | None:
    """The first two positions, in order, with the same key and different values."""
    order = np.argsort(keys, kind="stable")
    same = (keys[order][1:] == keys[order][:-1]) & (values[order][1:] != values[order][:-1])
    if not same.any():
        return None
    pairs: Sequence[tuple[int, int]] = list(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True))
    return min(pairs, key=lambda pair: pair[1])


def _index(batch: pa.RecordBatch) -> _Index:
    digests, ids = (column.to_numpy(zero_copy_only=True) for column in batch.columns)
    return _Index(digests, ids)


def _digest(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little")


def _base(name: str) -> str:
    return name.rpartition("/")[2]
