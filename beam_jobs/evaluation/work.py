"""What is done with one shard of an evaluation, with one group of categories, and how counts of shards add up."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import storage
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.groups import ROWS_AT_ONCE, finish_group, group_settings
from beam_jobs.evaluation.matching import Matches, MatchSettings, match_sides, matches_table
from beam_jobs.evaluation.refusals import check_rows
from beam_jobs.evaluation.repeats import count_repeats
from beam_jobs.evaluation.scored import Scored
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.shards import gather, read_shard
from beam_jobs.evaluation.sides import Sides
from beam_jobs.evaluation.threshold_matches import match_sides_at_thresholds
from beam_jobs.formats.evaluated import SHARDS_FOLDER

#: The key of results of images that the truth does not have; they are only counted.
UNKNOWN = -1


@dataclass(frozen=True, slots=True)
class Sums:
    """What adds up over shards, in any order: counts, and the cells of the flat confusion matrix that were met."""

    counts: Counter[str] = field(default_factory=Counter)
    confusion: Counter[int] = field(default_factory=Counter)

    @staticmethod
    def merge(parts: Iterable[Sums]) -> Sums:
        """The sums of all the parts' images."""
        merged = Sums()
        for part in parts:
            merged.counts.update(part.counts)
            merged.confusion.update(part.confusion)
        return merged

    def to_bytes(self) -> bytes:
        """The sums for a file."""
        return json.dumps([self.counts, self.confusion], sort_keys=True).encode()

    @staticmethod
    def from_bytes(data: bytes) -> Sums:
        """The inverse of `to_bytes`."""
        counts, confusion = json.loads(data)
        return Sums(Counter(counts), Counter({int(cell): count for cell, count in confusion.items()}))


def matches_path(shard: int) -> str:
    """The matches of a shard, below the evaluation's folder."""
    return f"{SHARDS_FOLDER}/matches-{shard:05d}.arrow"


def finished_path(group: int) -> str:
    """What a group of categories came to, below the evaluation's folder."""
    return f"{SHARDS_FOLDER}/finished-{group:05d}.npz"


def evaluate_shard(
    root: str, shard: int, settings: EvaluationSettings, categories: Mapping[int, str], encoded: Iterable[bytes]
) -> tuple[Sums, Scored]:
    """Evaluates the images of a shard and writes their matches.

    Args:
        categories: names by category id.
        encoded: the results of these images, as `Router.route` gave them, in any order.
    """
    truth = read_shard(root, shard)
    every = gather(encoded)
    results, objects = _evaluated(every, settings), _evaluated(truth.objects, settings)
    matches, scored = score_images(shard, truth.images, objects, results, settings)

    counts = Counter(
        images=truth.images.num_rows, truths=objects.num_rows, crowds=pc.sum(objects["iscrowd"]).as_py() or 0
    )
    counts.update(_by_category("truths", objects.filter(pc.invert(objects["iscrowd"]))))
    counts.update(_by_category("detections", results))
    counts["detections"] = results.num_rows
    known = pc.sum(pc.is_in(every["category_id"], value_set=pa.array(categories, pa.int32()))).as_py() or 0
    counts["unknown_categories"] = every.num_rows - known
    counts["other_categories"] = known - results.num_rows
    counts["repeated_detections"] = count_repeats(results)
    cells, times = np.unique(matches.confusion, return_counts=True)

    sink = io.BytesIO()
    table = matches_table(matches, truth.images, objects, results, settings, categories)
    # `outputs.join_matches` reads it once: Parquet would be packed twice.
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as stream:
        stream.write_table(table)
    storage.write_atomic(storage.join(root, matches_path(shard)), sink.getvalue())
    sums = Sums(counts, Counter(dict(zip(cells.tolist(), times.tolist(), strict=True))))
    return sums, scored


def score_images(
    shard: int,
    images: pa.Table,
    objects: pa.Table,
    results: pa.Table,
    settings: EvaluationSettings,
    matching: MatchSettings | None = None,
) -> tuple[Matches, Scored]:
    """Matches the images of a shard, at the IoU of the diagnostics and at all thresholds.

    Args:
        images: rows of `TRUTH_IMAGES`, ascending by image_id.
        objects, results: rows of `TRUTH_OBJECTS` and `RESULTS` of these images, of evaluated categories.

    Raises:
        ValueError: see `check_rows`; or masks that cannot be read, or polygons in an image of unknown size.
    """
    check_rows(settings.iou_type, images, objects, results)
    sides = Sides.of(images, objects, results, settings)
    matches = match_sides(sides, settings, matching)
    thresholds = match_sides_at_thresholds(images, results, sides, settings, images["image_id"].to_numpy())
    return matches, Scored.of(shard, thresholds, matches, settings)


def write_finished(root: str, settings: EvaluationSettings, group: int, groups: int, encoded: Iterable[bytes]) -> str:
    """Brings a group to its numbers and writes them below `root`; returns the path.

    Args:
        settings: of all categories.
        encoded: the `Scored` of the group, of all shards in any order.
    """
    finished = finish_group(group_settings(settings, group, groups), encoded, ROWS_AT_ONCE)
    storage.write_atomic(storage.join(root, finished_path(group)), finished.to_bytes())
    return finished_path(group)


def read_finished(root: str, settings: EvaluationSettings, groups: int) -> Finished:
    """The numbers of all groups."""
    parts = []
    for group in range(groups):
        data = storage.read_bytes(storage.join(root, finished_path(group)))
        parts.append(Finished.from_bytes(group_settings(settings, group, groups), data))
    return Finished.concat(settings, parts)


def _evaluated(rows: pa.Table, settings: EvaluationSettings) -> pa.Table:
    wanted = pa.array(settings.category_ids, pa.int32())
    return rows.filter(pc.is_in(rows["category_id"], value_set=wanted)).combine_chunks()


def _by_category(what: str, rows: pa.Table) -> dict[str, int]:
    counted = pc.value_counts(rows["category_id"]).to_pylist()
    return {f"{what}:{entry['values']}": entry["counts"] for entry in counted}
