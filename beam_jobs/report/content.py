"""What the pages show, as plain data: whoever computes it fills these in. For two runs: `compare_content`.

Metrics are 0..1; -1 or NaN where one does not exist, as COCO has it. Names and texts are data, never markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

#: Points of a precision-recall curve: at recall 0, 0.01, … 1.
RECALL_POINTS = 101

GalleryKind = Literal["false_positive", "missed", "hit", "picture", "better", "worse"]


@dataclass(frozen=True, slots=True)
class Metric:
    """A row of the summary: `AP50`, what it is in words, its value; headlines are also shown above the table."""

    name: str
    description: str
    value: float
    headline: bool = False


@dataclass(frozen=True, slots=True)
class CategoryRow:
    """The metrics of a class. `ap_by_area` goes with `EvaluationContent.sizes`."""

    category_id: int
    name: str
    ap: float
    ap50: float
    ap75: float
    ap_by_area: tuple[float, ...]
    ar: float
    truths: int
    detections: int
    best_f1: float
    best_threshold: float


@dataclass(frozen=True, slots=True)
class SizeRow:
    """The metrics of truths of a size: `small`, in words (`area below 32²`), and how many truths it has."""

    label: str
    description: str
    ap: float
    ar: float
    truths: int


@dataclass(frozen=True, slots=True)
class Curves:
    """Precision by recall.

    Args:
        labels: one a line: `IoU 0.50`, `IoU 0.75`, `mean of 0.50:0.95`.
        mean: over the classes: for each label, the precision at `RECALL_POINTS`.
        categories: the same by class name; a class without truths is left out.

    Raises:
        ValueError: lines that are not as many as the labels, or not of `RECALL_POINTS` each.
    """

    labels: tuple[str, ...]
    mean: tuple[Sequence[float], ...]
    categories: Mapping[str, tuple[Sequence[float], ...]]

    def __post_init__(self) -> None:
        for name, lines in (("the mean", self.mean), *self.categories.items()):
            lengths = [len(line) for line in lines]
            if lengths != [RECALL_POINTS] * len(self.labels):
                raise ValueError(f"{name} must have {len(self.labels)} lines of {RECALL_POINTS}, got {lengths}")


@dataclass(frozen=True, slots=True, eq=False)
class Confusion:
    """Which truth was detected as what.

    Args:
        names: N classes; the background is not among them.
        counts: int [N+1, N+1]: rows are truths, columns detections, the background is last: its row holds detections
            without a truth, its column truths without a detection.
        note: how it was made (`IoU ≥ 0.5, score ≥ 0.25`).
    """

    names: tuple[str, ...]
    counts: NDArray[np.int64]
    note: str = ""

    def __post_init__(self) -> None:
        size = len(self.names) + 1
        if self.counts.shape != (size, size):
            raise ValueError(f"counts must be [{size}, {size}], got {list(self.counts.shape)}")


@dataclass(frozen=True, slots=True)
class Series:
    """The counts of one kind of thing in the bins of a histogram."""

    label: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts by bins: N+1 ascending edges, and one to three series of N counts, stacked in this order."""

    edges: tuple[float, ...]
    series: tuple[Series, ...]

    def __post_init__(self) -> None:
        for series in self.series:
            if len(series.counts) != len(self.edges) - 1:
                raise ValueError(f"{series.label} must have {len(self.edges) - 1} counts, got {len(series.counts)}")

    def above(self, edge: float) -> Histogram:
        """The bins that begin at `edge` or above it."""
        first = next((i for i, low in enumerate(self.edges[:-1]) if low >= edge), len(self.edges) - 1)
        series = tuple(Series(one.label, one.counts[first:]) for one in self.series)
        return Histogram(self.edges[first:], series)

    @property
    def highest(self) -> int:
        """The largest count of a bin, all series together."""
        return max((sum(column) for column in zip(*(one.counts for one in self.series), strict=True)), default=0)


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Detections of a score between `low` and `high`: their mean score, and the share of them that is right."""

    low: float
    high: float
    detections: int
    mean_score: float
    precision: float


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """A kind of error, and the AP that would be gained without it."""

    name: str
    description: str
    delta_ap: float


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded JPEG, boxes drawn, and its size in pixels."""

    jpeg: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class GalleryItem:
    """A picture with what there is to see on it. Where there is none, `missing` says why.

    Args:
        beside: the picture as B has it, where `picture` is as A has it.
    """

    kind: GalleryKind
    file_name: str
    categories: tuple[str, ...]
    caption: str
    picture: Picture | None
    missing: str = ""
    beside: Picture | None = None


@dataclass(frozen=True, slots=True)
class EvaluationContent:
    """A run against its ground truth.

    Args:
        facts: of the run (detections, ground truth, versions, …); name and value.
        settings: of the evaluation; name and value.
        counts: images, truths, detections, ignored categories, unseen images, …; name and number.
        warnings: what people should know first, one line each.
        summary: COCO's rows in COCO's order; of the headlines (without any: of all) the first is shown largest.
        sizes: in the order of `CategoryRow.ap_by_area`; without the one over all sizes.
        score_bins: true positives, false positives, ignored, in this order.
        curves, confusion, score_bins: None, and calibration, errors, gallery: empty where there is none.
        errors_note: how the breakdown was made.
        gallery_note: why there is no gallery.
    """

    title: str
    model: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    counts: tuple[tuple[str, int], ...]
    summary: tuple[Metric, ...]
    sizes: tuple[SizeRow, ...]
    categories: tuple[CategoryRow, ...]
    curves: Curves | None = None
    confusion: Confusion | None = None
    score_bins: Histogram | None = None
    calibration: tuple[CalibrationBin, ...] = ()
    errors: tuple[ErrorRow, ...] = ()
    errors_note: str = ""
    gallery: tuple[GalleryItem, ...] = ()
    gallery_note: str = ""
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for row in self.categories:
            if len(row.ap_by_area) != len(self.sizes):
                raise ValueError(f"{row.name} must have {len(self.sizes)} ap_by_area, got {len(row.ap_by_area)}")


@dataclass(frozen=True, slots=True)
class FoundCategory:
    """How often a class was found. `scores` are counts in the bins of `RunContent.score_bins`."""

    category_id: int
    name: str
    detections: int
    images: int
    mean_score: float
    max_score: float
    scores: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FailureRow:
    """Inputs that gave no result for one reason, with some of their names."""

    code: str
    stage: str
    count: int
    message: str
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Milliseconds a picture of a step (`read`, `decode`, `infer`), and its seconds over all processes."""

    name: str
    total_s: float
    mean_ms: float
    median_ms: float
    p95_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class ClipRow:
    """A clip in the list of clips.

    Args:
        frames: those that were looked at.
        begin_s, end_s: from the first of them to the end of the last.
        most: detections in the frame with most.
        tracks: objects that were followed; 0 where none were to be.
        classes: the most frequent first; some of them.
    """

    video: str
    frames: int
    begin_s: float
    end_s: float
    detections: int
    most: int
    tracks: int
    classes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """When something was found in a clip.

    Args:
        edges: N + 1 ascending times in seconds.
        lanes: class by class, its mean number of objects a frame in each of the N bins; NaN where no frame was.
        stills: times in seconds of the frames that are shown.
    """

    edges: tuple[float, ...]
    lanes: tuple[tuple[str, tuple[float, ...]], ...]
    stills: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class ClipContent:
    """A clip that is shown, or a live stream, which has no stills: it cannot be read again.

    Args:
        annotated: a link to its annotated video; empty without one.
    """

    video: str
    annotated: str
    timeline: Timeline
    stills: tuple[GalleryItem, ...]
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class ClipsContent:
    """The clips of a run: those that are listed, by name, and those of them that are shown.

    Args:
        all: how many there are.
        tracked: objects were followed.
    """

    listed: tuple[ClipRow, ...] = ()
    shown: tuple[ClipContent, ...] = ()
    all: int = 0
    tracked: bool = False


@dataclass(frozen=True, slots=True)
class RunContent:
    """What a run found, without ground truth.

    Args:
        facts: model, versions, machine, start and end; name and value.
        counts: pictures, detections, failures, …; name and number.
        min_score: the least score of what is counted and drawn; `score_bins` and `FoundCategory.scores` are of all.
        low_scored: detections of lower scores.
        pictures_per_s: over the stage that detects; None where it is not known.
        steps: the last is all of them together.
        total_s: of the run, which the seconds of its `stages` add up to.
        steps_note: what the steps are of.
        gallery: of pictures; frames are with their clips.
        boxes_per_picture: edges are whole numbers; a bin holds low <= boxes < high.
    """

    title: str
    model: str
    facts: tuple[tuple[str, str], ...]
    counts: tuple[tuple[str, int], ...]
    pictures_per_s: float | None
    categories: tuple[FoundCategory, ...]
    score_bins: Histogram
    boxes_per_picture: Histogram
    failures: tuple[FailureRow, ...] = ()
    min_score: float = 0.0
    low_scored: int = 0
    steps: tuple[StepTimes, ...] = ()
    steps_note: str = ""
    stages: tuple[tuple[str, float], ...] = ()
    total_s: float | None = None
    gallery: tuple[GalleryItem, ...] = ()
    warnings: tuple[str, ...] = ()
    clips: ClipsContent = ClipsContent()
