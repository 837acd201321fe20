"""COCO's numbers of images that count any whole number of times, quickly enough to be taken a thousand times.

An image of weight w counts like w copies of it whose equal detections stand next to each other. With all weights 1 the
numbers are those of `metrics.summary`, to the bit.

Source of the arithmetic: `accumulate` and `summarize` of pycocotools' cocoeval.py. What makes it quick: precision is at
its local maxima where a true positive is that no other follows at once, so that only there it needs to be known, and of
all detections no more than a running sum of weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beam_jobs.evaluation.curves import least_found
from beam_jobs.evaluation.metrics import Metric, metrics_of
from beam_jobs.evaluation.overlaps import Floats, Ints
from beam_jobs.evaluation.settings import RECALL_THRESHOLDS, EvaluationSettings
from beam_jobs.evaluation.threshold_matches import ThresholdMatches

#: Segments share a block if the shortest is at least this part of the longest: fewer blocks against less that is empty.
_ALIKE = 0.7
#: Shorter rows share one.
_SHORT = 8


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
    """An evaluation of one side, prepared once for many weightings. About 130 bytes a detection.

    `work` is what one weighting takes, in detections and points of curves, which take about the same time each.
    """

    def __init__(self, settings: EvaluationSettings, matches: ThresholdMatches, images: int) -> None:
        """For the images 0..images-1 of `matches`."""
        self.settings = settings
        self.images = images
        #: int64 [K], images with a truth of the category that counts in the first area range.
        self.images_with_truths = _images_with_truths(matches, len(settings.category_ids), images)
        self._metrics = metrics_of(settings)
        self._labels = [area.label for area in settings.area_ranges]
        # Ties of score go by image, then as in the image.
        order = np.lexsort((matches.image, -matches.score, matches.slot))
        self._areas = [_Area(settings, matches, order, area, images) for area in range(len(self._labels))]
        self.work = len(matches.image) + sum(area.points for area in self._areas)

    def numbers(self, weights: Ints) -> Numbers:
        """The numbers with these weights, int64 [images], 0 or more."""
        padded = np.append(weights, 0)
        found = [area.curves(padded) for area in self._areas]
        values = []
        for metric in self._metrics:
            if metric.area not in self._labels:
                values.append(np.nan)
                continue
            at = self._labels.index(metric.area)
            precision, right, truths = found[at]
            if not metric.recall:
                values.append(self._mean(precision, truths, metric))
            else:
                if metric.max_detections != self.settings.max_detections[-1]:
                    right = right - self._areas[at].beyond(padded, metric.max_detections)
                with np.errstate(invalid="ignore", divide="ignore"):
                    values.append(self._mean(right / truths, truths, metric))
        precision, _, truths = found[0]
        per_class = np.ascontiguousarray(precision.transpose(2, 0, 1)).reshape(len(truths), -1).mean(axis=1)
        category_ap = np.full(len(self.settings.category_ids), np.nan)
        category_ap[self._areas[0].slots] = np.where(truths > 0, per_class, np.nan)
        return Numbers(np.array(values), category_ap)

    def _mean(self, values: Floats, truths: Ints, metric: Metric) -> float:
        """Over [T, …, K'], in the order in which pycocotools adds."""
        if metric.iou_threshold is not None:
            values = values[np.array(self.settings.iou_thresholds) == metric.iou_threshold]
        if not truths.all():
            values = values[..., truths > 0]
        return float(np.mean(values.ravel())) if values.size else np.nan


class _Area:
    """One area range.

    A segment is an IoU threshold and a category: a mark at its start, and its true positives, best first. Of true
    positives without another detection that counts between them, the last has the best precision, whatever they weigh:
    they are one entry. The entries of a segment are a row; rows of like length are a block, that is gone through as a
    matrix. What a row has left over repeats its last entry.
    """

    def __init__(
        self, settings: EvaluationSettings, matches: ThresholdMatches, order: Ints, area: int, images: int
    ) -> None:
        # Of a small set of images most classes have no truths, and no numbers. One is left where none has any.
        truth = matches.truth_area == area
        wanted = np.bincount(matches.truth_slot[truth], minlength=len(settings.category_ids)) > 0
        wanted[0] |= not wanted.any()
        #: int64 [K'], the places of the classes that the curves are of.
        self.slots = np.flatnonzero(wanted)
        slot_of = np.cumsum(wanted) - 1
        slot, truth_slot = slot_of[matches.slot], slot_of[matches.truth_slot[truth]]
        order = order[wanted[matches.slot[order]]]

        categories, thresholds = len(self.slots), len(settings.iou_thresholds)
        self.points = thresholds * len(RECALL_THRESHOLDS) * categories
        segments = categories * thresholds
        place = np.zeros(len(matches.slot), np.int64)
        place[order] = np.arange(len(order))

        # Detections that count, but for the exceptions, in the order of their places.
        counted = order[matches.within[area, order]]
        self._counted_image = matches.image[counted]

        # The mark has the place before the first of its category, and an image that never counts.
        first = np.searchsorted(slot[order], np.arange(categories))
        hit = matches.hit_area == area
        rows, at = matches.hit_row[hit], matches.hit_threshold[hit]
        segment = np.append(at * categories + slot[rows], np.arange(segments))
        places = np.append(place[rows], np.tile(first, thresholds) - 1)
        image = np.append(matches.image[rows], np.full(segments, images))
        rank = np.append(matches.rank[rows], np.full(segments, -1))
        by_segment = np.lexsort((places, segment))
        segment, places, image, rank = (column[by_segment] for column in (segment, places, image, rank))
        until = np.searchsorted(place[counted], places, "right")

        fix = (matches.fix_area == area) & wanted[matches.slot[matches.fix_row]]
        rows, by = matches.fix_row[fix], matches.fix_by[fix]
        # One number for segment and place: they are searched together.
        span = len(order) + 1
        key = (matches.fix_threshold[fix] * categories + slot[rows]) * span + place[rows]
        by_key = np.argsort(key, kind="stable")
        self._fix_image, self._fix_by = matches.image[rows][by_key], by[by_key]
        fixes = np.searchsorted(key[by_key], segment * span + places, "right")

        # A true positive is the only one that counts since the one before it: that one's entry goes on.
        goes_on = (segment[1:] == segment[:-1]) & (rank[:-1] >= 0) & (np.diff(until) + np.diff(fixes) == 1)
        is_last = np.append(~goes_on, True)
        length = np.bincount(segment[is_last], minlength=segments)
        by_length = np.argsort(-length, kind="stable")
        row = np.empty(segments, np.int64)
        row[by_length] = np.arange(segments)
        # In the order of the rows, so that the sums of weights ascend from one to the next.
        by_row = np.argsort(row[segment], kind="stable")
        self._image, rank, until, fixes = (column[by_row] for column in (image, rank, until, fixes))
        last, length = np.flatnonzero(is_last[by_row]), length[by_length]
        width, self._blocks = _blocks(length)
        start, entry = _sums(width)[:-1], _sums(length)[:-1]
        row_of = np.repeat(np.arange(segments), width)
        column = np.arange(len(row_of)) - start[row_of]
        at = last[entry[row_of] + np.minimum(column, length[row_of] - 1)]
        self._right, self._until, self._fixes = at + 1, until[at], fixes[at]
        self._start, self._end = (slots[row].reshape(thresholds, categories) for slots in (start, start + width - 1))

        self._beyond = {}
        for at_most in settings.max_detections[:-1]:
            many = np.flatnonzero(rank >= at_most)
            bounds = [np.searchsorted(many, self._right[side]) for side in (self._start, self._end)]
            self._beyond[at_most] = (self._image[many], *bounds)

        by_slot = np.argsort(truth_slot, kind="stable")
        self._truth_image = matches.truth_image[truth][by_slot]
        self._truth_bounds = np.searchsorted(truth_slot[by_slot], np.arange(categories + 1))

    def curves(self, padded: Ints) -> tuple[Floats, Ints, Ints]:
        """Precision float64 [T, R, K'], true positives int64 [T, K'], truths int64 [K'], of the classes in `slots`.

        Precision means nothing where there are no truths.

        Args:
            padded: weights, and a 0.
        """
        # `take` is quicker than indexing.
        truths = np.diff(_sums(padded.take(self._truth_image)).take(self._truth_bounds))
        right = _sums(padded.take(self._image)).take(self._right)
        shown = _sums(padded.take(self._counted_image)).take(self._until)
        if len(self._fix_by):
            shown += _sums(padded.take(self._fix_image) * self._fix_by).take(self._fixes)
        before = right.take(self._start)
        total = right.take(self._end) - before

        # Where each recall is reached: at the first entry that brings the sum to what it takes, else nowhere.
        takes = least_found(truths).T
        reached = takes <= total[:, None]
        at = np.cumsum(np.bincount(right)).take(before[:, None] + takes - 1, mode="clip")
        at[:, 0] = self._start

        for begin, end, width in self._blocks:
            for sums in (right, shown):
                block = sums[begin:end].reshape(-1, width)
                block -= block[:, :1].copy()
        precision = right / (shown + np.spacing(1))
        # The best from there on.
        for begin, end, width in self._blocks:
            block = precision[begin:end].reshape(-1, width)[:, ::-1]
            np.fmax.accumulate(block, axis=1, out=block)
        return np.where(reached, precision.take(at, mode="clip"), 0.0), total, truths

    def beyond(self, padded: Ints, at_most: int) -> Ints:
        """int64 [T, K']: the true positives that are not among so many detections of an image and category."""
        image, start, end = self._beyond[at_most]
        sums = _sums(padded.take(image))
        beyond: Ints = sums.take(end) - sums.take(start)
        return beyond


def _blocks(length: Ints) -> tuple[Ints, list[tuple[int, int, int]]]:
    """The width of each row, and of each block its first slot, the one after its last, and the width of its rows.

    Args:
        length: int64 [segments], entries of each row, descending, at least 1.
    """
    width = np.empty_like(length)
    blocks, first, begin = [], 0, 0
    while first < len(length):
        longest = int(length[first])
        end = int(np.searchsorted(-length, -_ALIKE * longest, "right")) if longest > _SHORT else len(length)
        width[first:end] = longest
        blocks.append((begin, begin + (end - first) * longest, longest))
        first, begin = end, blocks[-1][1]
    return width, blocks


def _images_with_truths(matches: ThresholdMatches, categories: int, images: int) -> Ints:
    counted = matches.truth_area == 0
    places = np.unique(matches.truth_slot[counted] * images + matches.truth_image[counted])
    return np.bincount(places // max(images, 1), minlength=categories)


def _sums(values: Ints) -> Ints:
    """int64 [N + 1]: the sum of what is before each place."""
    sums = np.zeros(len(values) + 1, np.int64)
    np.cumsum(values, out=sums[1:])
    return sums
