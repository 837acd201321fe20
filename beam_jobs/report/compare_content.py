"""What the page of two runs shows, as plain data; see `content`."""

from __future__ import annotations

from dataclasses import dataclass

from beam_jobs.report.content import GalleryItem


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of two runs: B − A, and the bounds of its confidence interval. NaN where one does not exist."""

    name: str
    description: str
    a: float
    b: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ImageDifference:
    """A metric of two runs on one image, and what changed in words."""

    file_name: str
    a: float
    b: float
    difference: float
    note: str


@dataclass(frozen=True, slots=True)
class CompareContent:
    """Two runs against one ground truth.

    Args:
        name_a, name_b: short: they head columns.
        facts: name, value of A, value of B.
        metrics: COCO's rows; the first is the one that is shown largest.
        categories: AP by class.
        image_metric: what is compared by image (`F1 at score ≥ 0.3`).
        confidence: of the intervals, 0..1; `method` says how they were made.
        gallery: of kind `better` and `worse`; `gallery_note` says why there is none.
    """

    title: str
    name_a: str
    name_b: str
    facts: tuple[tuple[str, str, str], ...]
    settings: tuple[tuple[str, str], ...]
    counts: tuple[tuple[str, int], ...]
    metrics: tuple[Difference, ...]
    categories: tuple[Difference, ...]
    images: tuple[ImageDifference, ...]
    image_metric: str
    confidence: float
    method: str = ""
    gallery: tuple[GalleryItem, ...] = ()
    gallery_note: str = ""
    warnings: tuple[str, ...] = ()
