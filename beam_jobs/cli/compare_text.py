"""What a comparison says at its end, on standard output."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from beam_jobs.cli.compare_result import Compared, changed, metric_rows, note, rows_of
from beam_jobs.cli.summary import printable

#: Classes and images that are listed in each direction.
SHOWN = 5


def text(compared: Compared) -> str:
    """What a terminal shows: warnings, COCO's metrics, the classes and images that changed most."""
    lines = [f"warning: {warning}" for warning in compared.warnings()]
    lines += [f"A: {compared.a.source}", f"B: {compared.b.source}", ""]
    lines += _table("", [(metric.name, *numbers) for metric, *numbers in metric_rows(compared)], compared.confidence)
    lines += ["", f"{compared.method} * marks intervals without 0."]
    names = [compared.truth.categories[number] for number in compared.settings.category_ids]
    rows: list[tuple[Any, ...]] = [
        (name, *row) for name, row in zip(names, rows_of(compared.comparison.categories), strict=True)
    ]
    rows.sort(key=lambda row: (-abs(row[3]), row[0]))
    for title, sign in (("classes that gained most AP", 1), ("classes that lost most AP", -1)):
        if some := [row for row in rows if row[3] * sign > 0][:SHOWN]:
            lines += ["", *_table(title, some, compared.confidence)]
    images = changed(compared)
    if not images:
        lines += ["", f"{compared.unchanged}."]
    for title, sign in (("images that gained most", 1), ("images that lost most", -1)):
        if found := [row for row in images if row["difference"] * sign > 0][:SHOWN]:
            lines += ["", f"{title}, {compared.image_measure}:"]
            width = max(len(row["file_name"]) for row in found)
            lines += [
                f"  {row['file_name']:<{width}}  {row['f1_a']:.3f}  {row['f1_b']:.3f}  {row['difference']:+.3f}"
                f"  {note(row)}"
                for row in found
            ]
    return "\n".join(map(printable, lines))


def _table(title: str, rows: Sequence[tuple[Any, ...]], confidence: float) -> list[str]:
    width = max(len(title), *(len(row[0]) + 2 for row in rows))
    lines = [f"{title:<{width}}       A       B    B − A  {100 * confidence:g} % interval"]
    for name, a, b, difference, low, high in rows:
        sure = " *" if low > 0 or high < 0 else ""
        interval = "-" if math.isnan(low) else f"{low:+.3f} to {high:+.3f}"
        shown = f"{_plain(a):>8}{_plain(b):>8}{'-' if math.isnan(difference) else f'{difference:+.3f}':>9}"
        lines.append(f"{'  ' + name:<{width}}{shown}  {interval}{sure}")
    return lines


def _plain(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"
