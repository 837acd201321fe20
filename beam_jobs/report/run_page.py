"""The report of a run without ground truth: what was found."""

from __future__ import annotations

from beam_jobs.report import charts, parts
from beam_jobs.report.clips_section import clips_section
from beam_jobs.report.content import FoundCategory, RunContent
from beam_jobs.report.markup import Html, isolated, join, tag
from beam_jobs.report.numbers import count, metric, milliseconds, seconds, tidy
from beam_jobs.report.page import Section, document
from beam_jobs.report.tables import Bar, Cell, Column, table
from beam_jobs.words import counted, plural

_BARS = 20
_NAMES = 3
#: What there is, where there is one of it.
_ONE = {"pictures": "picture", "detections": "detection", "classes found": "class found", "failures": "failure"}


def run_page(content: RunContent) -> bytes:
    """One HTML file, UTF-8; the same bytes for the same content."""
    by_count = sorted(content.categories, key=lambda row: (-row.detections, row.name))
    sections = [
        Section("summary", "Summary", _summary(content)),
        Section("classes", "Classes", _classes(content, by_count)),
        Section("clips", "Clips", clips_section(content.clips)),
        Section("scores", "Scores", [parts.grid(*parts.score_histograms(content.score_bins))]),
        Section("failures", "Failures", _failures(content)),
        Section("speed", "Speed", _speed(content)),
        Section("gallery", "Pictures", parts.gallery(content.gallery)),
        Section("run", "Run", [parts.grid(parts.facts("Facts", content.facts))]),
    ]
    return document(content.title, content.model, sections, filter_label="Filter by class")


def _summary(content: RunContent) -> list[Html]:
    first = [(count(value), plural(value, _ONE.get(name, name), name), "") for name, value in content.counts[:4]]
    if content.pictures_per_s is not None:
        first.append((tidy(round(content.pictures_per_s, 1)), "pictures a second", "While it detected"))
    return [parts.warnings(content.warnings), parts.tiles(first), parts.count_tiles(content.counts[4:])]


def _classes(content: RunContent, by_count: list[FoundCategory]) -> list[Html]:
    note = ""
    if content.low_scored:
        lower = counted(content.low_scored, "detection has", "detections have")
        note = f"Counted are detections of a score from {content.min_score:g}; {lower} a lower one."
    if not by_count:
        return [tag("p", None, f"Nothing was found. {note}".strip())]
    shown = [(row.name, float(row.detections), count(row.detections)) for row in by_count[:_BARS]]
    title = "Detections by class" if len(by_count) <= _BARS else f"The {_BARS} most frequent classes"
    most = max(row.detections for row in by_count) or 1
    columns = [
        Column("Class", is_number=False),
        Column("Detections"),
        Column("Pictures", "Pictures with at least one"),
        Column("Mean score"),
        Column("Best score"),
        Column(
            "Scores", "How many detections by score, from low to high, those that are not counted too", is_number=False
        ),
    ]
    rows: list[list[Cell]] = [
        [
            row.name,
            Bar(count(row.detections), row.detections / most),
            count(row.images),
            metric(row.mean_score),
            metric(row.max_score),
            charts.spark_bars(row.scores),
        ]
        for row in by_count
    ]
    caption = f"What was found: {counted(len(rows), 'class', 'classes')}"
    listed = table(caption, columns, rows, sorted_by=(1, "descending"), filtered=True, tall=True)
    chart = parts.figure(title, charts.bars("found", title, shown), note)
    boxes = charts.histogram(
        "boxes", "Pictures by number of boxes", content.boxes_per_picture, "boxes in a picture", "pictures", whole=True
    )
    return [parts.grid(chart, parts.figure("Boxes per picture", boxes)), listed]


def _failures(content: RunContent) -> list[Html]:
    if not content.failures:
        return [tag("p", None, "Every input gave a result." if content.counts[0][1] else "There was nothing to do.")]
    columns = [
        Column("Code", is_number=False),
        Column("Step", is_number=False),
        Column("Inputs"),
        Column("Said", is_number=False),
        Column("For example", is_number=False),
    ]
    rows = [
        (row.code, row.stage, count(row.count), isolated(row.message), join(*_examples(row.examples)))
        for row in content.failures
    ]
    return [table("Inputs that gave no result", columns, rows, sorted_by=(2, "descending"))]


def _examples(names: tuple[str, ...]) -> list[Html]:
    return [tag("div", {"class": "file"}, isolated(name)) for name in names[:_NAMES]]


def _speed(content: RunContent) -> list[Html]:
    shown: list[Html] = []
    if content.steps:
        columns = [
            Column("Step", is_number=False),
            Column("Seconds in all", "Over all detector processes"),
            Column("Mean ms", "Milliseconds a picture"),
            Column("Median ms"),
            Column("95 % below, ms"),
            Column("Longest ms"),
        ]
        rows = [
            (
                step.name,
                f"{step.total_s:,.1f}",
                *map(milliseconds, (step.mean_ms, step.median_ms, step.p95_ms, step.max_ms)),
            )
            for step in content.steps
        ]
        shown.append(table("Milliseconds a picture", columns, rows, sortable=False))
        if content.steps_note:
            shown.append(tag("p", {"class": "note"}, content.steps_note))
    if content.stages:
        entries = [(name, value, seconds(value)) for name, value in content.stages]
        chart = charts.bars("stages", "Stages of the run", entries)
        title = "Time of the run" if content.total_s is None else f"Time of the run: {seconds(content.total_s)}"
        shown.append(parts.grid(parts.figure(title, chart, "One after the other; an evaluation comes after that.")))
    return shown
