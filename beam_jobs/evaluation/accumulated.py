"""What every engine hands over: precision, recall and scores, as pycocotools' `accumulate` leaves them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.evaluation.settings import RECALL_THRESHOLDS, EvaluationSettings


@dataclass(frozen=True, slots=True, eq=False)
class Accumulated:
    """Precision, recall and scores by threshold, category, area range and number of detections.

    T IoU thresholds, R = 101 recall thresholds, K categories ascending, A area ranges, M numbers of detections, each
    in the order of `settings`. A category without truths that count in an area range has -1 there.

    Args:
        precision: float64 [T, R, K, A, M], interpolated.
        recall: float64 [T, K, A, M], the largest reached.
        scores: float64 [T, R, K, A, M], the score of the detection at which the recall is reached, 0 where none does.

    Raises:
        ValueError: an array of another shape or type.
    """

    settings: EvaluationSettings
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]

    def __post_init__(self) -> None:
        ours = self.settings
        tail = (len(ours.category_ids), len(ours.area_ranges), len(ours.max_detections))
        full = (len(ours.iou_thresholds), len(RECALL_THRESHOLDS), *tail)
        for name, shape in (("precision", full), ("recall", (full[0], *tail)), ("scores", full)):
            array: NDArray[np.float64] = getattr(self, name)
            if array.shape != shape or array.dtype != np.float64:
                raise ValueError(f"{name} must be float64 {list(shape)}, got {array.dtype} {list(array.shape)}")
