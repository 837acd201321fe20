"""What is done with one shard of an evaluation, and how the sums of shards come together."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import storage
from beam_jobs.evaluation.diagnostics import Diagnostics
from beam_jobs.evaluation.matching import match_batch, matches_table
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.shards import gather, read_shard
from beam_jobs.evaluation.state import EvaluationState
from beam_jobs.formats.evaluated import SHARDS_FOLDER

#: The key of results of images that the truth does not have; they are only counted.
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Sums:
    """What merges over shards, in any order: the state of COCO's metrics, the diagnostics, counts."""

    state: EvaluationState
    diagnostics: Diagnostics
    counts: Counter[str] = field(default_factory=Counter)

    @staticmethod
    def merge(parts: Iterable[Sums]) -> Sums:
        """The sums of all the parts' images."""
        found = list(parts)
        counts: Counter[str] = Counter()
        for part in found:
            counts.update(part.counts)
        return Sums(
            EvaluationState.merge(part.state for part in found),
            Diagnostics.merge(part.diagnostics for part in found),
            counts,
        )

    def to_bytes(self) -> bytes:
        """The sums for the wire."""
        parts = (
            self.state.to_bytes(),
            self.diagnostics.to_bytes(),
            json.dumps(dict(sorted(self.counts.items()))).encode(),
        )
        return b"".join(len(part).to_bytes(8, "little") + part for part in parts)

    @staticmethod
    def from_bytes(settings: EvaluationSettings, data: bytes) -> Sums:
        """The inverse of `to_bytes`."""
        source = io.BytesIO(data)
        state, diagnostics, counts = (source.read(int.from_bytes(source.read(8), "little")) for _ in range(3))
        return Sums(
            EvaluationState.from_bytes(settings, state),
            Diagnostics.from_bytes(diagnostics),
            Counter(json.loads(counts)),
        )


def matches_path(shard: int) -> str:
    """The matches of a shard, below the evaluation's folder."""
    return f"{SHARDS_FOLDER}/matches-{shard:05d}.arrow"


def empty_sums(settings: EvaluationSettings) -> Sums:
    """The sums of no images."""
    return Sums(EvaluationState.empty(settings), Diagnostics.empty(settings.category_ids))


def evaluate_shard(
    root: str, shard: int, settings: EvaluationSettings, categories: Mapping[int, str], encoded: Iterable[bytes]
) -> Sums:
    """Evaluates the images of a shard and writes their matches.

    Args:
        categories: names by category id.
        encoded: the results of these images, as `Router.route` gave them, in any order.
    """
    truth = read_shard(root, shard)
    every = gather(encoded)
    results, objects = _evaluated(every, settings), _evaluated(truth.objects, settings)
    counts = Counter(
        images=truth.images.num_rows, truths=objects.num_rows, crowds=pc.sum(objects["iscrowd"]).as_py() or 0
    )
    counts.update(_by_category("truths", objects.filter(pc.invert(objects["iscrowd"]))))
    counts.update(_by_category("detections", results))
    counts["detections"] = results.num_rows
    known = pc.sum(pc.is_in(every["category_id"], value_set=pa.array(categories, pa.int32()))).as_py() or 0
    counts["unknown_categories"] = every.num_rows - known
    counts["other_categories"] = known - results.num_rows

    state = EvaluationState.empty(settings)
    state.update(truth.images, objects, results)
    matches = match_batch(truth.images, objects, results, settings)
    sink = io.BytesIO()
    table = matches_table(matches, truth.images, objects, results, settings, categories)
    # `outputs.join_matches` reads it once: Parquet would be packed twice.
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_table(table)
    storage.write_atomic(storage.join(root, matches_path(shard)), sink.getvalue())
    return Sums(state, Diagnostics.of(matches, settings.category_ids), counts)


def _evaluated(rows: pa.Table, settings: EvaluationSettings) -> pa.Table:
    wanted = pa.array(settings.category_ids, pa.int32())
    return rows.filter(pc.is_in(rows["category_id"], value_set=wanted)).combine_chunks()


def _by_category(what: str, rows: pa.Table) -> dict[str, int]:
    counted = pc.value_counts(rows["category_id"]).to_pylist()
    return {f"{what}:{entry['values']}": entry["counts"] for entry in counted}
