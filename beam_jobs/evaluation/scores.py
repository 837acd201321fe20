"""What scores are worth: calibration, and the score threshold with the best F1.

Sources: Guo and others, On Calibration of Modern Neural Networks (https://arxiv.org/abs/1706.04599), for ECE and MCE,
with hotcoco's bins (https://derekallman.github.io/hotcoco/).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from beam_jobs.evaluation.overlaps import Flags, Floats, Ints

BINS = 10

#: Bins of scores, low <= score < high, 1 in the last. `category_id` is null for all categories together; a category
#: without detections that count has no rows. `precision` is the share of true positives; it and `mean_score` are null
#: in an empty bin.
CALIBRATION = pa.schema(
    [
        pa.field("category_id", pa.int32(), True),
        pa.field("low", pa.float64(), False),
        pa.field("high", pa.float64(), False),
        pa.field("detections", pa.int64(), False),
        pa.field("true_positives", pa.int64(), False),
        pa.field("mean_score", pa.float64(), True),
        pa.field("precision", pa.float64(), True),
    ]
)


@dataclass(frozen=True, slots=True)
class Calibration:
    """How far scores are from the share of detections that are right.

    Args:
        bins: rows of `CALIBRATION`.
        ece, mce: expected and greatest gap between mean score and precision of a bin; 0 without detections.
        per_category: the expected gap by category id; only those with detections that count.
    """

    bins: pa.Table
    ece: float
    mce: float
    per_category: Mapping[int, float]


def calibration(slot: Ints, score: Floats, right: Flags, category_ids: tuple[int, ...]) -> Calibration | None:
    """The calibration of detections that are not ignored; None if a score is outside 0 to 1, so no confidence.

    Args:
        slot: int64 [N], places in `category_ids`.
        score: float64 [N].
        right: bool [N], true positives.
    """
    if not np.all((score >= 0) & (score <= 1)):
        return None
    size = len(category_ids) * BINS
    cell = slot * BINS + np.minimum((score * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(cell, minlength=size).reshape(-1, BINS)
    hits = np.bincount(cell[right], minlength=size).reshape(-1, BINS)
    total = np.bincount(cell, score, minlength=size).reshape(-1, BINS)
    there = np.flatnonzero(count.any(axis=1))
    ids = [None, *(category_ids[index] for index in there.tolist())]
    count = np.concatenate([count.sum(axis=0)[None], count[there]])
    hits = np.concatenate([hits.sum(axis=0)[None], hits[there]])
    total = np.concatenate([total.sum(axis=0)[None], total[there]])
    with np.errstate(invalid="ignore"):
        mean, precision = total / count, hits / count
    gap = np.where(count > 0, np.abs(precision - mean), 0.0)
    errors = (count / np.maximum(count.sum(axis=1, keepdims=True), 1) * gap).sum(axis=1)
    edges = np.arange(BINS + 1) / BINS
    empty = count.ravel() == 0
    bins = pa.table(
        {
            "category_id": pa.array([number for number in ids for _ in range(BINS)], pa.int32()),
            "low": np.tile(edges[:-1], len(ids)),
            "high": np.tile(edges[1:], len(ids)),
            "detections": count.ravel(),
            "true_positives": hits.ravel(),
            "mean_score": pa.array(mean.ravel(), mask=empty),
            "precision": pa.array(precision.ravel(), mask=empty),
        }
    ).cast(CALIBRATION)
    per_category = {category_ids[index]: float(error) for index, error in zip(there.tolist(), errors[1:], strict=True)}
    return Calibration(bins, float(errors[0]), float(gap[0].max()), per_category)


@dataclass(frozen=True, slots=True)
class BestF1:
    """The best F1 of all thresholds, the highest threshold among equals; without detections 0, and no score."""

    f1: float
    score: float | None
    precision: float
    recall: float


def best_f1(score: Floats, right: Flags, truths: int) -> BestF1:
    """The threshold on real scores, detections at it included, at which F1 = 2 TP / (TP + FP + truths) is best.

    Args:
        score: float64 [N], descending.
        right: bool [N], true positives.
        truths: how many count, 1 or more.
    """
    if not len(score):
        return BestF1(0.0, None, 0.0, 0.0)
    last = np.flatnonzero(np.append(score[1:] != score[:-1], True))  # equal scores stay or go together
    hits = np.cumsum(right)[last]
    f1 = 2 * hits / (last + 1 + truths)
    best = int(np.argmax(f1))
    found = int(hits[best])
    at = int(last[best])
    return BestF1(float(f1[best]), float(score[at]), found / (at + 1), found / truths)
