"""How sure the difference of two evaluations is: a paired bootstrap over images.

Images are drawn with replacement, as many as there are, and COCO's numbers of both sides are taken from the same draw,
exactly: they are no means over images, so that nothing less than taking them again will do. The interval is the
percentile interval: B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from beam_jobs.evaluation.overlaps import Flags, Floats, Ints
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.threshold_matches import ThresholdMatches
from beam_jobs.evaluation.weighted import WeightedEvaluation

#: Resamples that are done at once: at COCO's size a fifth of a second.
SLICE = 10


#: Of fewer images, resamples are so much alike that an interval would claim what nobody knows: of one, it has no width.
FEW_IMAGES = 10


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


@dataclass(frozen=True, slots=True)
class Differences:
    """B − A in some resamples, of the numbers of `Numbers`: float64 [S, metrics] and [S, K]."""

    metrics: Floats
    categories: Floats


@dataclass(frozen=True, slots=True)
class Pair:
    """Two evaluations of the same images and settings.

    Raises:
        ValueError: they are of others.
    """

    a: WeightedEvaluation
    b: WeightedEvaluation

    def __post_init__(self) -> None:
        if self.a.images != self.b.images or self.a.settings != self.b.settings:
            raise ValueError("the two evaluations are of different images or settings")

    def differences(self, weights: Ints) -> Differences:
        """Of the resamples int64 [S, images]."""
        pairs = [(self.a.numbers(row), self.b.numbers(row)) for row in weights]
        return Differences(
            np.array([b.metrics - a.metrics for a, b in pairs]),
            np.array([b.category_ap - a.category_ap for a, b in pairs]),
        )


#: Takes the differences of slices of resamples, in their order: here, or in other processes.
Over = Callable[[Pair, Iterable[Ints]], Iterable[Differences]]


def in_turn(pair: Pair, slices: Iterable[Ints]) -> Iterator[Differences]:
    """An `Over` that does one slice after the other."""
    return map(pair.differences, slices)


def compare(pair: Pair, *, samples: int, seed: int, confidence: float, over: Over = in_turn) -> Comparison:
    """The numbers of both and intervals of their differences.

    Where a number does not exist in a resample (a class without truths) that resample says nothing about it. A class
    with truths in fewer than `FEW_IMAGES` images has no interval.

    Args:
        confidence: of the intervals, between 0 and 1.
        over: has no influence on the result.

    Raises:
        ValueError: other numbers than these.
    """
    images = pair.a.images
    if images < 1 or samples < 1 or not 0 < confidence < 1:
        raise ValueError(f"needs images, samples, and 0 < confidence < 1; got {images}, {samples}, {confidence}")
    once = np.ones(images, np.int64)
    exact_a, exact_b = pair.a.numbers(once), pair.b.numbers(once)
    found = list(over(pair, _slices(resamples(images, samples, seed))))
    of_categories = np.concatenate([one.categories for one in found])
    of_categories[:, pair.a.images_with_truths < FEW_IMAGES] = np.nan
    return Comparison(
        _interval(exact_a.metrics, exact_b.metrics, np.concatenate([one.metrics for one in found]), confidence),
        _interval(exact_a.category_ap, exact_b.category_ap, of_categories, confidence),
    )


def _slices(rows: Iterator[Ints]) -> Iterator[Ints]:
    while some := list(islice(rows, SLICE)):
        yield np.array(some)


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
