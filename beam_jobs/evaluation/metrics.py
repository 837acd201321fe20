"""The numbers of an evaluation: COCO's summary and its printed table, numbers by category, precision-recall curves.

Names, order, layout and arithmetic are those of `summarize` in pycocotools
(https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/cocoeval.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.settings import (
    COCO_AREA_RANGES,
    COCO_IOU_THRESHOLDS,
    KEYPOINT_AREA_RANGES,
    RECALL_THRESHOLDS,
    EvaluationSettings,
)

#: Rows of `curves`. `score` is the score of the detection at which the recall is reached, 0 where none does.
CURVES = pa.schema(
    [
        pa.field("category_id", pa.int32(), False),
        pa.field("category", pa.string(), False),
        pa.field("iou_threshold", pa.float64(), False),
        pa.field("area", pa.string(), False),
        pa.field("max_detections", pa.int32(), False),
        pa.field("recall", pa.float64(), False),
        pa.field("precision", pa.float64(), False),
        pa.field("score", pa.float64(), False),
    ]
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of the summary: a mean over what is left when threshold, area and number of detections are fixed.

    Args:
        name: `AP` or `AR`, then what is fixed: the IoU threshold in percent, the area's label, or (`AR` only) the
            number of detections.
        recall: an average recall, else an average precision.
        iou_threshold: None is the mean over all.
        area: label of the area range.
        max_detections: detections an image and category.
    """

    name: str
    recall: bool
    iou_threshold: float | None
    area: str
    max_detections: int


def metrics_of(settings: EvaluationSettings) -> tuple[Metric, ...]:
    """The metrics of a summary in COCO's order: 12, or 10 for keypoints, with COCO's own settings.

    Other settings keep COCO's names and add theirs, in ascending order: a metric for each of their IoU thresholds and
    area ranges. What COCO has and they have not (`AP75` without the threshold 0.75, `APsmall` without that range) is
    -1, as in pycocotools. AP is that of the first area range and the largest number of detections; pycocotools looks
    for `all` and 100 (keypoints: 20) by name, and gives -1 or the AP of fewer detections where they are not.
    """
    keypoints = settings.iou_type == "keypoints"
    most, everything = settings.max_detections[-1], settings.area_ranges[0].label
    thresholds = {0.5, 0.75}
    if settings.iou_thresholds != COCO_IOU_THRESHOLDS:
        thresholds |= set(settings.iou_thresholds)
    coco_areas = KEYPOINT_AREA_RANGES if keypoints else COCO_AREA_RANGES
    labels = dict.fromkeys(area.label for area in (*coco_areas[1:], *settings.area_ranges[1:]))
    labels.pop(everything, None)

    by_threshold = [(f"{100 * threshold:.15g}", threshold) for threshold in sorted(thresholds)]
    metrics = [Metric("AP", False, None, everything, most)]
    metrics += [Metric(f"AP{name}", False, threshold, everything, most) for name, threshold in by_threshold]
    metrics += [Metric(f"AP{label}", False, None, label, most) for label in labels]
    if keypoints:
        few = settings.max_detections[:-1]
        metrics += [Metric(f"AR{count}", True, None, everything, count) for count in few]
        metrics.append(Metric("AR", True, None, everything, most))
        metrics += [Metric(f"AR{name}", True, threshold, everything, most) for name, threshold in by_threshold]
    else:
        metrics += [Metric(f"AR{count}", True, None, everything, count) for count in settings.max_detections]
    metrics += [Metric(f"AR{label}", True, None, label, most) for label in labels]
    return tuple(metrics)


def summary(accumulated: Accumulated) -> dict[str, float]:
    """The metrics by name, in COCO's order; -1 where no truth counts. See `metrics_of`."""
    return {metric.name: _value(accumulated, metric) for metric in metrics_of(accumulated.settings)}


def print_table(accumulated: Accumulated) -> str:
    """What pycocotools prints: a line a metric, each ended by a line feed."""
    thresholds = accumulated.settings.iou_thresholds
    every = f"{thresholds[0]:0.2f}:{thresholds[-1]:0.2f}"
    lines = []
    for metric in metrics_of(accumulated.settings):
        title, kind = ("Average Recall", "(AR)") if metric.recall else ("Average Precision", "(AP)")
        iou = every if metric.iou_threshold is None else f"{metric.iou_threshold:0.2f}"
        lines.append(
            f" {title:<18} {kind} @[ IoU={iou:<9} | area={metric.area:>6s} | maxDets={metric.max_detections:>3d} ]"
            f" = {_value(accumulated, metric):0.3f}\n"
        )
    return "".join(lines)


def per_category(
    accumulated: Accumulated,
    categories: Mapping[int, str],
    num_truths: Mapping[int, int],
    num_detections: Mapping[int, int],
) -> pa.Table:
    """A row a category, ascending: `category_id`, `category`, the metrics by name, `num_truths`, `num_detections`.

    A category without truths that count has -1. The mean over the others of `AP` is the summary's up to rounding, for
    the summary takes one mean over all that is under it.

    Args:
        categories: names by category id.
        num_truths: by category id; what is not there has none.
        num_detections: likewise.
    """
    ids = accumulated.settings.category_ids
    metrics = metrics_of(accumulated.settings)
    columns = {
        "category_id": pa.array(ids, pa.int32()),
        "category": pa.array([categories[number] for number in ids], pa.string()),
        **{
            metric.name: pa.array([_value(accumulated, metric, at) for at in range(len(ids))], pa.float64())
            for metric in metrics
        },
        "num_truths": pa.array([num_truths.get(number, 0) for number in ids], pa.int64()),
        "num_detections": pa.array([num_detections.get(number, 0) for number in ids], pa.int64()),
    }
    schema = pa.schema([pa.field(name, column.type, False) for name, column in columns.items()])
    return pa.Table.from_arrays(list(columns.values()), schema=schema)


def curves(accumulated: Accumulated, categories: Mapping[int, str]) -> pa.Table:
    """Precision over recall as rows of `CURVES`, by category, IoU threshold, recall.

    Those of AP: the first area range and the largest number of detections. All ranges and numbers would be twelve
    times the rows for curves that few look at. A category without truths has no curve and no rows.
    """
    settings = accumulated.settings
    # [T, R, K] to [K, T, R]; -1 fills a category's whole slot or none of it.
    precision = np.moveaxis(accumulated.precision[..., 0, -1], 2, 0)
    scores = np.moveaxis(accumulated.scores[..., 0, -1], 2, 0)
    kept = np.flatnonzero(precision[:, 0, 0] > -1)
    curve, points = len(RECALL_THRESHOLDS), len(settings.iou_thresholds) * len(RECALL_THRESHOLDS)
    rows = len(kept) * points
    ids = np.array(settings.category_ids, np.int32)[kept]
    names = pa.array([categories[number] for number in ids.tolist()], pa.string())
    columns = [
        np.repeat(ids, points),
        names.take(pa.array(np.repeat(np.arange(len(kept)), points))),
        np.tile(np.repeat(settings.iou_thresholds, curve), len(kept)),
        pa.repeat(settings.area_ranges[0].label, rows),
        np.full(rows, settings.max_detections[-1], np.int32),
        np.tile(RECALL_THRESHOLDS, len(kept) * len(settings.iou_thresholds)),
        precision[kept].ravel(),
        scores[kept].ravel(),
    ]
    return pa.Table.from_arrays([pa.array(column) for column in columns], schema=CURVES)


def _value(accumulated: Accumulated, metric: Metric, category: int | None = None) -> float:
    """The metric over all categories, or at one place on their axis; -1 where it has nothing to be a mean of."""
    settings = accumulated.settings
    labels = [area.label for area in settings.area_ranges]
    if metric.area not in labels:
        return -1.0
    array = accumulated.recall if metric.recall else accumulated.precision
    values = array[..., labels.index(metric.area), settings.max_detections.index(metric.max_detections)]
    if category is not None:
        values = values[..., category]
    if metric.iou_threshold is not None:
        values = values[np.array(settings.iou_thresholds) == metric.iou_threshold]
    # The order in which numpy adds, and so the last bit, is that of a C-ordered selection, as in pycocotools.
    values = values[values > -1]
    return float(np.mean(values)) if len(values) else -1.0
