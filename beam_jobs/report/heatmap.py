"""The confusion matrix as SVG, and its largest confusions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from beam_jobs.report.charts import isolated_text, svg, text, tip
from beam_jobs.report.content import Confusion
from beam_jobs.report.markup import Attribute, Html, number, tag
from beam_jobs.report.numbers import count, percent
from beam_jobs.words import counted

#: With more classes than this the matrix shows those that are confused most.
MOST_CLASSES = 100
_SHOWN_OF_MANY = 50
#: Cells of fewer classes than this have room for their counts.
_FEW = 14
BACKGROUND = "background"


@dataclass(frozen=True, slots=True)
class Confused:
    """Truths of one class that were detected as another."""

    truth: str
    detected: str
    count: int
    share: float


def largest(confusion: Confusion, limit: int) -> list[Confused]:
    """The confusions of two classes (not with the background), most frequent first; ties in the order of classes."""
    between = confusion.counts[:-1, :-1].copy()
    np.fill_diagonal(between, 0)
    totals = confusion.counts.sum(axis=1)
    order = np.argsort(-between, axis=None, kind="stable")[:limit]
    pairs = ((int(i) // len(between), int(i) % len(between)) for i in order)
    names = confusion.names
    return [
        Confused(names[i], names[j], int(between[i, j]), float(between[i, j] / totals[i]))
        for i, j in pairs
        if between[i, j]
    ]


def shown(confusion: Confusion) -> Confusion:
    """The matrix that is drawn: of many classes those with most confusions, in their order; the rest is left out."""
    size = len(confusion.names)
    if size <= MOST_CLASSES:
        return confusion
    between = confusion.counts[:-1, :-1]
    confused = between.sum(axis=0) + between.sum(axis=1) - 2 * between.diagonal()
    kept = np.sort(np.argsort(-confused, kind="stable")[:_SHOWN_OF_MANY])
    names = tuple(confusion.names[i] for i in kept.tolist())
    with_background = np.append(kept, size)
    return Confusion(names, confusion.counts[np.ix_(with_background, with_background)], confusion.note)


def heatmap(name: str, title: str, confusion: Confusion, totals: NDArray[np.int64]) -> Html:
    """Cells by share of their row; `totals` are the sums of the rows, columns that are not shown included."""
    names = (*confusion.names, BACKGROUND)
    size = len(names)
    cell = 30 if size <= _FEW else 16 if size <= 40 else 12
    left, top = 132, 118
    marks = []
    for i, label in enumerate(names):
        middle = (i + 0.5) * cell
        short = isolated_text(label, 19)
        marks.append(text(left - 6, top + middle + 4, short, anchor="end"))
        turned = f"translate({number(left + middle + 4)} {top - 6}) rotate({-60 if cell > 12 else -90})"
        marks.append(tag("text", {"transform": turned}, short))
    side = size * cell
    marks.append(tag("rect", {"x": left, "y": top, "width": side, "height": side, "class": "field"}))
    rows, columns = np.nonzero(confusion.counts)
    for i, j in zip(rows.tolist(), columns.tolist(), strict=True):
        value = int(confusion.counts[i, j])
        share = value / int(totals[i])
        x, y = left + j * cell, top + i * cell
        kind = "edge" if size - 1 in (i, j) else "right" if i == j else "wrong"
        shape: dict[str, Attribute] = {"x": x, "y": y, "width": cell, "height": cell, "class": f"cell {kind}"}
        # Not linear: rare confusions are what one looks for.
        shape["fill-opacity"] = 0.12 + 0.88 * share**0.6
        said = f"{names[i]} detected as {names[j]}: {count(value)} ({percent(share)})"
        if i == size - 1:
            said = f"{names[j]} detected where there is none: {count(value)}"
        elif j == size - 1:
            said = f"{names[i]} missed: {count(value)} ({percent(share)})"
        marks.append(tag("rect", shape, tip(said)))
        if size <= _FEW:
            css = "incell on" if share > 0.5 else "incell"
            marks.append(text(x + cell / 2, y + cell / 2 + 4, count(value), anchor="middle", css=css))
    description = f"Rows are truths, columns detections, of {counted(size - 1, 'class', 'classes')} and the background."
    return svg(name, title, description, top + side + 8, *marks, width=left + side + 70)
