"""What a shard hands on of each detection for COCO's numbers: its score and a few bits; no boxes, no image ids.

A row takes 18 bytes and 2 bits for each IoU threshold and area range (COCO's own: 28 bytes), before compression.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.evaluation import errors_tide
from beam_jobs.evaluation.matching import IGNORED, MISSED, Matches
from beam_jobs.evaluation.overlaps import Flags, Ints
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.sorting import Rows
from beam_jobs.evaluation.threshold_matches import ThresholdMatches

#: Rows of `totals` after those of the area ranges: truths at the one IoU of `Matches` that count, that are missed, and
#: that no correction of an error would find.
DIAGNOSTIC_TOTALS = 3
#: The level of rows that are no detections of their category.
_NO_LEVEL = 255


def row_type(settings: EvaluationSettings) -> np.dtype[Any]:
    """The columns of a row.

    - slot: the place of the category among those of its group.
    - shard: its number. Shards are ascending ranges of images, so that ties of score go by it.
    - score
    - level: the place of the least number of detections (maxDets) that has room for the detection.
    - code: of `errors_tide`; `INCOMING` rows are another category's errors.
    - flags: bits by area range and IoU threshold, whether it is a true positive; then likewise, whether it counts.
    """
    bits = 2 * len(settings.area_ranges) * len(settings.iou_thresholds)
    return np.dtype(
        [
            ("slot", "<i4"),
            ("shard", "<i4"),
            ("score", "<f8"),
            ("level", "u1"),
            ("code", "u1"),
            ("flags", "u1", (-(-bits // 8),)),
        ]
    )


def sort_keys(rows: Rows) -> Sequence[NDArray[Any]]:
    """The order of accumulation: by category and descending score, among equals the category's own first, by image."""
    return rows["slot"], -rows["score"], rows["code"] == errors_tide.INCOMING, rows["shard"]


def flags_of(rows: Rows, settings: EvaluationSettings) -> tuple[Flags, Flags]:
    """Bool [N, A * T] each: true positives, and what counts."""
    half = len(settings.area_ranges) * len(settings.iou_thresholds)
    bits = np.unpackbits(np.ascontiguousarray(rows["flags"]), axis=1, count=2 * half).view(bool)
    return bits[:, :half], bits[:, half:]


@dataclass(frozen=True, slots=True)
class Scored:
    """The detections of a shard in some categories, K.

    Args:
        rows: of `row_type`, in the order of `sort_keys`, ties by image and rank.
        totals: int64 [A + 3, K], truths that count by area range, and `DIAGNOSTIC_TOTALS`.
    """

    rows: Rows
    totals: Ints

    @staticmethod
    def of(shard: int, thresholds: ThresholdMatches, matches: Matches, settings: EvaluationSettings) -> Scored:
        """Of a shard that was matched at all thresholds, and at the one of the diagnostics."""
        found, truths, categories = matches.found, matches.truths, len(settings.category_ids)
        kept = found.rank < settings.max_detections[-1]
        moved = np.flatnonzero((matches.wins >= 0) & (matches.error == errors_tide.CLASSIFICATION))
        own = len(thresholds.score)
        rows = np.zeros(own + len(moved), row_type(settings))
        rows["shard"] = shard
        rows["slot"][:own], rows["slot"][own:] = thresholds.slot, truths.slot[matches.wins[moved]]
        rows["score"][:own], rows["score"][own:] = thresholds.score, found.score[moved]
        rows["level"][:own] = np.searchsorted(settings.max_detections, thresholds.rank, "right")
        rows["level"][own:] = _NO_LEVEL
        rows["code"][:own] = errors_tide.codes(
            matches.error[kept], ignored=matches.outcome[kept] == IGNORED, wins=matches.wins[kept] >= 0
        )
        rows["code"][own:] = errors_tide.INCOMING
        rows["flags"][:own] = _flags(thresholds, settings)

        wanted = thresholds.truth_area * categories + thresholds.truth_slot
        by_area = np.bincount(wanted, minlength=len(settings.area_ranges) * categories).reshape(-1, categories)
        kinds = (matches.truth_outcome != IGNORED, matches.truth_outcome == MISSED, matches.truth_error >= 0)
        diagnostic = [np.bincount(truths.slot[kind], minlength=categories) for kind in kinds]
        return Scored(rows[np.lexsort(sort_keys(rows)[::-1])], np.vstack([by_area, *diagnostic]))

    def split(self, groups: int) -> list[Scored]:
        """Those of each group of categories, see `group_settings`."""
        slots = self.rows["slot"]
        parts = []
        for group in range(groups):
            rows = self.rows[slots % groups == group]
            rows["slot"] //= groups
            parts.append(Scored(rows, self.totals[:, group::groups]))
        return parts

    def to_bytes(self) -> bytes:
        """For the wire."""
        head = np.array([len(self.rows)], np.int64).tobytes() + self.totals.astype(np.int64).tobytes()
        body: bytes = pa.compress(self.rows.tobytes(), "zstd", asbytes=True)
        return head + body

    @staticmethod
    def from_bytes(settings: EvaluationSettings, data: bytes) -> Scored:
        """The inverse of `to_bytes`, for the settings of the group."""
        shape = (len(settings.area_ranges) + DIAGNOSTIC_TOTALS, len(settings.category_ids))
        start = 8 * (1 + shape[0] * shape[1])
        count, *totals = np.frombuffer(data[:start], np.int64).tolist()
        kind = row_type(settings)
        body = pa.decompress(data[start:], count * kind.itemsize, "zstd", asbytes=True)
        return Scored(np.frombuffer(body, kind), np.array(totals, np.int64).reshape(shape))


def _flags(thresholds: ThresholdMatches, settings: EvaluationSettings) -> NDArray[np.uint8]:
    """uint8 [N, B], see `row_type`."""
    shape = (len(thresholds.score), len(settings.area_ranges), len(settings.iou_thresholds))
    right = np.zeros(shape, bool)
    right[thresholds.hit_row, thresholds.hit_area, thresholds.hit_threshold] = True
    counted = np.repeat(thresholds.within.T[:, :, None], shape[2], axis=2)
    counted[thresholds.fix_row, thresholds.fix_area, thresholds.fix_threshold] = thresholds.fix_by > 0
    return np.packbits(np.concatenate([right, counted], axis=1).reshape(shape[0], 2 * shape[1] * shape[2]), axis=1)
