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


class CalibrationSums:
    """What the calibration of a category needs of its detections, which come some at a time, always in one order.

    `count`, `hits` and `total` are int64, int64 and float64 [BINS]: detections, true positives, sums of scores. Once a
    score is outside 0 to 1 they stay 0, and `confidences` is false.
    """

    def __init__(self) -> None:
        """No detections."""
        self.confidences = True
        self._clear()

    def _clear(self) -> None:
        self.count, self.hits = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.total: Floats = np.zeros(BINS)

    def add(self, score: Floats, right: Flags) -> None:
        """The next detections that are not ignored, float64 and bool [N], true positives."""
        self.confidences = self.confidences and bool(np.all((score >= 0) & (score <= 1)))
        if not self.confidences:
            self._clear()
            return
        cell = np.minimum((score * BINS).astype(np.int64), BINS - 1)
        self.count += np.bincount(cell, minlength=BINS)
        self.hits += np.bincount(cell[right], minlength=BINS)
        # One by one: so the last bit does not depend on what is added together.
        np.add.at(self.total, cell, score)


def calibration(count: Ints, hits: Ints, total: Floats, category_ids: tuple[int, ...]) -> Calibration:
    """The calibration of all categories.

    Args:
        count, hits: int64 [K, BINS], detections that are not ignored, and true positives.
        total: float64 [K, BINS], sums of scores.
    """
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


class BestF1Search:
    """The threshold on real scores, detections at it included, at which F1 = 2 TP / (TP + FP + truths) is best.

    Detections come best first, some at a time.
    """

    def __init__(self, truths: int) -> None:
        """For truths that count, 1 or more."""
        self._truths = truths
        self._hits = self._shown = 0
        self._last: float | None = None
        self._best: tuple[float, float, int, int] = (-1.0, 0.0, 0, 0)

    def add(self, score: Floats, right: Flags) -> None:
        """The next detections that are not ignored, float64 and bool [N], true positives."""
        if not len(score):
            return
        if self._last is not None and score[0] != self._last:
            self._offer(np.array([self._last]), np.array([self._hits]), np.array([self._shown]))
        ends = np.flatnonzero(score[1:] != score[:-1])  # equal scores stay or go together
        hits = self._hits + np.cumsum(right)
        self._offer(score[ends], hits[ends], self._shown + ends + 1)
        self._hits, self._shown, self._last = int(hits[-1]), self._shown + len(score), float(score[-1])

    def best(self) -> BestF1:
        """The best of all that were added."""
        if self._last is None:
            return BestF1(0.0, None, 0.0, 0.0)
        self._offer(np.array([self._last]), np.array([self._hits]), np.array([self._shown]))
        f1, score, hits, shown = self._best
        return BestF1(f1, score, hits / shown, hits / self._truths)

    def _offer(self, score: Floats, hits: Ints, shown: Ints) -> None:
        if not len(score):
            return
        f1 = 2 * hits / (shown + self._truths)
        at = int(np.argmax(f1))
        if f1[at] > self._best[0]:
            self._best = (float(f1[at]), float(score[at]), int(hits[at]), int(shown[at]))
