"""Contents for tests of the reports: small, large, and hostile."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from beam_jobs.report.compare_content import CompareContent, Difference, ImageDifference
from beam_jobs.report.content import (
    RECALL_POINTS,
    CalibrationBin,
    CategoryRow,
    ClipContent,
    ClipRow,
    ClipsContent,
    Confusion,
    Curves,
    ErrorRow,
    EvaluationContent,
    FailureRow,
    FoundCategory,
    GalleryItem,
    Histogram,
    Metric,
    RunContent,
    Series,
    SizeRow,
    StepTimes,
    Timeline,
)
from beam_jobs.report.gallery import Marked, render

EVIL_CLASS = "<script>alert(1)</script>"
EVIL_FILE = '"><img src=x onerror=alert(1)>'
NAMES = ("person", EVIL_CLASS, "dog", "no truths", "<!--", "\u202egnp.exe", "a\x00b\ud800")
NAN = float("nan")
SCORES = Histogram(
    (0.0, 0.25, 0.5, 0.75, 1.0),
    (Series("true positive", (1, 2, 3, 4)), Series("false positive", (90, 3, 1, 0)), Series("ignored", (1, 0, 0, 0))),
)


def items() -> tuple[GalleryItem, ...]:
    pixels = np.full((90, 120, 3), 90, np.uint8)
    boxes = (
        Marked((10, 10, 60, 60), f"{EVIL_CLASS} 0.90", "detection", focus=True),
        Marked((12, 8, 64, 58), "a", "truth"),
    )
    picture = render(pixels, boxes)
    return (
        GalleryItem("false_positive", EVIL_FILE, (EVIL_CLASS,), f"{EVIL_CLASS} 0.90", picture),
        GalleryItem("false_positive", "gone.jpg", ("dog",), "dog 0.80", None, f"cannot be read: {EVIL_FILE}"),
        GalleryItem("missed", "b.jpg", ("person",), "person, 2,000 square pixels", picture),
    )


def evaluation(names: tuple[str, ...] = NAMES, *, gallery: tuple[GalleryItem, ...] | None = None) -> EvaluationContent:
    categories, curves = [], {}
    for i, name in enumerate(names):
        if name == "no truths":
            categories.append(CategoryRow(i, name, -1, -1, -1, (-1, -1), -1, 0, 5, -1, -1))
            continue
        ap = (i * 37 % 101) / 101
        categories.append(CategoryRow(i, name, ap, ap**0.5, ap**2, (-1, ap), ap, 1000 + i, 10 * i, ap, 0.5))
        falls = tuple(
            max(0.0, 1 - r * r / (1e4 * (ap + 0.01)) + 0.01 * np.sin(r * 7 + i)) for r in range(RECALL_POINTS)
        )
        curves[name] = (falls, tuple(0.8 * v for v in falls), tuple(0.6 * v for v in falls))
    size = len(names)
    counts = np.diag(np.arange(10, 10 + size + 1)).astype(np.int64)
    counts[-1, -1] = 0
    counts[0, 1 : size + 1 : 2] = 3
    mean = next(iter(curves.values()))
    return EvaluationContent(
        title=f"Evaluation of {EVIL_FILE}",
        model=EVIL_CLASS,
        facts=(("Ground truth", EVIL_FILE),),
        settings=(("IoU type", "bbox"),),
        counts=(("images", 12345), ("unseen images", 0)),
        summary=(
            Metric("AP", "IoU 0.50:0.95", 0.26449),
            Metric("AP50", "IoU 0.50", 0.4),
            Metric("AP small", "small", -1),
        ),
        sizes=(SizeRow("small", "area below 32²", -1, -1, 0), SizeRow("large", "above 96²", 0.5, 0.6, 7)),
        categories=tuple(categories),
        curves=Curves(("IoU 0.50", "IoU 0.75", "mean of 0.50:0.95"), mean, curves),
        confusion=Confusion(names, counts, "IoU ≥ 0.5"),
        score_bins=SCORES,
        calibration=(CalibrationBin(0, 0.5, 10, 0.25, 0.5), CalibrationBin(0.5, 1, 30, 0.75, 0.5)),
        errors=(ErrorRow("classification", "right place, wrong class", 0.03), ErrorRow("missed", "nothing there", 0.2)),
        gallery=items() if gallery is None else gallery,
        warnings=(f"2 images were not seen: {EVIL_FILE}",),
    )


def run() -> RunContent:
    return RunContent(
        title=EVIL_CLASS,
        model="coco-ssd",
        facts=(("Command", EVIL_FILE),),
        counts=(("pictures", 50), ("detections", 1234), ("failures", 2)),
        pictures_per_s=20.66,
        categories=(
            FoundCategory(1, "person", 1000, 40, 0.5, 0.99, (1, 2, 3, 994)),
            FoundCategory(2, EVIL_CLASS, 234, 10, 0.4, 0.9, (234, 0, 0, 0)),
        ),
        score_bins=Histogram(SCORES.edges, SCORES.series[:1]),
        boxes_per_picture=Histogram((0.0, 1.0, 5.0, float("inf")), (Series("pictures", (3, 40, 7)),)),
        failures=(FailureRow("truncated", "decode", 2, EVIL_CLASS, (EVIL_FILE, "b.jpg")),),
        steps=(StepTimes("infer", 2.6, 52.2, 44.7, 98.0, 1234.5),),
        stages=(("detect", 2.4), ("total", 17.2)),
        gallery=items()[:1],
        clips=clips(),
    )


def clips() -> ClipsContent:
    lanes = (("person", (1.0, 2.5, NAN, 0.0)), (EVIL_CLASS, (0.0, 0.0, NAN, 1.0)))
    shown = ClipContent(
        EVIL_FILE, "../out/annotated/a.mp4", Timeline((0.0, 1.0, 2.0, 3.0, 4.0), lanes, (1.5,)), items()
    )
    listed = (ClipRow(EVIL_FILE, 100, 0.0, 4.0, 350, 7, 12, ("person", EVIL_CLASS)),)
    nothing = ClipContent("empty.mp4", "", Timeline((0.0, 1.0), ()), ())
    return ClipsContent((*listed, ClipRow("empty.mp4", 3, 1.0, 2.0, 0, 0, 0, ())), (shown, nothing), 3, tracked=True)


def compare() -> CompareContent:
    rows = (
        Difference("AP", "IoU 0.50:0.95", 0.25, 0.27, 0.02, 0.01, 0.03),
        Difference(EVIL_CLASS, EVIL_FILE, 0.5, 0.4, -0.1, -0.2, -0.05),
        Difference("dog", "", 0.5, 0.5, 0.0, -0.1, 0.1),
        Difference("no truths", "", -1, -1, NAN, NAN, NAN),
    )
    return CompareContent(
        title="A against B",
        name_a=EVIL_FILE,
        name_b="b",
        facts=(("Model", EVIL_CLASS, "b"),),
        settings=(("Seed", "0"),),
        counts=(("images", 50),),
        metrics=rows,
        categories=rows,
        images=(ImageDifference(EVIL_FILE, 0.5, 0.9, 0.4, EVIL_CLASS),),
        image_metric="F1 at score ≥ 0.3",
        confidence=0.95,
        method="Bootstrap over images.",
        gallery=(
            replace(items()[0], kind="better", beside=items()[0].picture),
            replace(items()[1], kind="worse"),
        ),
    )
