"""How sure the difference of two evaluations is: a paired bootstrap over images.

Images are drawn with replacement, as many as there are, and COCO's numbers of both sides are taken from the same draw,
exactly: they are no means over images, so that nothing less than taking them again will do. The interval is the
percentile interval: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from beam_jobs.evaluation.overlaps import Flags, Floats, Ints
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.threshold_matches import ThresholdMatches
from beam_jobs.evaluation.weighted import WeightedEvaluation


@dataclass(frozen=True, slots=True)
class Interval:
    """Differences B − A with their confidence intervals, each float64 [N]; NaN where there is none."""

    a: Floats
    b: Floats
    low: Floats
    high: Floats

    @property
    def difference(self) -> Floats:
        """float64 [N], B − A."""
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two evaluations against the same truth.

    Args:
        metrics: in the order of `metrics_of`.
        categories: AP by category, in the order of the settings.
    """

    metrics: Interval
    categories: Interval


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """What one side has right and wrong in each image, int64 [images] each, over all classes."""

    right: Ints
    wrong: Ints
    missed: Ints

    @property
    def f1(self) -> Floats:
        """float64 [images]: 2 right / (2 right + wrong + missed); 1 where nothing is to be found and nothing was."""
        mistakes = self.wrong + self.missed
        total = 2 * self.right + mistakes
        f1: Floats = np.where(total > 0, 2 * self.right / np.maximum(total, 1), 1.0)
        return f1


def resamples(images: int, samples: int, seed: int) -> Iterator[Ints]:
    """How often each image is in each resample: int64 [images] that add up to `images`. The seed tells all."""
    generator = np.random.Generator(np.random.PCG64(seed))
    for _ in range(samples):
        yield np.bincount(generator.integers(0, images, images), minlength=images)


def compare(a: WeightedEvaluation, b: WeightedEvaluation, *, samples: int, seed: int, confidence: float) -> Comparison:
    """The numbers of both and intervals of their differences.

    Where a number does not exist in a resample (a class without truths) that resample says nothing about it.

    Args:
        a, b: of the same images and settings.
        confidence: of the intervals, between 0 and 1.

    Raises:
        ValueError: evaluations of different images or settings, or other numbers than these.
    """
    if a.images != b.images or a.settings != b.settings:
        raise ValueError("the two evaluations are of different images or settings")
    if a.images < 1 or samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"needs images, samples, and 0 < confidence < 1; got {a.images}, {samples}, {confidence}")
    once = np.ones(a.images, np.int64)
    exact_a, exact_b = a.numbers(once), b.numbers(once)
    metrics, categories = np.empty((samples, len(exact_a.metrics))), np.empty((samples, len(exact_a.category_ap)))
    # Two threads, a side each: numpy lets go of the interpreter in all that takes long.
    with ThreadPoolExecutor(1) as beside:
        for row, weights in enumerate(resamples(a.images, samples, seed)):
            pending = beside.submit(a.numbers, weights)
            of_b, of_a = b.numbers(weights), pending.result()
            metrics[row] = of_b.metrics - of_a.metrics
            categories[row] = of_b.category_ap - of_a.category_ap
    return Comparison(
        _interval(exact_a.metrics, exact_b.metrics, metrics, confidence),
        _interval(exact_a.category_ap, exact_b.category_ap, categories, confidence),
    )


def percentile_interval(values: Floats, confidence: float) -> Floats:
    """float64 [2, N]: the bounds that hold the middle share `confidence` of each column of float64 [S, N].

    NaN does not count; a column of nothing else has NaN as its bounds.
    """
    tail = (1 - confidence) / 2
    bounds = np.full((2, values.shape[1]), np.nan)
    known = ~np.isnan(values).all(axis=0)
    bounds[:, known] = np.nanquantile(values[:, known], [tail, 1 - tail], axis=0)
    return bounds


def count_images(
    matches: ThresholdMatches, settings: EvaluationSettings, images: int, *, iou_threshold: float, min_score: float
) -> ImageCounts:
    """What is right, wrong and missed in each image, of detections of a score of `min_score` or more.

    In the first area range. What is ignored (crowds) is neither. The matching is that of all detections: one of a lower
    score never takes a truth from one of a higher score.

    Raises:
        ValueError: `iou_threshold` is none of the settings'.
    """
    at = settings.iou_thresholds.index(iou_threshold)
    sure = matches.score >= min_score

    def per_image(rows: Ints, weights: Ints | None = None) -> Ints:
        chosen: Flags = sure[rows]
        counted = np.bincount(matches.image[rows[chosen]], None if weights is None else weights[chosen], images)
        return counted.astype(np.int64)

    hit = (matches.hit_area == 0) & (matches.hit_threshold == at)
    fix = (matches.fix_area == 0) & (matches.fix_threshold == at)
    right = per_image(matches.hit_row[hit])
    shown = per_image(np.flatnonzero(matches.within[0])) + per_image(matches.fix_row[fix], matches.fix_by[fix])
    truths = np.bincount(matches.truth_image[matches.truth_area == 0], minlength=images)
    return ImageCounts(right, shown - right, truths - right)


def _interval(a: Floats, b: Floats, differences: Floats, confidence: float) -> Interval:
    low, high = percentile_interval(differences, confidence)
    return Interval(a, b, low, high)
