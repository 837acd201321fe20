"""Charts as SVG: small, with a title and a description for those who cannot see them, and a tooltip on every mark.

All have the same width in units of their own, near that of a phone, and are scaled as a whole: text stays legible.
Colours come from the page's style sheet, by class: s1, s2, s3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from beam_jobs.report.content import CalibrationBin, Histogram
from beam_jobs.report.markup import Attribute, Html, join, number, tag
from beam_jobs.report.numbers import count, is_missing, metric, percent, tidy
from beam_jobs.report.textwidth import shorten
from beam_jobs.words import counted

WIDTH = 440
_BAR = 22
#: Colours of stacked counts, from the axis up.
STACK = ("s1", "s2", "s0")


@dataclass(frozen=True, slots=True)
class Frame:
    """The plotting area of a chart, and what its axes go from and to."""

    height: int = 270
    left: int = 46
    right: int = 12
    top: int = 12
    bottom: int = 40
    x_range: tuple[float, float] = (0.0, 1.0)
    y_range: tuple[float, float] = (0.0, 1.0)

    def x(self, value: float) -> float:
        low, high = self.x_range
        return self.left + (value - low) / (high - low) * (WIDTH - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.y_range
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    def grid(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_title: str, y_title: str) -> Html:
        """Lines, numbers and titles of both axes."""
        marks = []
        for value in y_ticks:
            y = self.y(value)
            marks.append(_line(self.left, y, WIDTH - self.right, y, "grid"))
            marks.append(text(self.left - 6, y + 4, tidy(value), anchor="end"))
        for value in x_ticks:
            marks.append(text(self.x(value), self.height - self.bottom + 16, tidy(value), anchor="middle"))
        middle = (self.y(self.y_range[0]) + self.y(self.y_range[1])) / 2
        marks.append(text((self.left + WIDTH - self.right) / 2, self.height - 6, x_title, anchor="middle", css="axis"))
        turn: dict[str, Attribute] = {"class": "axis", "text-anchor": "middle"}
        turn["transform"] = f"translate(11 {number(middle)}) rotate(-90)"
        marks.append(tag("text", turn, y_title))
        return join(*marks)


def svg(name: str, title: str, description: str, height: float, *children: str, width: float | None = None) -> Html:
    """A chart. `name` is its id on the page. One with a width of its own does not shrink far below it."""
    attributes: dict[str, Attribute] = {
        "class": "chart",
        "id": name,
        "viewBox": f"0 0 {number(width or WIDTH)} {number(height)}",
        "style": f"min-width:{number(0.9 * width)}px;max-width:{number(1.3 * width)}px" if width else None,
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
    }
    # Not <title>: a browser would show the chart's as a tooltip wherever there is no mark.
    heading = tag("desc", {"id": f"{name}-title"}, title)
    return tag("svg", attributes, heading, tag("desc", {"id": f"{name}-desc"}, description), *children)


def text(x: float, y: float, content: str, *, anchor: str = "start", css: str | None = None) -> Html:
    """A text on its base line."""
    return tag("text", {"x": x, "y": y, "text-anchor": None if anchor == "start" else anchor, "class": css}, content)


def tip(content: str) -> Html:
    """The tooltip of a mark."""
    return tag("title", None, content)


def legend(labels: Sequence[tuple[str, str]]) -> Html:
    """What the colours mean: CSS class and text."""
    items = (tag("li", None, tag("span", {"class": f"swatch {css}"}), label) for css, label in labels)
    return tag("ul", {"class": "legend"}, *items)


def ticks(maximum: float, about: int = 5) -> list[float]:
    """0 and round numbers up to at least `maximum`."""
    if maximum <= 0:
        return [0.0, 1.0]
    rough = maximum / about
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= rough * 0.999)
    return [round(i * step, 10) for i in range(math.ceil(maximum / step - 1e-9) + 1)]


def curve_path(precision: Sequence[float]) -> str:
    """A precision-recall curve as a path in units of 100 by 1000, y down; a level run is one command.

    Precision at a recall that was not reached is 0: the path falls to the axis there, as COCO's mean has it.
    """
    if all(is_missing(value) for value in precision):
        return ""
    levels = [1000 - round(1000 * max(0.0, 0.0 if is_missing(value) else float(value))) for value in precision]
    path = [f"M0 {levels[0]}"]
    last = len(levels) - 1
    for i in range(1, last + 1):
        # A point inside a level run is left out.
        if i < last and levels[i] == levels[i - 1] == levels[i + 1]:
            continue
        path.append(f"H{i}" if levels[i] == levels[i - 1] else f"L{i} {levels[i]}")
    return "".join(path)


def curves(name: str, title: str, labels: Sequence[str], paths: Sequence[str]) -> Html:
    """Precision-recall curves; the page's script can put other paths in."""
    frame = Frame(height=320)
    unit = [0, 0.2, 0.4, 0.6, 0.8, 1]
    placed = f"translate({number(frame.x(0))} {number(frame.y(1))}) "
    placed += f"scale({(frame.x(1) - frame.x(0)) / 100:.6g} {(frame.y(0) - frame.y(1)) / 1000:.6g})"
    lines = [
        tag("path", {"d": path, "class": f"line s{i}"}, tip(label))
        for i, (path, label) in enumerate(zip(paths, labels, strict=True), 1)
    ]
    description = f"Precision by recall, one line each for {', '.join(labels)}."
    grid = frame.grid(unit, unit, "recall", "precision")
    return svg(name, title, description, frame.height, grid, tag("g", {"transform": placed}, *lines))


def sparkline(paths: Sequence[str]) -> Html:
    """The curves of a class, small; `curve_path` made them."""
    lines = (tag("path", {"d": path, "class": f"line s{i}"}) for i, path in enumerate(paths, 1))
    return tag(
        "svg",
        {"class": "spark", "viewBox": "0 0 100 1000", "preserveAspectRatio": "none", "aria-hidden": "true"},
        *lines,
    )


def spark_bars(counts: Sequence[int]) -> Html:
    """A histogram, small."""
    most = max(counts, default=0) or 1
    # In units near pixels: stretched far, browsers draw fills without their edges.
    heights = (24 * value / most for value in counts)
    path = "".join(f"M{4 * i} 24V{number(24 - height)}h3.4V24" for i, height in enumerate(heights) if height)
    shape: dict[str, Attribute] = {"viewBox": f"0 0 {max(4 * len(counts), 1)} 24", "preserveAspectRatio": "none"}
    return tag("svg", {"class": "spark", **shape, "aria-hidden": "true"}, tag("path", {"d": path, "class": "bar s1"}))


def bars(
    name: str, title: str, rows: Sequence[tuple[str, float, str]], *, css: str = "s1", full: float | None = None
) -> Html:
    """Horizontal bars: label, value, what is written at its end. One of `full` (the longest) fills the width."""
    longest = full or max((value for _, value, _ in rows if not is_missing(value)), default=0.0) or 1.0
    left, right = 150, 58
    marks = []
    for i, (label, value, written) in enumerate(rows):
        y = i * _BAR
        length = 0.0 if is_missing(value) else max(value, 0.0) / longest * (WIDTH - left - right)
        marks.append(
            tag(
                "g",
                None,
                tip(f"{label}: {written}"),
                text(left - 8, y + 15, isolated_text(label), anchor="end"),
                _rect(left, y + 3, max(length, 1), _BAR - 6, css),
                text(left + length + 6, y + 15, written, css="value"),
            )
        )
    spoken = "; ".join(f"{label} {written}" for label, _, written in rows[:12])
    return svg(name, title, f"Bars: {spoken}.", len(rows) * _BAR + 4, *marks)


def grouped_bars(name: str, title: str, groups: Sequence[tuple[str, Sequence[float]]], labels: Sequence[str]) -> Html:
    """Upright bars of metrics (0..1), in groups; one colour a label."""
    highest = max((value for _, values in groups for value in values if not is_missing(value)), default=0.0)
    y_ticks = ticks(max(highest, 0.1), 4)
    frame = Frame(height=320, top=22, bottom=30, x_range=(0, len(groups)), y_range=(0, y_ticks[-1]))
    marks = [frame.grid([], y_ticks, "", "")]
    for i, (group, values) in enumerate(groups):
        marks.append(text(frame.x(i + 0.5), frame.height - frame.bottom + 18, group, anchor="middle"))
        width = 0.7 / len(values)
        for j, (label, value) in enumerate(zip(labels, values, strict=True)):
            x0, x1 = frame.x(i + 0.15 + j * width), frame.x(i + 0.15 + (j + 1) * width)
            top = frame.y(0.0 if is_missing(value) else value)
            bar = _rect(x0 + 1, top, x1 - x0 - 2, frame.y(0) - top, f"s{j + 1}")
            written = text((x0 + x1) / 2, top - 4, metric(value), anchor="middle", css="value")
            marks.append(tag("g", None, tip(f"{group}, {label}: {metric(value)}"), bar, written))
    spoken = "; ".join(f"{group}: " + ", ".join(map(metric, values)) for group, values in groups)
    return svg(name, title, f"{' and '.join(labels)} by size. {spoken}.", frame.height, *marks)


def histogram(name: str, title: str, data: Histogram, x_title: str, y_title: str, *, whole: bool = False) -> Html:
    """Stacked counts by bins. `whole`: the edges are whole numbers, and a bin holds low..high-1."""
    totals = [sum(column) for column in zip(*(series.counts for series in data.series), strict=True)]
    y_ticks = ticks(max(totals, default=0))
    if max(totals, default=0) < 5:
        y_ticks = [float(value) for value in range(max(totals, default=0) + 2)]
    bins = len(totals)
    frame = Frame(left=58, x_range=(0, max(bins, 1)), y_range=(0, y_ticks[-1]))
    marks = [frame.grid([], y_ticks, x_title, y_title), *_bin_labels(frame, data.edges, whole)]
    for i in range(bins):
        low, high = data.edges[i], data.edges[i + 1]
        span = _whole_bin(low, high) if whole else f"{tidy(low)} to {tidy(high)}"
        parts, below = [], 0
        for css, series in zip(STACK, data.series, strict=False):
            if value := series.counts[i]:
                top = frame.y(below + value)
                x0, x1 = frame.x(i), frame.x(i + 1)
                parts.append(_rect(x0 + 0.5, top, max(x1 - x0 - 1, 0.5), frame.y(below) - top, css))
                below += value
        spoken = ", ".join(f"{series.label} {count(series.counts[i])}" for series in data.series)
        if parts:
            marks.append(tag("g", None, tip(f"{span}: {spoken}"), *parts))
    sums = ", ".join(f"{series.label} {count(sum(series.counts))}" for series in data.series)
    return svg(name, title, f"Histogram in {bins} bins. In all: {sums}.", frame.height, *marks)


def calibration(name: str, title: str, bins: Sequence[CalibrationBin]) -> Html:
    """Precision by mean score; areas of the dots by the number of detections, the diagonal is what scores promise."""
    frame = Frame(height=300)
    unit = [0, 0.2, 0.4, 0.6, 0.8, 1]
    most = max((entry.detections for entry in bins), default=0) or 1
    marks = [frame.grid(unit, unit, "mean score", "precision")]
    marks.append(_line(frame.x(0), frame.y(0), frame.x(1), frame.y(1), "diagonal"))
    shown = [b for b in bins if b.detections and not is_missing(b.precision) and not is_missing(b.mean_score)]
    points = " ".join(f"{number(frame.x(b.mean_score))},{number(frame.y(b.precision))}" for b in shown)
    marks.append(tag("polyline", {"points": points, "class": "line s1"}))
    for b in shown:
        said = f"score {tidy(b.low)} to {tidy(b.high)}: mean {metric(b.mean_score)}, precision {metric(b.precision)}"
        radius = 3 + 7 * math.sqrt(b.detections / most)
        dot: dict[str, Attribute] = {"cx": frame.x(b.mean_score), "cy": frame.y(b.precision), "r": radius}
        marks.append(tag("circle", {**dot, "class": "dot s1"}, tip(f"{said}, {counted(b.detections, 'detection')}")))
    spoken = "; ".join(f"{metric(b.mean_score)} {percent(b.precision)}" for b in shown)
    return svg(name, title, f"Precision by mean score: {spoken}.", frame.height, *marks)


def isolated_text(label: str, width: int = 20) -> Html:
    """A name from the data in a chart: shortened, and with a writing direction of its own."""
    return tag("tspan", {"class": "name"}, shorten(label, width))


def _bin_labels(frame: Frame, edges: Sequence[float], whole: bool) -> list[Html]:
    """Numbers below the bins, or below their edges; as many as there is room for."""
    bins = len(edges) - 1
    every = max(1, math.ceil(bins / 10))
    y = frame.height - frame.bottom + 16
    if whole:
        names = [_whole_bin(low, high) for low, high in pairwise(edges)]
        every = max(1, math.ceil(bins * max(map(len, names), default=1) / 44))
        return [text(frame.x(i + 0.5), y, names[i], anchor="middle") for i in range(0, bins, every)]
    return [text(frame.x(i), y, tidy(edges[i]), anchor="middle") for i in range(0, bins + 1, every)]


def _whole_bin(low: float, high: float) -> str:
    if math.isinf(high):
        return f"{low:,.0f}+"
    return f"{low:,.0f}" if high - low <= 1 else f"{low:,.0f}–{high - 1:,.0f}"


def _rect(x: float, y: float, width: float, height: float, css: str) -> Html:
    return tag("rect", {"x": x, "y": y, "width": width, "height": height, "class": css})


def _line(x1: float, y1: float, x2: float, y2: float, css: str) -> Html:
    return tag("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": css})
