"""What is evaluated, and how strictly: COCO's parameters.

Source: `Params` of pycocotools (https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beam_jobs.formats.evaluated import IouType

#: As COCO makes them: the last bits of some differ from the decimal.
COCO_IOU_THRESHOLDS: tuple[float, ...] = tuple(
    np.linspace(0.5, 0.95, int(np.round((0.95 - 0.5) / 0.05)) + 1, endpoint=True).tolist()
)
#: Recall at which precision is read: 0, 0.01, … 1.
RECALL_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.0, 1.0, 101, endpoint=True).tolist())


@dataclass(frozen=True, slots=True)
class AreaRange:
    """Truths and unmatched detections of an area outside low..high (square pixels, both included) do not count."""

    label: str
    low: float
    high: float


_ALL = AreaRange("all", 0.0, 1e10)
_MEDIUM, _LARGE = AreaRange("medium", 32.0**2, 96.0**2), AreaRange("large", 96.0**2, 1e10)
COCO_AREA_RANGES = (_ALL, AreaRange("small", 0.0, 32.0**2), _MEDIUM, _LARGE)
KEYPOINT_AREA_RANGES = (_ALL, _MEDIUM, _LARGE)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """COCO's parameters; the defaults of `of` are COCO's own.

    Args:
        category_ids: the evaluated categories, ascending, each once.
        iou_thresholds: each in (0, 1], ascending.
        area_ranges: with distinct labels and distinct bounds; the first is the one over all sizes.
        max_detections: detections an image and category, ascending; the last is the one of AP.

    Raises:
        ValueError: a value that pycocotools would take in another sense than it reads.
    """

    iou_type: IouType
    category_ids: tuple[int, ...]
    iou_thresholds: tuple[float, ...]
    area_ranges: tuple[AreaRange, ...]
    max_detections: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, values in (
            ("category_ids", self.category_ids),
            ("iou_thresholds", self.iou_thresholds),
            ("max_detections", self.max_detections),
        ):
            if not values or list(values) != sorted(set(values)):
                raise ValueError(f"{name} must be ascending, each once, and at least one; got {list(values)}")
        if not all(0 < threshold <= 1 for threshold in self.iou_thresholds):
            raise ValueError(f"iou_thresholds must be in (0, 1], got {list(self.iou_thresholds)}")
        if self.max_detections[0] < 1:
            raise ValueError(f"max_detections must be at least 1, got {self.max_detections[0]}")
        bounds = {(area.low, area.high) for area in self.area_ranges}
        labels = {area.label for area in self.area_ranges}
        if not self.area_ranges or len(bounds) < len(self.area_ranges) or len(labels) < len(self.area_ranges):
            raise ValueError(f"area_ranges must have distinct labels and bounds, got {list(self.area_ranges)}")

    @staticmethod
    def of(
        iou_type: IouType,
        category_ids: tuple[int, ...],
        *,
        iou_thresholds: tuple[float, ...] = COCO_IOU_THRESHOLDS,
        area_ranges: tuple[AreaRange, ...] | None = None,
        max_detections: tuple[int, ...] | None = None,
    ) -> EvaluationSettings:
        """COCO's parameters for an IoU type, but for what is given."""
        keypoints = iou_type == "keypoints"
        return EvaluationSettings(
            iou_type,
            category_ids,
            iou_thresholds,
            area_ranges or (KEYPOINT_AREA_RANGES if keypoints else COCO_AREA_RANGES),
            max_detections or ((20,) if keypoints else (1, 10, 100)),
        )
