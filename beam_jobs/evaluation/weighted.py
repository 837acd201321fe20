"""COCO's numbers of images that count any whole number of times, quickly enough to be taken a thousand times.

An image of weight w counts like w copies of it whose equal detections stand next to each other. With all weights 1 the
numbers are those of `metrics.summary`, to the bit.

Source of the arithmetic: `accumulate` and `summarize` of pycocotools' cocoeval.py. What makes it quick: precision is at
its local maxima where a true positive is, so that only there it needs to be known, and of all detections no more than
a running sum of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beam_jobs.evaluation.curves import least_found
from beam_jobs.evaluation.metrics import Metric, metrics_of
from beam_jobs.evaluation.overlaps import Floats, Ints
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.threshold_matches import ThresholdMatches


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers of one weighting.

    Args:
        metrics: float64 [number of `metrics_of`]; NaN where no truth counts.
        category_ap: float64 [K], AP by category; NaN where no truth counts.
    """

    metrics: Floats
    category_ap: Floats


class WeightedEvaluation:
    """An evaluation of one side, prepared once for many weightings. About 100 bytes a detection."""

    def __init__(self, settings: EvaluationSettings, matches: ThresholdMatches, images: int) -> None:
        """For the images 0..images-1 of `matches`."""
        self.settings = settings
        self.images = images
        self._metrics = metrics_of(settings)
        self._labels = [area.label for area in settings.area_ranges]
        # Ties of score go by image, then as in the image.
        order = np.lexsort((matches.image, -matches.score, matches.slot))
        self._areas = [_Area(settings, matches, order, area, images) for area in range(len(self._labels))]

    def numbers(self, weights: Ints) -> Numbers:
        """The numbers with these weights, int64 [images], 0 or more."""
        padded = np.append(weights, 0)
        found = [area.curves(padded) for area in self._areas]
        precision, _, truths = found[0]
        per_class = precision.reshape(len(truths), -1).mean(axis=1)
        values = []
        for metric in self._metrics:
            if metric.area not in self._labels:
                values.append(np.nan)
                continue
            at = self._labels.index(metric.area)
            precision, recall, truths = found[at]
            known = truths > 0
            if not metric.recall:
                values.append(self._mean(np.moveaxis(precision[known], 0, -1), metric))
            else:
                if metric.max_detections != self.settings.max_detections[-1]:
                    recall = self._areas[at].recall(padded, metric.max_detections, truths)
                values.append(self._mean(recall[known].T, metric))
        return Numbers(np.array(values), np.where(found[0][2] > 0, per_class, np.nan))

    def _mean(self, values: Floats, metric: Metric) -> float:
        """Over [T, …, K], in the order in which pycocotools adds."""
        if metric.iou_threshold is not None:
            values = values[np.array(self.settings.iou_thresholds) == metric.iou_threshold]
        return float(np.mean(np.ascontiguousarray(values).ravel())) if values.size else np.nan


class _Area:
    """One area range. A segment is a category and an IoU threshold: its true positives, best first, and an end mark."""

    def __init__(
        self, settings: EvaluationSettings, matches: ThresholdMatches, order: Ints, area: int, images: int
    ) -> None:
        self._shape = (len(settings.category_ids), len(settings.iou_thresholds))
        categories, thresholds = self._shape
        segments = categories * thresholds
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))

        # Detections that count, but for the exceptions, in the order of their places.
        counted = order[matches.within[area, order]]
        self._counted_image = matches.image[counted]
        counted_place = place[counted]

        # The end mark has the place after the last of its category, and an image that never counts.
        last = np.searchsorted(matches.slot[order], np.arange(categories), "right")
        first = np.searchsorted(matches.slot[order], np.arange(categories), "left")
        hit = matches.hit_area == area
        rows, at = matches.hit_row[hit], matches.hit_threshold[hit]
        segment = np.append(matches.slot[rows] * thresholds + at, np.arange(segments))
        places = np.append(place[rows], np.repeat(last, thresholds))
        image = np.append(matches.image[rows], np.full(segments, images))
        by_segment = np.lexsort((places, segment))
        rank = np.append(matches.rank[rows], np.full(segments, -1))[by_segment]
        segment, places, self._image = segment[by_segment], places[by_segment], image[by_segment]
        self._end = np.searchsorted(segment, np.arange(segments), "right") - 1
        self._start = np.append(0, self._end[:-1] + 1)
        self._length = self._end - self._start + 1
        # For recalls with fewer detections than precision has; end marks keep each segment from being empty.
        self._few = {}
        for at_most in settings.max_detections[:-1]:
            few = np.flatnonzero(rank < at_most)
            self._few[at_most] = (self._image[few], np.searchsorted(few, self._start))
        self._until = np.searchsorted(counted_place, places, "right")
        self._until_start = np.repeat(np.searchsorted(counted_place, first), thresholds)

        fix = matches.fix_area == area
        rows, by = matches.fix_row[fix], matches.fix_by[fix]
        # One number for segment and place: they are searched together.
        span = len(order) + 1
        key = (matches.slot[rows] * thresholds + matches.fix_threshold[fix]) * span + place[rows]
        by_key = np.argsort(key, kind="stable")
        self._fix_image, self._fix_by = matches.image[rows][by_key], by[by_key]
        self._fixes = np.searchsorted(key[by_key], segment * span + places, "right")
        self._fixes_start = np.searchsorted(key[by_key], np.arange(segments) * span)

        truth = matches.truth_area == area
        slots, owners = matches.truth_slot[truth], matches.truth_image[truth]
        by_slot = np.argsort(slots, kind="stable")
        self._truth_image = owners[by_slot]
        self._truth_bounds = np.searchsorted(slots[by_slot], np.arange(categories + 1))

    def curves(self, padded: Ints) -> tuple[Floats, Floats, Ints]:
        """Precision float64 [K, T, R], recall float64 [K, T], truths int64 [K]; nothing is meant where there are none.

        Args:
            padded: weights, and a 0.
        """
        # `take` is quicker than indexing, and lets other threads run.
        truths = np.diff(_sums(padded.take(self._truth_image)).take(self._truth_bounds))
        counted = _sums(padded.take(self._counted_image))
        weight = padded.take(self._image)
        right = _sums(weight)
        before = right.take(self._start)
        shown = counted.take(self._until)
        start = counted.take(self._until_start)
        if len(self._fix_by):
            fixes = _sums(padded.take(self._fix_image) * self._fix_by)
            shown += fixes.take(self._fixes)
            start += fixes.take(self._fixes_start)
        shown -= np.repeat(start, self._length)
        with np.errstate(invalid="ignore", divide="ignore"):
            precision = (right[1:] - np.repeat(before, self._length)) / (shown + np.spacing(1))
            total = (right.take(self._end + 1) - before).reshape(self._shape)
            recall = total / truths[:, None]
        precision[self._end] = 0.0

        # Where each recall is reached: at the first true positive that brings the sum to what it takes.
        entry_of = np.append(np.repeat(np.arange(len(weight)), weight), 0)
        takes = least_found(truths)[:, None, :]
        reached = takes <= total[..., None]
        at = before.reshape(self._shape)[..., None] + takes - 1
        at = entry_of.take(at, mode="clip")
        np.copyto(at, self._end.reshape(self._shape)[..., None], where=~reached)
        at[..., 0] = self._start.reshape(self._shape)
        # The best from there on: over the entries up to the next recall, then over the recalls.
        best = np.maximum.reduceat(precision, at.ravel()).reshape(at.shape)
        return np.maximum.accumulate(best[..., ::-1], axis=-1)[..., ::-1], recall, truths

    def recall(self, padded: Ints, at_most: int, truths: Ints) -> Floats:
        """float64 [K, T]: the recall with so many detections an image and category."""
        image, start = self._few[at_most]
        right = np.add.reduceat(padded.take(image), start).reshape(self._shape)
        with np.errstate(invalid="ignore", divide="ignore"):
            recall: Floats = right / truths[:, None]
        return recall


def _sums(values: Ints) -> Ints:
    """int64 [N + 1]: the sum of what is before each place."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums
