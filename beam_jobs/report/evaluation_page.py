"""The report of a run against its ground truth."""

from __future__ import annotations

from collections.abc import Sequence

from beam_jobs.report import charts, heatmap, parts
from beam_jobs.report.content import CalibrationBin, CategoryRow, Confusion, Curves, EvaluationContent
from beam_jobs.report.markup import Html, isolated, join, tag
from beam_jobs.report.numbers import count, difference, is_missing, metric, percent
from beam_jobs.report.page import Section, document
from beam_jobs.report.tables import Bar, Cell, Column, table
from beam_jobs.words import counted

#: So many classes are drawn as bars at once; of more, the best and the worst.
_BARS = 24
_EXTREMES = 12
_CONFUSIONS = 15


def evaluation_page(content: EvaluationContent) -> bytes:
    """One HTML file, UTF-8; the same bytes for the same content."""
    by_ap = sorted(content.categories, key=lambda row: (is_missing(row.ap), -row.ap, -row.truths, row.name))
    sections = [
        Section("summary", "Summary", _summary(content)),
        Section("curves", "Precision and recall", [parts.grid(*_curves(content.curves), *_sizes(content))]),
        Section("classes", "Classes", _classes(content, by_ap)),
        Section("confusion", "Confusion", _confusion(content.confusion)),
        Section("scores", "Scores", _scores(content)),
        Section("errors", "Errors", _errors(content)),
        Section("gallery", "Pictures", _gallery(content)),
        Section("settings", "Settings", [_about(content)]),
    ]
    return document(content.title, content.model, sections, filter_label="Filter by class")


_GALLERY_NOTE = "What a picture is here for is drawn strongest; small objects are shown enlarged."


def _summary(content: EvaluationContent) -> list[Html]:
    headlines = [row for row in content.summary if row.headline] or content.summary[:3]
    first = [(metric(row.value), row.name, row.description) for row in headlines[:5]]
    columns = [Column("Metric", is_number=False), Column("What it is", is_number=False), Column("Value")]
    rows = [(row.name, row.description, Bar(metric(row.value), row.value)) for row in content.summary]
    return [
        parts.warnings(content.warnings),
        parts.tiles(first),
        parts.count_tiles(content.counts),
        table("COCO metrics", columns, rows, sortable=False),
    ]


def _curves(curves: Curves | None) -> list[Html]:
    if curves is None:
        return []
    paths = [charts.curve_path(line) for line in curves.mean]
    chart = charts.curves("curve", "Precision by recall", curves.labels, paths)
    options = [tag("option", {"value": ""}, "All classes (mean)")]
    options += [tag("option", {"value": name}, name) for name in sorted(curves.categories, key=str.casefold)]
    select = tag("select", {"id": "curve-class"}, *options)
    label = tag("label", {"class": "pick", "hidden": True}, "Class ", select)
    named = charts.legend([(f"s{i}", name) for i, name in enumerate(curves.labels, 1)])
    note = (
        "How much of what was detected is right, by how much of the truth was found. The table below has every class."
    )
    return [parts.figure("Precision by recall", join(label, chart, named), note)]


def _sizes(content: EvaluationContent) -> list[Html]:
    if not content.sizes:
        return []
    groups = [(size.label, (size.ap, size.ar)) for size in content.sizes]
    chart = charts.grouped_bars("by-size", "AP and AR by size", groups, ("AP", "AR"))
    named = charts.legend([("s1", "AP"), ("s2", "AR")])
    of_size = (f"{size.label}: {size.description}, {counted(size.truths, 'truth')}" for size in content.sizes)
    return [parts.figure("By size of the objects", join(chart, named), "; ".join(of_size) + ".")]


def _classes(content: EvaluationContent, by_ap: Sequence[CategoryRow]) -> list[Html]:
    known = [row for row in by_ap if not is_missing(row.ap)]
    cards = []
    if 0 < len(known) <= _BARS:
        cards.append(parts.figure("AP by class", charts.bars("ap-all", "AP by class", _bars(known))))
    elif known:
        best = known[:_EXTREMES]
        worst = sorted(known, key=lambda row: (row.ap, -row.truths, row.name))[:_EXTREMES]
        most = best[0].ap
        cards.append(parts.figure("Best classes", charts.bars("ap-best", "Best AP", _bars(best), full=most)))
        low = charts.bars("ap-worst", "Worst AP", _bars(worst), css="s2", full=most)
        cards.append(parts.figure("Worst classes", low, "Of the same AP, those with most truths come first."))
    return [parts.grid(*cards), _class_table(content, by_ap)] if content.categories else []


def _bars(rows: Sequence[CategoryRow]) -> list[tuple[str, float, str]]:
    return [(row.name, row.ap, metric(row.ap)) for row in rows]


def _class_table(content: EvaluationContent, by_ap: Sequence[CategoryRow]) -> Html:
    columns = [
        Column("Class", is_number=False),
        Column("AP", "Average precision over the IoU thresholds"),
        Column("AP50", "AP at IoU 0.50"),
        Column("AP75", "AP at IoU 0.75"),
        *(Column(f"AP {size.label}", size.description) for size in content.sizes),
        Column("AR", "Average recall over the IoU thresholds"),
        Column("Truths"),
        Column("Detections"),
        Column("Best F1", "The largest F1 over all score thresholds, at IoU 0.50"),
        Column("at score", "The score threshold of the best F1"),
    ]
    rows: list[list[Cell]] = []
    has_curve = content.curves is not None
    for row in by_ap:
        numbers = (row.ap50, row.ap75, *row.ap_by_area, row.ar)
        cells: list[Cell] = [row.name, Bar(metric(row.ap), row.ap), *map(metric, numbers)]
        cells += [count(row.truths), count(row.detections), metric(row.best_f1), metric(row.best_threshold)]
        rows.append([*cells, _sparkline(content.curves, row.name)] if content.curves else cells)
    if has_curve:
        columns.append(Column("Curve", "Precision by recall", is_number=False))
    caption = f"Metrics of {counted(len(rows), 'class', 'classes')}"
    return table(caption, columns, rows, sorted_by=(1, "descending"), filtered=True, tall=True)


def _sparkline(curves: Curves, name: str) -> Html:
    lines = curves.categories.get(name)
    return charts.sparkline([charts.curve_path(line) for line in lines]) if lines else Html()


def _confusion(confusion: Confusion | None) -> list[Html]:
    if confusion is None or not confusion.names:
        return []
    drawn = heatmap.shown(confusion)
    totals = confusion.counts.sum(axis=1)
    if len(drawn.names) < len(confusion.names):
        kept = {name: i for i, name in enumerate(confusion.names)}
        totals = totals[[*(kept[name] for name in drawn.names), len(confusion.names)]]
    chart = heatmap.heatmap("matrix", "Confusion matrix", drawn, totals)
    named = charts.legend(
        [("s1", "right class"), ("s2", "wrong class"), ("s0", "missed, or detected where there is none")]
    )
    left_out = len(confusion.names) - len(drawn.names)
    of_all = f"The {len(drawn.names)} classes that are confused most; {counted(left_out, 'is', 'are')} left out."
    notes = [
        "Rows are truths, columns are what they were detected as; the darker, the larger the share of the row.",
        of_all if left_out else "",
        confusion.note,
    ]
    scrolled = tag("div", {"class": "scroll matrix", "role": "region", "aria-label": "Matrix", "tabindex": 0}, chart)
    return [parts.figure("Confusion matrix", join(scrolled, named), *notes, wide=True), _confusions(confusion)]


def _confusions(confusion: Confusion) -> Html:
    found = heatmap.largest(confusion, _CONFUSIONS)
    if not found:
        return Html()
    columns = [
        Column("Truth", is_number=False),
        Column("Detected as", is_number=False),
        Column("Count"),
        Column("Share of the truths"),
    ]
    rows = [(pair.truth, isolated(pair.detected), count(pair.count), percent(pair.share)) for pair in found]
    return table("Most frequent confusions of two classes", columns, rows, sorted_by=(2, "descending"), filtered=True)


def _scores(content: EvaluationContent) -> list[Html]:
    cards = []
    if content.score_bins is not None:
        cards += parts.score_histograms(content.score_bins)
    if any(entry.detections for entry in content.calibration):
        chart = charts.calibration("calibration", "Precision by score", content.calibration)
        error = _calibration_error(content.calibration)
        note = (
            f"Expected calibration error {metric(error)}: how far scores are from the share that is right, on average."
        )
        cards.append(parts.figure("Calibration of the scores", chart, note, "Above the line, scores are too modest."))
    return [parts.grid(*cards)] if cards else []


def _calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """The mean of |precision − mean score| over detections (https://arxiv.org/abs/1706.04599, equation 3)."""
    total = sum(entry.detections for entry in bins)
    filled = (entry for entry in bins if entry.detections)
    return sum(entry.detections * abs(entry.precision - entry.mean_score) for entry in filled) / total


def _errors(content: EvaluationContent) -> list[Html]:
    if not content.errors:
        return []
    rows = [(row.name, row.delta_ap, difference(row.delta_ap)) for row in content.errors]
    chart = charts.bars("errors-chart", "AP that each kind of error costs", rows, css="s2")
    columns = [Column("Error", is_number=False), Column("What it is", is_number=False), Column("AP without it")]
    cells = [(row.name, row.description, difference(row.delta_ap)) for row in content.errors]
    card = parts.figure(
        "What costs AP", chart, "What AP would gain if errors of this kind were put right.", content.errors_note
    )
    return [parts.grid(card, table("Kinds of error", columns, cells, sortable=False))]


def _gallery(content: EvaluationContent) -> list[Html]:
    if content.gallery or not content.gallery_note:
        named = charts.legend([("s1", "ground truth"), ("s2", "detections")]) if content.gallery else Html()
        return [named, *parts.gallery(content.gallery, _GALLERY_NOTE)]
    return [tag("p", {"class": "note"}, content.gallery_note)]


def _about(content: EvaluationContent) -> Html:
    return parts.grid(parts.facts("Run", content.facts), parts.facts("Evaluation", content.settings))
