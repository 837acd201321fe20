"""Differences with their confidence intervals, one below the other."""

from __future__ import annotations

import math
from collections.abc import Sequence

from beam_jobs.report.charts import WIDTH, isolated_text, svg, text, ticks, tip
from beam_jobs.report.compare_content import Difference
from beam_jobs.report.markup import Attribute, Html, tag
from beam_jobs.report.numbers import difference

_ROW = 22
_LEFT, _RIGHT, _TOP = 150, 58, 24


def forest(name: str, title: str, rows: Sequence[Difference], verdicts: Sequence[str]) -> Html:
    """A dot and an interval a row, on one scale about 0; coloured by verdict (`better`, `worse`, `unclear`)."""
    bounds = [abs(value) for row in rows for value in (row.difference, row.low, row.high) if not math.isnan(value)]
    reach = ticks(max(bounds, default=0.0) or 0.01, 3)[-1]
    height = _TOP + len(rows) * _ROW + 4

    def x(value: float) -> float:
        return _LEFT + (value / reach + 1) / 2 * (WIDTH - _LEFT - _RIGHT)

    marks = []
    for value in (-reach, 0.0, reach):
        line: dict[str, Attribute] = {"x1": x(value), "y1": _TOP - 4, "x2": x(value), "y2": height}
        marks.append(tag("line", {**line, "class": "zero" if value == 0 else "grid"}))
        marks.append(text(x(value), 12, difference(value) if value else "0", anchor="middle"))
    for i, (row, css) in enumerate(zip(rows, verdicts, strict=True)):
        y = _TOP + i * _ROW + _ROW / 2
        parts = [text(_LEFT - 8, y + 4, isolated_text(row.name), anchor="end")]
        if not (math.isnan(row.low) or math.isnan(row.high)):
            parts.append(tag("line", {"x1": x(row.low), "y1": y, "x2": x(row.high), "y2": y, "class": f"span {css}"}))
        if not math.isnan(row.difference):
            parts.append(tag("circle", {"cx": x(row.difference), "cy": y, "r": 4.5, "class": f"mark {css}"}))
        parts.append(text(WIDTH - 2, y + 4, difference(row.difference), anchor="end", css="value"))
        said = f"{row.name}: {difference(row.difference)}, {difference(row.low)} to {difference(row.high)}"
        marks.append(tag("g", None, tip(said), *parts))
    spoken = "; ".join(f"{row.name} {difference(row.difference)}" for row in rows[:12])
    return svg(name, title, f"B − A: {spoken}.", height, *marks)
