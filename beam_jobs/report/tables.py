"""Tables that are sorted and filtered by the page's script, and read without it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from beam_jobs.report.markup import Attribute, Html, isolated, tag


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its heading, what it means (shown on hovering), and whether its cells are numbers."""

    title: str
    description: str = ""
    is_number: bool = True


@dataclass(frozen=True, slots=True)
class Bar:
    """A cell with a number and a bar of 0..1 behind it."""

    text: str
    share: float


Cell = str | Bar


def table(
    caption: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    *,
    sorted_by: tuple[int, str] | None = None,
    sortable: bool = True,
    filtered: bool = False,
    tall: bool = False,
) -> Html:
    """A table whose first column names the rows.

    Args:
        rows: a cell a column; the first is a name from the data, the others text, markup or a `Bar`.
        sorted_by: the column and direction (`ascending`, `descending`) in which the rows come.
        filtered: rows are filtered by the page's class filter, by their name.
        tall: it scrolls inside its own frame.
    """
    heads = []
    for i, column in enumerate(columns):
        direction = None
        if sortable:
            direction = sorted_by[1] if sorted_by and sorted_by[0] == i else "none"
        attributes: dict[str, Attribute] = {"scope": "col", "class": "n" if column.is_number else None}
        attributes |= {"aria-sort": direction, "title": column.description or None}
        heads.append(
            tag("th", attributes, tag("button", {"type": "button"}, column.title) if sortable else column.title)
        )
    body = [tag("tr", None, _row_head(row[0]), *_cells(columns[1:], row[1:])) for row in rows]
    shape: dict[str, Attribute] = {"data-sort": sortable, "data-filter": filtered}
    parts = (tag("caption", None, caption), tag("thead", None, tag("tr", None, *heads)), tag("tbody", None, *body))
    frame: dict[str, Attribute] = {"class": "scroll tall" if tall else "scroll", "role": "region", "tabindex": 0}
    return tag("div", {**frame, "aria-label": caption}, tag("table", shape, *parts))


def _row_head(cell: Cell) -> Html:
    text = cell.text if isinstance(cell, Bar) else cell
    return tag("th", {"scope": "row"}, text if isinstance(text, Html) else isolated(text))


def _cells(columns: Sequence[Column], cells: Sequence[Cell]) -> list[Html]:
    made = []
    for column, cell in zip(columns, cells, strict=True):
        if isinstance(cell, Bar):
            share = min(max(cell.share, 0.0), 1.0)
            made.append(tag("td", {"class": "n bar", "style": f"--v:{share:.3f}"}, cell.text))
        else:
            made.append(tag("td", {"class": "n" if column.is_number else None}, cell))
    return made
