"""What an evaluation comes to, category by category: small, whatever the number of detections."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.overlaps import Flags, Floats, Ints
from beam_jobs.evaluation.settings import EvaluationSettings


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """The numbers of K categories, those of `settings`. With COCO's settings about 0.2 MB a category.

    Args:
        precision, scores: float64 [K, T, R, A, M], see `Accumulated`.
        recall: float64 [K, T, A, M].
        truths, detections: int64 [K], those that count at the IoU of the diagnostics.
        best_f1: float64 [K, 4]: F1, score, precision, recall; zeros without truths or detections.
        costs: float64 [K, 9], see `CategoryCosts`.
        errors: int64 [K, 6], by `ERRORS`.
        bin_count, bin_hits, bin_total: int64, int64 and float64 [K, BINS], see `CalibrationSums`.
        confidences: bool [K], no score is outside 0 to 1.
    """

    settings: EvaluationSettings
    precision: Floats
    recall: Floats
    scores: Floats
    truths: Ints
    detections: Ints
    best_f1: Floats
    costs: Floats
    errors: Ints
    bin_count: Ints
    bin_hits: Ints
    bin_total: Floats
    confidences: Flags

    @staticmethod
    def concat(settings: EvaluationSettings, parts: Sequence[Finished]) -> Finished:
        """All categories of `settings`, each of which is in one part.

        Raises:
            ValueError: the parts do not have these categories.
        """
        ids = np.array([number for part in parts for number in part.settings.category_ids], np.int64)
        order = np.argsort(ids, kind="stable")
        if tuple(ids[order].tolist()) != settings.category_ids:
            raise ValueError(f"expected the categories {settings.category_ids}, got {ids.tolist()}")
        columns = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in _COLUMNS}
        return Finished(settings, **columns)

    def accumulated(self) -> Accumulated:
        """Precision, recall and scores as pycocotools has them."""
        precision, scores = (np.moveaxis(array, 0, 2) for array in (self.precision, self.scores))
        recall = np.moveaxis(self.recall, 0, 1)
        return Accumulated(self.settings, *(np.ascontiguousarray(array) for array in (precision, recall, scores)))

    def to_bytes(self) -> bytes:
        """For a file, as numpy's `.npz`."""
        file = io.BytesIO()
        columns: dict[str, NDArray[np.generic]] = {name: getattr(self, name) for name in _COLUMNS}
        np.savez(file, allow_pickle=False, **columns)
        return file.getvalue()

    @staticmethod
    def from_bytes(settings: EvaluationSettings, data: bytes) -> Finished:
        """The inverse of `to_bytes`, for the settings of the group."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return Finished(settings, **{name: file[name] for name in _COLUMNS})


_COLUMNS = tuple(field.name for field in fields(Finished) if field.name != "settings")
