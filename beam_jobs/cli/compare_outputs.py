"""What a comparison writes: numbers as JSON, images as Parquet, a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import msgspec

from beam_jobs import storage
from beam_jobs.cli.compare_result import Compared, changed, image_table, metric_rows, note, rows_of
from beam_jobs.evaluation import outputs
from beam_jobs.evaluation.metrics import Metric
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.report.compare_content import CompareContent, Difference, ImageDifference
from beam_jobs.report.content import GalleryItem
from beam_jobs.runs.manifest import versions
from beam_jobs.words import counted

NUMBERS, IMAGES, PAGE = "compare.json", "compare_images.parquet", "compare.html"
FILES = (NUMBERS, IMAGES, PAGE)
VERSION = 1
_NO_PICTURES = (
    "No pictures: neither A nor B is the folder of a run, so that nothing says where the pictures are; "
    "--images DIR does."
)


class Number(msgspec.Struct, frozen=True):
    """A number of A and B, B − A and the bounds of its interval; null where one does not exist."""

    name: str
    a: float | None
    b: float | None
    difference: float | None
    low: float | None
    high: float | None
    category_id: int | None = None


class Numbers(msgspec.Struct, frozen=True):
    """The whole of `compare.json`.

    Args:
        metrics: in COCO's order.
        categories: AP by class, ascending by category_id.
        images: those that changed most, as rows of `compare_images.parquet`.
    """

    version: int
    a: str
    b: str
    ground_truth: str
    iou_type: str
    settings: dict[str, Any]
    samples: int
    seed: int
    confidence: float
    method: str
    counts: dict[str, int]
    metrics: list[Number]
    categories: list[Number]
    image_measure: str
    images: list[dict[str, Any]]
    warnings: list[str]
    versions: dict[str, str]


def write(root: str, compared: Compared, gallery: tuple[GalleryItem, ...] | None) -> None:
    """Writes the three files; the JSON is the last.

    Args:
        gallery: the images that changed most; None where nothing says where their pictures are.
    """
    from beam_jobs.report.compare_page import compare_page

    table = image_table(compared)
    outputs.write_parquet(root, IMAGES, table)
    storage.write_atomic(storage.join(root, PAGE), compare_page(content(compared, gallery)))
    data = msgspec.json.format(msgspec.json.encode(numbers(compared)), indent=1)
    storage.write_atomic(storage.join(root, NUMBERS), data + b"\n")


def numbers(compared: Compared) -> Numbers:
    """The content of `compare.json`."""
    names = compared.truth.categories
    ids = compared.settings.category_ids
    return Numbers(
        version=VERSION,
        a=compared.a.source,
        b=compared.b.source,
        ground_truth=compared.ground_truth,
        iou_type=compared.settings.iou_type,
        settings=outputs.describe(compared.settings, names),
        samples=compared.samples,
        seed=compared.seed,
        confidence=compared.confidence,
        method=compared.method,
        counts=compared.counts,
        metrics=[_number(metric.name, row) for metric, *row in metric_rows(compared)],
        categories=[
            _number(names[number], row, number)
            for number, row in zip(ids, rows_of(compared.comparison.categories), strict=True)
        ],
        image_measure=compared.image_measure,
        images=changed(compared),
        warnings=compared.warnings(),
        versions=versions(),
    )


def content(compared: Compared, gallery: tuple[GalleryItem, ...] | None) -> CompareContent:
    """What the page shows; see `write`."""
    settings, names = compared.settings, compared.truth.categories
    a, b = compared.a, compared.b
    return CompareContent(
        title="Comparison",
        name_a=_short(a.source, b.source, "A"),
        name_b=_short(b.source, a.source, "B"),
        facts=(
            ("Detections", a.source, b.source),
            ("Number of detections", f"{a.detections:,}", f"{b.detections:,}"),
            ("Images", f"{int(a.seen.sum()):,}", f"{int(b.seen.sum()):,}"),
        ),
        settings=(
            ("Ground truth", compared.ground_truth),
            ("IoU type", settings.iou_type),
            ("IoU thresholds", f"{settings.iou_thresholds[0]:.2f} to {settings.iou_thresholds[-1]:.2f}"),
            ("Classes", f"{len(settings.category_ids):,}"),
            ("Images compared by", compared.image_measure),
            ("Intervals", compared.method),
        ),
        counts=tuple((_spelled(name), number) for name, number in compared.counts.items() if number),
        metrics=tuple(
            Difference(metric.name, _in_words(metric, settings), *numbers) for metric, *numbers in metric_rows(compared)
        ),
        categories=tuple(
            Difference(names[number], "AP", *row)
            for number, row in zip(settings.category_ids, rows_of(compared.comparison.categories), strict=True)
        ),
        images=tuple(
            ImageDifference(row["file_name"], row["f1_a"], row["f1_b"], row["difference"], note(row))
            for row in changed(compared)
        ),
        image_metric=compared.image_measure,
        confidence=compared.confidence,
        method=compared.method,
        gallery=gallery or (),
        gallery_note=_NO_PICTURES if gallery is None else "" if gallery else f"No pictures: {compared.unchanged}.",
        warnings=tuple(compared.warnings()),
    )


def _number(name: str, row: Sequence[float], category_id: int | None = None) -> Number:
    a, b, difference, low, high = (None if math.isnan(value) else value for value in row)
    return Number(name, a, b, difference, low, high, category_id)


def _spelled(count: str) -> str:
    """`images_of_a_only` as `images of A only`."""
    return " ".join(word.upper() if word in ("a", "b") else word for word in count.split("_"))


def _short(source: str, other: str, letter: str) -> str:
    """The last name of a source, or the letter where both have the same."""
    names = [PurePath(one.rstrip("/")).name for one in (source, other)]
    return names[0] if names[0] and names[0] != names[1] else letter


def _in_words(metric: Metric, settings: EvaluationSettings) -> str:
    """As `Average precision, IoU 0.50:0.95, area small, 100 detections`."""
    first, last = settings.iou_thresholds[0], settings.iou_thresholds[-1]
    iou = f"{first:.2f}:{last:.2f}" if metric.iou_threshold is None else f"{metric.iou_threshold:.2f}"
    kind = "recall" if metric.recall else "precision"
    return f"Average {kind}, IoU {iou}, area {metric.area}, {counted(metric.max_detections, 'detection')}"
