"""Two sets of detections that have been compared, and what everything that is written or shown takes from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.cli.sides import repeats
from beam_jobs.evaluation.bootstrap import FEW_IMAGES, Comparison, ImageCounts, Interval
from beam_jobs.evaluation.metrics import metrics_of
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.formats.evaluated import GroundTruth
from beam_jobs.words import counted

#: Images that are listed as those that changed most, in each direction.
LISTED = 25

_COUNTS = ("right", "wrong", "missed")
_SIDE_COUNTS = ("detections", "repeated_detections", "other_categories", "unknown_images", "repeated_images")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two.

    Args:
        source: as the user named it.
        seen: bool [images of the truth], whether the results have the image; COCO results have none without detections.
        counts: by image of the truth.
        detections: of classes that are evaluated; others are `other_categories`.
    """

    source: str
    seen: NDArray[np.bool_]
    counts: ImageCounts
    detections: int
    other_categories: int
    unknown_images: int
    unknown_examples: tuple[str, ...]
    repeated_images: int
    repeated_detections: int


@dataclass(frozen=True, slots=True)
class Compared:
    """A comparison that is done."""

    settings: EvaluationSettings
    truth: GroundTruth
    ground_truth: str
    a: Side
    b: Side
    comparison: Comparison
    samples: int
    seed: int
    confidence: float
    image_iou: float
    image_score: float

    @property
    def image_measure(self) -> str:
        """What is compared by image, in words."""
        overlap = "OKS" if self.settings.iou_type == "keypoints" else "IoU"
        return f"F1 at {overlap} ≥ {self.image_iou:g} and score ≥ {self.image_score:g}"

    @property
    def unchanged(self) -> str:
        """What is said where no image changed."""
        return f"no image is better or worse in B than in A, by {self.image_measure}"

    @property
    def method(self) -> str:
        """How the intervals were made, in words."""
        samples = counted(self.samples, "paired bootstrap sample")
        return (
            f"Percentile intervals of {samples} of the {counted(self.truth.images.num_rows, 'image')}, seed"
            f" {self.seed}; none for classes with truths in fewer than {FEW_IMAGES} images."
        )

    @property
    def counts(self) -> dict[str, int]:
        """Images and detections, and what was left out."""
        a, b = self.a, self.b
        return {
            "images": self.truth.images.num_rows,
            "images_of_both": int((a.seen & b.seen).sum()),
            "images_of_a_only": int((a.seen & ~b.seen).sum()),
            "images_of_b_only": int((b.seen & ~a.seen).sum()),
            "images_of_neither": int((~a.seen & ~b.seen).sum()),
            **{f"{name}_{side}": getattr(one, name) for name in _SIDE_COUNTS for side, one in (("a", a), ("b", b))},
        }

    def warnings(self) -> list[str]:
        """What people should know first."""
        counts, found = self.counts, list(self.truth.warnings)
        for name, other in (("A", "B"), ("B", "A")):
            if only := counts[f"images_of_{name.lower()}_only"]:
                these = counted(only, "image is", "images are")
                found.append(f"{these} in {name} only: for {other} their truths count as missed")
        if neither := counts["images_of_neither"]:
            these = counted(neither, "image of the ground truth is", "images of the ground truth are")
            found.append(f"{these} in neither; their truths count as missed by both")
        for name, side in (("A", self.a), ("B", self.b)):
            if side.unknown_images:
                examples = f": {', '.join(side.unknown_examples)}" if side.unknown_examples else ""
                these = counted(side.unknown_images, f"image of {name} is", f"images of {name} are")
                found.append(f"{these} not in the ground truth{examples}")
            if side.repeated_images:
                these = counted(side.repeated_images, f"image of {name} was", f"images of {name} were")
                found.append(f"{these} left out, for others are of the same image of the truth")
            if side.other_categories:
                these = counted(side.other_categories, f"detection of {name} is", f"detections of {name} are")
                found.append(f"{these} of classes that are not compared")
            if side.repeated_detections:
                found.append(repeats(side.repeated_detections, name))
        return found


def image_table(compared: Compared) -> pa.Table:
    """A row an image of the truth, ascending by image_id: what each side has right, wrong and missed, F1, B − A."""
    images = compared.truth.images
    columns: dict[str, Any] = {name: images[name].combine_chunks() for name in ("image_id", "file_name")}
    columns["truths"] = compared.a.counts.right + compared.a.counts.missed
    for name, side in (("a", compared.a), ("b", compared.b)):
        columns[f"seen_{name}"] = side.seen
        columns |= {f"{what}_{name}": getattr(side.counts, what) for what in _COUNTS}
        columns[f"f1_{name}"] = side.counts.f1
    columns["difference"] = compared.b.counts.f1 - compared.a.counts.f1
    table = pa.table({name: pa.array(column) for name, column in columns.items()})
    return table.cast(pa.schema([field.with_nullable(False) for field in table.schema]))


def changed(compared: Compared) -> list[dict[str, Any]]:
    """The rows of the images that changed most: first those that gained, then those that lost.

    By F1, then by the number of mistakes, then by image_id.
    """
    a, b = compared.a.counts, compared.b.counts
    differences = b.f1 - a.f1
    fewer = a.wrong + a.missed - b.wrong - b.missed
    gained = np.lexsort((-fewer, -differences))
    lost = np.lexsort((fewer, differences))
    some = [gained[differences[gained] > 0][:LISTED], lost[differences[lost] < 0][:LISTED]]
    rows: list[dict[str, Any]] = image_table(compared).take(pa.array(np.concatenate(some))).to_pylist()
    return rows


def metric_rows(compared: Compared) -> Iterator[tuple[Any, ...]]:
    """Of each metric the `Metric` and its numbers, as `rows_of` has them."""
    yield from (
        (metric, *row)
        for metric, row in zip(metrics_of(compared.settings), rows_of(compared.comparison.metrics), strict=True)
    )


def rows_of(interval: Interval) -> list[tuple[float, ...]]:
    """A, B, B − A, low, high of each."""
    columns = (interval.a, interval.b, interval.difference, interval.low, interval.high)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def note(row: dict[str, Any]) -> str:
    """What changed in an image, in words; of a row of `image_table`."""
    return ", ".join(f"{what} {row[f'{what}_a']} → {row[f'{what}_b']}" for what in _COUNTS)
