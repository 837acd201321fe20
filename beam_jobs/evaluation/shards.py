"""An evaluation cut into shards of images: what each needs lies on disk, so that any worker can do any shard.

A shard is a range of the truth's images, in the order of their ids, whether anything was detected in them or not.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.formats.evaluated import RESULTS, SHARDS_FOLDER, GroundTruth
from beam_jobs.formats.result_tables import ResultChunk, images_of

#: What is in memory for one shard: about 30 MB with 100 detections a picture.
IMAGES_A_SHARD = 500
#: Rows of parsed results that are read at once: about 20 MB of boxes.
_ROWS_A_PIECE = 1 << 18

_INDEX = pa.schema(
    [
        pa.field("result_image_id", pa.int64(), False),
        pa.field("truth_image_id", pa.int64(), False),
        pa.field("shard", pa.int32(), False),
    ]
)


@dataclass(frozen=True, slots=True)
class TruthShard:
    """The truth of some images: int64 image ids, ascending, and their rows of `TRUTH_IMAGES` and `TRUTH_OBJECTS`."""

    images: pa.Table
    objects: pa.Table

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """int64 [N], ascending."""
        ids: NDArray[np.int64] = self.images["image_id"].to_numpy()
        return ids


def write_shards(root: str, truth: GroundTruth, result_ids: NDArray[np.int64], truth_ids: NDArray[np.int64]) -> int:
    """Writes the truth in shards below `root`, and which image of the results is which of its; returns their number.

    Args:
        result_ids: int64 [N], image ids as the results have them, each once.
        truth_ids: int64 [N], the truth's id of each; -1 for an image that the truth does not have.
    """
    ids = truth.images["image_id"].to_numpy()
    order = np.argsort(truth.objects["image_id"].to_numpy(), kind="stable")
    objects = truth.objects.take(pa.array(order))
    owners = objects["image_id"].to_numpy()
    shards = -(-len(ids) // IMAGES_A_SHARD)
    for shard in range(shards):
        images = truth.images.slice(shard * IMAGES_A_SHARD, IMAGES_A_SHARD)
        last = images["image_id"][-1].as_py()
        start, end = np.searchsorted(owners, images["image_id"][0].as_py()), np.searchsorted(owners, last, "right")
        data = _encode(images) + _encode(objects.slice(int(start), int(end - start)))
        storage.write_atomic(storage.join(root, _truth_path(shard)), data)
    known = truth_ids >= 0
    by_id = np.argsort(result_ids[known], kind="stable")
    result_ids, truth_ids = result_ids[known][by_id], truth_ids[known][by_id]
    shard_of = (np.searchsorted(ids, truth_ids) // IMAGES_A_SHARD).astype(np.int32)
    index = pa.table([result_ids, truth_ids, shard_of], schema=_INDEX)
    storage.write_atomic(storage.join(root, SHARDS_FOLDER, "images.arrow"), _encode(index))
    return shards


def store_results(root: str, results: pa.Table) -> list[StoredResults]:
    """Writes rows of `RESULTS` below `root`, in pieces that workers can share; returns the pieces."""
    stored = []
    for start in range(0, results.num_rows, _ROWS_A_PIECE):
        stored.append(StoredResults(root, f"{SHARDS_FOLDER}/results-{start // _ROWS_A_PIECE:05d}.arrow"))
        storage.write_atomic(storage.join(root, stored[-1].path), _encode(results.slice(start, _ROWS_A_PIECE)))
    return stored


@dataclass(frozen=True, slots=True)
class StoredResults:
    """Results that were parsed before, in a file at `path` below `root`: a `ResultSource`."""

    root: str
    path: str

    def read(self) -> ResultChunk:
        """All of them. Its images may be in other pieces, too: `detection` was counted over all."""
        (results,) = _decode(storage.read_bytes(storage.join(self.root, self.path)))
        return ResultChunk(images_of(results["image_id"].to_numpy(), None), results, all_images=False)

    def read_images(self) -> pa.Table:
        """The images of `read`."""
        return self.read().images


def read_shard(root: str, shard: int) -> TruthShard:
    """The truth of a shard."""
    images, objects = _decode(storage.read_bytes(storage.join(root, _truth_path(shard))))
    return TruthShard(images, objects)


class Router:
    """Sends results to their shards, with the truth's image ids."""

    def __init__(self, root: str) -> None:
        (index,) = _decode(storage.read_bytes(storage.join(root, SHARDS_FOLDER, "images.arrow")))
        self._result_ids = index["result_image_id"].to_numpy()
        self._truth_ids = index["truth_image_id"].to_numpy()
        self._shards = index["shard"].to_numpy()

    def route(self, results: pa.Table) -> Iterator[tuple[int, bytes]]:
        """The shards of some results, and their encoded rows; those of images that the truth lacks are left out."""
        ids = results["image_id"].to_numpy()
        at = np.searchsorted(self._result_ids, ids)
        known = at < len(self._result_ids)
        known[known] = self._result_ids[at[known]] == ids[known]
        results, at = results.filter(pa.array(known)), at[known]
        position = results.schema.get_field_index("image_id")
        results = results.set_column(position, RESULTS.field("image_id"), pa.array(self._truth_ids[at]))
        shards = self._shards[at]
        for shard in np.unique(shards).tolist():
            yield shard, _encode(results.filter(pa.array(shards == shard)))

    def unknown(self, results: pa.Table) -> int:
        """How many of these results are of images that the truth does not have."""
        return int((~np.isin(results["image_id"].to_numpy(), self._result_ids)).sum())


def gather(encoded: Iterable[bytes]) -> pa.Table:
    """The results of a shard, by image and in the order that breaks ties of score, whatever order they came in."""
    tables = [table for data in encoded for table in _decode(data)]
    results = pa.concat_tables(tables or [RESULTS.empty_table()])
    order = np.lexsort((results["detection"].to_numpy(), results["image_id"].to_numpy()))
    return results.take(pa.array(order)).combine_chunks()


def _truth_path(shard: int) -> str:
    return f"{SHARDS_FOLDER}/truth-{shard:05d}.arrow"


def _encode(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue()


def _decode(data: bytes) -> list[pa.Table]:
    source = pa.BufferReader(data)
    tables = []
    # In this thread: see `runs.parts.read_table`.
    options = pa.ipc.IpcReadOptions(use_threads=False)
    while source.tell() < len(data):
        with pa.ipc.open_stream(source, options=options) as stream:
            tables.append(stream.read_all())
    return tables
