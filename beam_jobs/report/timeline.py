"""What was found in a clip over time, as SVG: a lane for each class, darker where more of it is."""

from __future__ import annotations

import math
from itertools import groupby

from beam_jobs.report.charts import isolated_text, svg, text, ticks, tip
from beam_jobs.report.content import Timeline
from beam_jobs.report.markup import Attribute, Html, number, tag
from beam_jobs.report.numbers import clock, tidy

_WIDTH = 880
_LEFT, _RIGHT, _LANE, _GAP = 120, 16, 18, 3


def timeline(name: str, title: str, data: Timeline) -> Html:
    """The lanes of a clip, with marks where its stills are."""
    begin, end = data.edges[0], data.edges[-1]
    scale = (_WIDTH - _LEFT - _RIGHT) / ((end - begin) or 1.0)
    most = max((value for _, lane in data.lanes for value in lane if not math.isnan(value)), default=0.0) or 1.0
    bottom = len(data.lanes) * (_LANE + _GAP)

    def x(time_s: float) -> float:
        return _LEFT + (time_s - begin) * scale

    marks = []
    for i, (label, lane) in enumerate(data.lanes):
        y = i * (_LANE + _GAP)
        marks.append(text(_LEFT - 8, y + 13, isolated_text(label, 16), anchor="end"))
        frame: dict[str, Attribute] = {"x": _LEFT, "y": y, "width": _WIDTH - _LEFT - _RIGHT, "height": _LANE}
        marks.append(tag("rect", {**frame, "class": "field"}))
        # Neighbours of one value are one mark.
        for value, run in groupby(range(len(lane)), key=lane.__getitem__):
            bins = list(run)
            if value > 0:  # and not NaN
                first, last = data.edges[bins[0]], data.edges[bins[-1] + 1]
                shape: dict[str, Attribute] = {"x": x(first), "y": y, "width": x(last) - x(first), "height": _LANE}
                shape |= {"class": "lane s1", "fill-opacity": 0.15 + 0.85 * value / most}
                said = f"{label}, {clock(first)} to {clock(last)}: {tidy(round(value, 2))} a frame"
                marks.append(tag("rect", shape, tip(said)))
    for time_s in data.stills:
        at = x(time_s)
        points = f"{number(at - 5)},{bottom + 9} {number(at + 5)},{bottom + 9} {number(at)},{bottom + 1}"
        marks.append(tag("polygon", {"points": points, "class": "mark"}, tip(f"still at {clock(time_s)}")))
    for tick in ticks(end - begin, 8):
        if tick <= (end - begin) * 1.0001:
            marks.append(text(x(begin + tick), bottom + 24, clock(begin + tick), anchor="middle"))
    spoken = ", ".join(label for label, _ in data.lanes) or "nothing"
    described = f"From {clock(begin)} to {clock(end)}, by class: {spoken}."
    return svg(name, title, described, bottom + 30, *marks, width=_WIDTH)
