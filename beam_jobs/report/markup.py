"""HTML and SVG from Python: whatever is not `Html` is data, and is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping

#: Characters that HTML may not hold: controls, and halves of surrogate pairs, which have no UTF-8.
_NOT_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_VOID = frozenset(("br", "col", "img", "input", "link", "meta"))

Attribute = str | int | float | bool | None


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


def escape(value: str) -> Html:
    """`value` as text of a page or of an attribute in double quotes; markup stays as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(_NOT_TEXT.sub("\ufffd", value)))


def tag(name: str, attributes: Mapping[str, Attribute] | None = None, /, *children: str) -> Html:
    """An element. Attributes that are None or False are left out; one that is True has no value."""
    written = "".join(
        f" {key}" if value is True else f' {key}="{_attribute(value)}"'
        for key, value in (attributes or {}).items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(*children)}</{name}>")


def join(*children: str) -> Html:
    """The children behind one another."""
    return Html("".join(map(escape, children)))


def isolated(name: str) -> Html:
    """A name from the data: its writing direction, or characters that change it, end with it."""
    return tag("bdi", None, name)


def number(value: float) -> str:
    """A coordinate: two decimals at most."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _attribute(value: str | int | float) -> str:
    if isinstance(value, str):
        return escape(value)
    return number(value)
