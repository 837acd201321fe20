"""The report of two runs against one ground truth."""

from __future__ import annotations

import math
from collections.abc import Sequence

from beam_jobs.report import charts, forest, parts
from beam_jobs.report.compare_content import CompareContent, Difference
from beam_jobs.report.markup import Html, isolated, tag
from beam_jobs.report.numbers import count, difference, metric, percent
from beam_jobs.report.page import Section, document
from beam_jobs.report.tables import Cell, Column, table
from beam_jobs.words import counted

_EXTREMES = 20


def compare_page(content: CompareContent) -> bytes:
    """One HTML file, UTF-8; the same bytes for the same content."""
    sections = [
        Section("summary", "Summary", _summary(content)),
        Section("metrics", "Metrics", _differences(content, "Metric", content.metrics, "metrics-chart")),
        Section("classes", "Classes", _classes(content)),
        Section("images", "Images", _images(content)),
        Section("gallery", "Pictures", _gallery(content)),
        Section("settings", "Settings", _about(content)),
    ]
    subtitle = f"A: {content.name_a}. B: {content.name_b}. Differences are B − A."
    return document(content.title, subtitle, sections, filter_label="Filter by class")


def verdict(row: Difference) -> str:
    """What the confidence interval says: `better`, `worse`, or `unclear` where it holds 0."""
    if math.isnan(row.low) or math.isnan(row.high):
        return "unclear"
    return "better" if row.low > 0 else "worse" if row.high < 0 else "unclear"


def _summary(content: CompareContent) -> list[Html]:
    shown: list[tuple[str, str, str]] = []
    if content.metrics:
        row = content.metrics[0]
        shown.append((difference(row.difference), f"{row.name}, B − A", row.description))
        shown += [(metric(row.a), f"{row.name} of A", ""), (metric(row.b), f"{row.name} of B", "")]
    clear = [verdict(row) for row in content.categories]
    if clear:
        shown.append((count(clear.count("better")), "classes clearly better", ""))
        shown.append((count(clear.count("worse")), "classes clearly worse", ""))
    said = []
    if content.metrics:
        row = content.metrics[0]
        words = {"better": "B is better", "worse": "B is worse", "unclear": "The difference may be chance"}
        interval = f"{difference(row.low)} to {difference(row.high)}"
        text = f"{words[verdict(row)]}: {row.name} differs by {interval} at {percent(content.confidence)} confidence."
        said.append(tag("p", {"class": f"verdict {verdict(row)}"}, text))
    return [parts.warnings(content.warnings), parts.tiles(shown), *said, parts.count_tiles(content.counts)]


def _differences(content: CompareContent, head: str, rows: Sequence[Difference], name: str) -> list[Html]:
    if not rows:
        return []
    chart = forest.forest(name, f"Differences by {head.lower()}", rows, [verdict(row) for row in rows])
    note = f"B − A with {percent(content.confidence)} confidence intervals. {content.method}".strip()
    columns = _columns(content, head)
    listed = table(f"Differences by {head.lower()}", columns, map(_cells, rows), sortable=False)
    return [parts.grid(parts.figure("Differences", chart, note), listed)]


def _classes(content: CompareContent) -> list[Html]:
    known = [row for row in content.categories if not math.isnan(row.difference)]
    if not content.categories:
        return []
    largest = sorted(known, key=lambda row: (-abs(row.difference), row.name))[:_EXTREMES]
    largest.sort(key=lambda row: (-row.difference, row.name))
    chart = forest.forest("classes-chart", "Differences by class", largest, [verdict(row) for row in largest])
    title = "Differences in AP" if len(known) <= _EXTREMES else f"The {_EXTREMES} largest differences in AP"
    ordered = sorted(
        content.categories, key=lambda row: (math.isnan(row.difference), -_or_zero(row.difference), row.name)
    )
    listed = table(
        f"AP of {counted(len(ordered), 'class', 'classes')}",
        _columns(content, "Class"),
        map(_cells, ordered),
        sorted_by=(3, "descending"),
        filtered=True,
        tall=True,
    )
    return [parts.grid(parts.figure(title, chart), listed)]


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _columns(content: CompareContent, head: str) -> list[Column]:
    bounds = f"of the {percent(content.confidence)} confidence interval"
    return [
        Column(head, is_number=False),
        Column("A", content.name_a),
        Column("B", content.name_b),
        Column("B − A"),
        Column("from", f"Lower bound {bounds}"),
        Column("to", f"Upper bound {bounds}"),
    ]


def _cells(row: Difference) -> list[Cell]:
    changed = tag("span", {"class": f"verdict {verdict(row)}"}, difference(row.difference))
    return [row.name, metric(row.a), metric(row.b), changed, difference(row.low), difference(row.high)]


def _images(content: CompareContent) -> list[Html]:
    if not content.images:
        return []
    columns = [
        Column("Image", is_number=False),
        Column("A", content.image_metric),
        Column("B", content.image_metric),
        Column("B − A"),
        Column("What changed", is_number=False),
    ]
    rows = [
        (row.file_name, metric(row.a), metric(row.b), difference(row.difference), isolated(row.note))
        for row in content.images
    ]
    return [table(f"Images that changed most, by {content.image_metric}", columns, rows, tall=True)]


def _gallery(content: CompareContent) -> list[Html]:
    if not content.gallery:
        return [tag("p", {"class": "note"}, content.gallery_note)] if content.gallery_note else []
    note = f"The images that changed most, by {content.image_metric}; detections of lower scores are not drawn."
    named = charts.legend([("s3", "right detections"), ("s2", "wrong detections"), ("s1", "missed objects")])
    return [named, *parts.gallery(content.gallery, note)]


def _about(content: CompareContent) -> list[Html]:
    columns = [Column("", is_number=False), Column("A", is_number=False), Column("B", is_number=False)]
    rows = [(name, isolated(a), isolated(b)) for name, a, b in content.facts]
    runs = table("The two runs", columns, rows, sortable=False) if rows else Html()
    return [parts.grid(runs, parts.facts("Evaluation", content.settings))]
