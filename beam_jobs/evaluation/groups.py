"""An evaluation cut by category: each group of categories comes to its numbers apart, in bounded memory.

A group gathers the `Scored` of all shards. What it comes to depends neither on their order nor on how much of it was
in memory at once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.evaluation import errors_tide
from beam_jobs.evaluation.curves import Curves
from beam_jobs.evaluation.errors_tide import CategoryCosts
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.scored import DIAGNOSTIC_TOTALS, Scored, flags_of, row_type, sort_keys
from beam_jobs.evaluation.scores import BestF1, BestF1Search, CalibrationSums
from beam_jobs.evaluation.settings import RECALL_THRESHOLDS, EvaluationSettings
from beam_jobs.evaluation.sorting import Rows, RowSorter
from beam_jobs.formats.matches import ERRORS

#: Up to so many images there is one group; with 80 detections each they are the rows that one holds.
IMAGES_A_GROUP = 50_000
#: Rows that a group holds: 120 MB, and its process 0.4 GB while it sorts them. Of more, as a hot category has, those of
#: some images at a time are sorted onto the worker's disk, 28 bytes a row, and all are gone through once at the end.
ROWS_AT_ONCE = 1 << 22
#: Rows that are accumulated together: what fits the caches.
_CHUNK = 1 << 14


def number_of_groups(settings: EvaluationSettings, images: int) -> int:
    """How many groups an evaluation of so many images has, at most one a category."""
    return max(1, min(len(settings.category_ids), -(-images // IMAGES_A_GROUP)))


def group_settings(settings: EvaluationSettings, group: int, groups: int) -> EvaluationSettings:
    """The settings of a group: every so manieth category."""
    return replace(settings, category_ids=settings.category_ids[group::groups])


def finish_group(settings: EvaluationSettings, encoded: Iterable[bytes], at_once: int) -> Finished:
    """The numbers of a group.

    Args:
        settings: of the group.
        encoded: the `Scored` of all shards in any order; gone through once.
        at_once: rows that are in memory, about.
    """
    totals = np.zeros((len(settings.area_ranges) + DIAGNOSTIC_TOTALS, len(settings.category_ids)), np.int64)
    with tempfile.TemporaryFile(buffering=0) as file:
        sorter = RowSorter(file, row_type(settings), sort_keys, at_once)
        for data in encoded:
            scored = Scored.from_bytes(settings, data)
            totals += scored.totals
            sorter.add(scored.rows)
        categories = [_Category(settings, column) for column in totals.T]
        for slot, rows in _by_slot(sorter.sorted(), min(_CHUNK, at_once)):
            categories[slot].add(rows)
    columns = [category.numbers() for category in categories]
    return Finished(settings, **{name: np.stack([column[name] for column in columns]) for name in columns[0]})


def _by_slot(ordered: Iterable[Rows], at_most: int) -> Iterator[tuple[int, Rows]]:
    """The rows in their order, a few at a time, those of one category together."""
    for rows in ordered:
        slots = rows["slot"]
        bounds = np.flatnonzero(np.diff(slots, prepend=-1, append=-1))
        for start, stop in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            for at in range(start, stop, at_most):
                yield int(slots[at]), rows[at : min(at + at_most, stop)]


class _Category:
    """A category whose detections come best first."""

    def __init__(self, settings: EvaluationSettings, totals: NDArray[np.int64]) -> None:
        """For a column of `Scored.totals`."""
        self._settings = settings
        self._wanted = np.repeat(totals[:-DIAGNOSTIC_TOTALS], len(settings.iou_thresholds))
        self._truths, missed, self._uncovered = totals[-DIAGNOSTIC_TOTALS:].tolist()
        self._curves = [Curves(self._wanted) for _ in settings.max_detections]
        self._costs = CategoryCosts(self._truths, missed, self._uncovered)
        self._codes = np.zeros(errors_tide.INCOMING + 1, np.int64)
        self._best = BestF1Search(self._truths)
        self._calibration = CalibrationSums()

    def add(self, rows: Rows) -> None:
        """The next rows, of `row_type`."""
        score, code, level = (np.ascontiguousarray(rows[name]) for name in ("score", "code", "level"))
        right, counted = flags_of(rows, self._settings)
        for at, curves in enumerate(self._curves):
            some = level <= at
            curves.add(score[some], np.ascontiguousarray(right[some].T), np.ascontiguousarray(counted[some].T))
        self._codes += np.bincount(code, minlength=len(self._codes))
        self._costs.add(score, code)
        own = code <= errors_tide.RIGHT
        score, right_once = score[own], code[own] == errors_tide.RIGHT
        self._best.add(score, right_once)
        self._calibration.add(score, right_once)

    def numbers(self) -> dict[str, Any]:
        """The category's columns of `Finished`."""
        thresholds, areas = len(self._settings.iou_thresholds), len(self._settings.area_ranges)
        nothing = (self._wanted == 0).reshape(areas, thresholds)
        # [M, A, T, R] to [T, R, A, M]
        shape = (len(self._curves), areas, thresholds, len(RECALL_THRESHOLDS))
        precision, scores = (
            np.array([getattr(curves, name) for curves in self._curves]).reshape(shape)
            for name in ("precision", "scores")
        )
        recall = np.array([curves.hits / np.maximum(self._wanted, 1) for curves in self._curves]).reshape(shape[:-1])
        for array in (precision, recall, scores):
            array[:, nothing] = -1.0
        errors = self._codes[: len(ERRORS)].copy()
        errors[errors_tide.LOCALISATION] += self._codes[errors_tide.CORRECTED]
        errors[errors_tide.MISSED] = self._uncovered
        best = self._best.best() if self._truths else BestF1(0.0, None, 0.0, 0.0)
        return {
            "precision": precision.transpose(2, 3, 1, 0),
            "recall": recall.transpose(2, 1, 0),
            "scores": scores.transpose(2, 3, 1, 0),
            "truths": self._truths,
            "detections": self._codes[: errors_tide.RIGHT + 1].sum(),
            "best_f1": np.array([best.f1, best.score or 0.0, best.precision, best.recall]),
            "costs": self._costs.numbers(),
            "errors": errors,
            "bin_count": self._calibration.count,
            "bin_hits": self._calibration.hits,
            "bin_total": self._calibration.total,
            "confidences": self._calibration.confidences,
        }
