"""How wide a text is, about, and how it is cut to a width."""

from __future__ import annotations

import unicodedata


def width(text: str) -> int:
    """In columns: East Asian wide characters take two, marks that combine none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(text: str, columns: int) -> str:
    """The text, cut at its end with an ellipsis if it is wider than `columns`."""
    text = " ".join(text.split())
    if len(text) <= columns // 2 or width(text[: 4 * columns]) <= columns:
        return text[: 4 * columns]
    kept = 0
    for i, character in enumerate(text):
        kept += width(character)
        if kept > columns - 1:
            return text[:i].rstrip() + "…"
    return text
