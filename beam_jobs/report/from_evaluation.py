"""What the page of an evaluation shows, out of what an evaluation has in hand."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.evaluation import metrics
from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.diagnostics import DiagnosticsResult
from beam_jobs.evaluation.matching import MatchSettings
from beam_jobs.evaluation.outputs import MATCHES_FILE, REPORT, Metrics
from beam_jobs.evaluation.scores import Calibration
from beam_jobs.evaluation.settings import AreaRange, EvaluationSettings
from beam_jobs.formats.evaluated import GroundTruth
from beam_jobs.formats.image_join import Joined
from beam_jobs.formats.results import ResultSource
from beam_jobs.report.content import (
    CalibrationBin,
    CategoryRow,
    Confusion,
    Curves,
    ErrorRow,
    EvaluationContent,
    GalleryItem,
    Metric,
    SizeRow,
)
from beam_jobs.report.evaluation_gallery import PICKS, evaluation_gallery
from beam_jobs.report.evaluation_matches import rows_of, sum_matches
from beam_jobs.report.evaluation_page import evaluation_page
from beam_jobs.report.pictures import pictures_of, run_manifest
from beam_jobs.report.shapes import results_in, shapes_of
from beam_jobs.words import counted

#: A COCO area without an upper bound ends here.
_ENDLESS = 1e10
_ERRORS = {
    "classification": "right place, another class",
    "localisation": "right class, badly placed",
    "both": "another class, and badly placed",
    "duplicate": "a second detection of what is already found",
    "background": "no truth is there",
    "missed": "a truth that no detection is near",
    "false_positives": "all false positives together",
    "false_negatives": "all missed truths together",
}
#: Counts that are always shown, and one that never is, for it is as it should be; the others where there are any.
_COUNTS = ("images", "truths", "detections")
_AS_IT_SHOULD_BE = "joined_by_id"
_NO_RUN = (
    "No pictures: the detections are not the folder of a run, so that nothing says where the pictures are; "
    "--images DIR does."
)


@dataclass(frozen=True, slots=True)
class Sides:
    """What was evaluated, for the pictures of the page.

    Args:
        sources: of the results, with the image ids that `joined` knows.
        images: the folder of the truth's pictures, empty if nobody named one.
    """

    truth: GroundTruth
    sources: Sequence[ResultSource]
    joined: Joined
    images: str = ""


def write_report(
    root: str,
    written: Metrics,
    accumulated: Accumulated,
    by_category: pa.Table,
    diagnostics: DiagnosticsResult,
    sides: Sides,
) -> None:
    """Writes `report.html`. The matches are there already.

    Args:
        root: the folder of the evaluation.
        by_category: of `metrics.per_category`.
    """
    content = evaluation_content(root, written, accumulated, by_category, diagnostics, sides)
    storage.write_atomic(storage.join(root, REPORT), evaluation_page(content))


def evaluation_content(
    root: str,
    written: Metrics,
    accumulated: Accumulated,
    by_category: pa.Table,
    diagnostics: DiagnosticsResult,
    sides: Sides,
) -> EvaluationContent:
    """The content of the page; see `write_report`. The same for the same evaluation, wherever its files are."""
    settings = accumulated.settings
    matches = storage.join(root, MATCHES_FILE)
    manifest = run_manifest(written.detections)
    can_show = bool(manifest or sides.images)
    sums = sum_matches(matches, settings.area_ranges, PICKS if can_show else 0)
    names = _unique_names(by_category)
    gallery: tuple[GalleryItem, ...] = ()
    if can_show:
        rows = rows_of(matches, {pick.image_id for pick in sums.picks})
        runs = [(written.detections, manifest, sides.joined)]
        pictures = pictures_of(rows, sides.truth.images, runs, sides.images)
        found = results_in(sides.sources, sides.joined, rows)
        shapes = shapes_of(settings.iou_type, rows, sides.truth.objects, found)
        gallery = evaluation_gallery(rows, sums.picks, pictures, shapes, names, _overlap(settings))
    how = MatchSettings()
    at_iou = f"{_overlap(settings)} ≥ {how.iou_threshold}"
    ours = {"Detections": _name(written.detections), "Ground truth": _name(written.ground_truth)}
    if manifest:
        ours |= {"Model": f"{manifest.model.name} ({manifest.model.engine})", "Fingerprint": manifest.model.fingerprint}
    return EvaluationContent(
        title=f"{ours['Detections']} against {ours['Ground truth']}",
        model=manifest.model.name if manifest else settings.iou_type,
        facts=(*ours.items(), *written.versions.items()),
        settings=_settings(settings, written.engine),
        counts=tuple(
            (name.replace("_", " "), written.counts.get(name, 0))
            for name in (*_COUNTS, *(name for name in written.counts if name not in _COUNTS))
            if name in _COUNTS or (written.counts[name] and name != _AS_IT_SHOULD_BE)
        ),
        summary=_summary(settings, written.metrics),
        sizes=_sizes(settings, written.metrics, sums.truths),
        categories=_categories(settings, by_category, diagnostics.best_f1, names),
        curves=_curves(accumulated, names),
        confusion=Confusion(
            tuple(names[number] for number in diagnostics.category_ids),
            diagnostics.confusion,
            f"{at_iou}, score ≥ {how.confusion_score}",
        ),
        score_bins=sums.score_bins,
        calibration=_calibration(diagnostics.calibration),
        errors=tuple(
            ErrorRow(name.replace("_", " "), _ERRORS[name], gain) for name, gain in diagnostics.errors.delta_ap.items()
        ),
        errors_note=f"At {at_iou}. The gains do not add up: errors hide each other.",
        gallery=gallery,
        gallery_note="" if can_show else _NO_RUN,
        warnings=tuple(written.warnings),
    )


def _name(source: str) -> str:
    """The last part of a path; of a pattern also the folder: `detections/*.parquet`."""
    path = source if storage.is_remote(source) else os.path.abspath(source)
    parts = path.rstrip("/").split("/")
    return storage.display_name("/".join(parts[-2 if "*" in parts[-1] else -1 :]))


def _unique_names(by_category: pa.Table) -> dict[int, str]:
    """Names by category id; those that several have, with the id."""
    ids, names = by_category["category_id"].to_pylist(), by_category["category"].to_pylist()
    times = Counter(names)
    made: dict[int, str] = {}
    taken = {name for name in names if times[name] == 1}
    for number, name in zip(ids, names, strict=True):
        unique = name
        while times[name] > 1 and (unique == name or unique in taken):
            unique += f" ({number})"
        made[number] = unique
        taken.add(unique)
    return made


def _settings(settings: EvaluationSettings, engine: str) -> tuple[tuple[str, str], ...]:
    return (
        ("Compared by", settings.iou_type),
        ("IoU thresholds", ", ".join(f"{threshold:.4g}" for threshold in settings.iou_thresholds)),
        ("Area ranges", "; ".join(f"{area.label}: {_in_words(area)}" for area in settings.area_ranges)),
        ("Detections an image and class", ", ".join(map(str, settings.max_detections))),
        ("Classes", str(len(settings.category_ids))),
        ("Engine", engine),
    )


def _in_words(area: AreaRange) -> str:
    low, high = f"{area.low:,.6g}", f"{area.high:,.6g}"
    if area.high >= _ENDLESS:
        return f"from {low} square pixels" if area.low > 0 else "any area"
    return f"{low} to {high} square pixels" if area.low > 0 else f"up to {high} square pixels"


def _overlap(settings: EvaluationSettings) -> str:
    return "OKS" if settings.iou_type == "keypoints" else "IoU"


def _recall_name(settings: EvaluationSettings) -> str:
    """The average recall that goes with AP."""
    return "AR" if settings.iou_type == "keypoints" else f"AR{settings.max_detections[-1]}"


def _summary(settings: EvaluationSettings, values: Mapping[str, float]) -> tuple[Metric, ...]:
    first = {"AP", "AP50", "AP75", _recall_name(settings)}
    thresholds = settings.iou_thresholds
    overlap = _overlap(settings)
    every = f"{thresholds[0]:.2f}:{thresholds[-1]:.2f}"
    rows = []
    for one in metrics.metrics_of(settings):
        kind = "average recall" if one.recall else "average precision"
        iou = every if one.iou_threshold is None else f"{one.iou_threshold:.2f}"
        most = f"at most {counted(one.max_detections, 'detection')}"
        said = f"{kind}, {overlap} {iou}, area {one.area}, {most}"
        value = values[one.name]
        rows.append(Metric(one.name, said, value, headline=one.name in first and (value >= 0 or one.name == "AP")))
    return tuple(rows)


def _sizes(settings: EvaluationSettings, values: Mapping[str, float], truths: Sequence[int]) -> tuple[SizeRow, ...]:
    return tuple(
        SizeRow(area.label, _in_words(area), values[f"AP{area.label}"], values[f"AR{area.label}"], count)
        for area, count in zip(settings.area_ranges[1:], truths[1:], strict=True)
    )


def _categories(
    settings: EvaluationSettings, by_category: pa.Table, best_f1: pa.Table, names: Mapping[int, str]
) -> tuple[CategoryRow, ...]:
    f1 = {row["category_id"]: row for row in best_f1.select(["category_id", "f1", "score"]).to_pylist()}
    rows = []
    for row in by_category.to_pylist():
        number = row["category_id"]
        best = [-1.0 if f1[number][name] is None else f1[number][name] for name in ("f1", "score")]
        by_area = tuple(row[f"AP{area.label}"] for area in settings.area_ranges[1:])
        many = (row["AP"], row["AP50"], row["AP75"], by_area, row[_recall_name(settings)])
        rows.append(CategoryRow(number, names[number], *many, row["num_truths"], row["num_detections"], *best))
    return tuple(rows)


def _curves(accumulated: Accumulated, names: Mapping[int, str]) -> Curves | None:
    """Those at IoU 0.5 and 0.75, or else the lowest, and the mean of all."""
    thresholds = accumulated.settings.iou_thresholds
    precision = accumulated.precision[..., 0, -1]
    kept = np.flatnonzero(precision[0, 0] > -1)
    if not len(kept):
        return None
    at = [thresholds.index(one) for one in (0.5, 0.75) if one in thresholds] or [0]
    labels = [f"IoU {thresholds[place]:.2f}" for place in at]
    lines: list[NDArray[np.float64]] = [precision[place][:, kept] for place in at]
    if len(thresholds) > 1:
        labels.append(f"mean of {thresholds[0]:.2f}:{thresholds[-1]:.2f}")
        lines.append(precision[:, :, kept].mean(axis=0))
    by_category = {
        names[accumulated.settings.category_ids[k]]: tuple(line[:, place].tolist() for line in lines)
        for place, k in enumerate(kept.tolist())
    }
    return Curves(tuple(labels), tuple(line.mean(axis=1).tolist() for line in lines), by_category)


def _calibration(found: Calibration | None) -> tuple[CalibrationBin, ...]:
    if found is None:
        return ()
    return tuple(
        CalibrationBin(row["low"], row["high"], row["detections"], row["mean_score"] or 0.0, row["precision"] or 0.0)
        for row in found.bins.to_pylist()
        if row["category_id"] is None
    )
