"""Numbers as people read them, the same all over a report."""

from __future__ import annotations

import math

#: What stands for a number that does not exist: COCO's -1, NaN, None.
MISSING = "–"
_MINUS = "−"


def is_missing(value: float | None) -> bool:
    """Whether a metric does not exist: COCO says -1 where there is no truth."""
    return value is None or math.isnan(value) or value == -1


def metric(value: float | None) -> str:
    """A number of 0..1, with three decimals."""
    return MISSING if value is None or is_missing(value) else f"{value:.3f}"


def difference(value: float | None) -> str:
    """A difference of metrics, with its sign. -1 is a value here, NaN and None are not."""
    if value is None or math.isnan(value):
        return MISSING
    text = f"{abs(value):.3f}"
    if float(text) == 0:
        return text
    return ("+" if value > 0 else _MINUS) + text


def count(value: int | None) -> str:
    """A whole number, its thousands apart."""
    return MISSING if value is None else f"{value:,}"


def percent(share: float | None) -> str:
    """A share of 0..1 as a percentage: one decimal below ten."""
    if share is None or math.isnan(share):
        return MISSING
    value = 100 * share
    return f"{value:.1f} %" if 0 < value < 9.95 else f"{value:.0f} %"


def seconds(value: float | None) -> str:
    """A duration in the unit that suits it."""
    if value is None or math.isnan(value):
        return MISSING
    if value >= 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    if value >= 60:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{value:.1f} s" if value >= 1 else f"{1000 * value:.0f} ms"


def milliseconds(value: float | None) -> str:
    """Milliseconds, as a number for a column: one decimal below a hundred."""
    if value is None or math.isnan(value):
        return MISSING
    return f"{value:,.1f}" if value < 99.95 else f"{value:,.0f}"


def tidy(value: float) -> str:
    """A tick or an edge: as few decimals as it needs, four at most."""
    text = f"{value:,.4f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text.replace("-", _MINUS)


def clock(value: float) -> str:
    """A time in a clip: minutes and seconds with one decimal, and hours where there are any."""
    tenths = round(value * 10)
    sign, tenths = ("" if tenths >= 0 else _MINUS), abs(tenths)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    first = f"{hours}:{minutes:02d}" if hours else str(minutes)
    return f"{sign}{first}:{rest / 10:04.1f}"
