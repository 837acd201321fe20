"""Beyond average precision: confusion, calibration, best F1 and the costs of errors, of all categories together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.evaluation import errors_tide
from beam_jobs.evaluation.errors_tide import ErrorCosts
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.scores import Calibration, calibration

#: Best F1 of each category; nulls for those without truths, `score` also for those without detections.
BEST_F1 = pa.schema(
    [
        pa.field("category_id", pa.int32(), False),
        pa.field("category", pa.string(), False),
        pa.field("truths", pa.int64(), False),
        pa.field("detections", pa.int64(), False),
        pa.field("f1", pa.float64(), True),
        pa.field("score", pa.float64(), True),
        pa.field("precision", pa.float64(), True),
        pa.field("recall", pa.float64(), True),
    ]
)


@dataclass(frozen=True, slots=True)
class DiagnosticsResult:
    """What people read.

    Args:
        category_ids: ascending, K.
        confusion: int64 [K + 1, K + 1], rows the truth's category, columns the detection's, the last is background.
        calibration: None if a score is outside 0 to 1.
        best_f1: rows of `BEST_F1`, by category id.
        errors: TIDE.
    """

    category_ids: tuple[int, ...]
    confusion: NDArray[np.int64]
    calibration: Calibration | None
    best_f1: pa.Table
    errors: ErrorCosts


def diagnose(finished: Finished, confusion: Mapping[int, int], categories: Mapping[int, str]) -> DiagnosticsResult:
    """The diagnostics of all categories.

    Args:
        confusion: how often each cell of the flat confusion matrix was met.
        categories: names by category id; what is not there is called by its number.
    """
    ids = finished.settings.category_ids
    side = len(ids) + 1
    matrix = np.zeros(side * side, np.int64)
    matrix[list(confusion)] = list(confusion.values())
    with_truths = finished.truths > 0
    found = with_truths & (finished.detections > 0)
    f1, score, precision, recall = finished.best_f1.T
    best = {
        "category_id": np.array(ids, np.int32),
        "category": [categories.get(number, str(number)) for number in ids],
        "truths": finished.truths,
        "detections": finished.detections,
        "f1": pa.array(f1, mask=~with_truths),
        "score": pa.array(score, mask=~found),
        "precision": pa.array(precision, mask=~with_truths),
        "recall": pa.array(recall, mask=~with_truths),
    }
    calibrated = None
    if finished.confidences.all():
        calibrated = calibration(finished.bin_count, finished.bin_hits, finished.bin_total, ids)
    return DiagnosticsResult(
        ids,
        matrix.reshape(side, side),
        calibrated,
        pa.table(best).cast(BEST_F1),
        errors_tide.errors_costs(finished.costs[with_truths], finished.errors.sum(axis=0)),
    )
