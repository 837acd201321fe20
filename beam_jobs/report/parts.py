"""What the pages have in common: tiles, lists of facts, figures, the gallery."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from beam_jobs.report import charts
from beam_jobs.report.content import GalleryItem, Histogram, Picture
from beam_jobs.report.markup import Attribute, Html, isolated, join, tag
from beam_jobs.report.numbers import count

_KINDS = {
    "false_positive": "False positives",
    "missed": "Missed objects",
    "hit": "Best hits",
    "picture": "Pictures",
    "better": "Better in B",
    "worse": "Worse in B",
}

#: What a picture of a kind is called on its own.
_ONE = _KINDS | {"false_positive": "False positive", "missed": "Missed", "hit": "Hit"}

#: The score from which detections are shown on their own.
_SURE = 0.3


def tiles(entries: Sequence[tuple[str, str, str]]) -> Html:
    """Numbers to be read first: value, name, what it is. The first is the largest."""
    made = [
        tag(
            "li",
            {"class": "tile first" if i == 0 else "tile", "title": description or None},
            tag("span", {"class": "figure"}, value),
            tag("span", {"class": "name"}, name),
        )
        for i, (value, name, description) in enumerate(entries)
    ]
    return tag("ul", {"class": "tiles"}, *made) if made else Html()


def count_tiles(counts: Sequence[tuple[str, int]]) -> Html:
    """Counts in a row."""
    items = [tag("div", None, tag("dt", None, name), tag("dd", None, count(value))) for name, value in counts]
    return tag("dl", {"class": "counts"}, *items) if items else Html()


def facts(title: str, entries: Sequence[tuple[str, str]]) -> Html:
    """Names and values."""
    if not entries:
        return Html()
    pairs = [join(tag("dt", None, name), tag("dd", None, isolated(value))) for name, value in entries]
    return tag("div", {"class": "card"}, tag("h3", None, title), tag("dl", {"class": "facts"}, *pairs))


def figure(title: str, chart: str, *notes: str, wide: bool = False) -> Html:
    """A chart with its heading and what is said below it."""
    said = [tag("p", {"class": "note"}, note) for note in notes if note]
    return tag("figure", {"class": "card wide" if wide else "card"}, tag("h3", None, title), chart, *said)


def score_histograms(bins: Histogram) -> list[Html]:
    """Detections by score; where those of low scores dwarf the others, the others once more."""
    parts = [(bins, "scores-chart", "Detections by score")]
    upper = bins.above(_SURE)
    if 0 < upper.highest < bins.highest / 5:
        parts.append((upper, "scores-upper", f"Detections of a score from {_SURE}"))
    made = []
    for data, name, title in parts:
        chart = charts.histogram(name, title, data, "score", "detections")
        labels = [(css, series.label) for css, series in zip(charts.STACK, data.series, strict=False)]
        made.append(figure(title, join(chart, charts.legend(labels)) if len(labels) > 1 else chart))
    return made


def grid(*cards: str) -> Html:
    """Cards next to one another where there is room."""
    shown = [card for card in cards if card]
    return tag("div", {"class": "grid"}, *shown) if shown else Html()


def warnings(lines: Sequence[str]) -> Html:
    """What people should know first."""
    items = [tag("li", None, line) for line in lines]
    return tag("ul", {"class": "warnings", "aria-label": "Warnings"}, *items) if items else Html()


def gallery(items: Sequence[GalleryItem], note: str = "") -> list[Html]:
    """Pictures by kind, with buttons that choose a kind."""
    if not items:
        return []
    kinds = list(dict.fromkeys(item.kind for item in items))
    choices: list[tuple[str, str, int]] = [
        (kind, _KINDS[kind], sum(item.kind == kind for item in items)) for kind in kinds
    ]
    choices += [("", "All", len(items))] if len(kinds) > 1 else []
    buttons = []
    for i, (kind, name, number) in enumerate(choices):
        attributes: dict[str, Attribute] = {"type": "button", "data-kind": kind}
        attributes["aria-pressed"] = "false" if i else "true"
        buttons.append(tag("button", attributes, f"{name} ({count(number)})"))
    shown = [tag("p", {"class": "note"}, note)] if note else []
    # Without its script the page shows all pictures: buttons appear with what they do.
    group: dict[str, Attribute] = {"class": "choice", "role": "group", "aria-label": "Kind of picture", "hidden": True}
    more = tag("button", {"type": "button", "class": "more", "hidden": True}, "Show more")
    return [*shown, tag("div", group, *buttons), tag("div", {"class": "gallery"}, *map(gallery_item, items)), more]


def _image(picture: Picture, said: str) -> Html:
    data = base64.b64encode(picture.jpeg).decode()
    attributes: dict[str, Attribute] = {"src": f"data:image/jpeg;base64,{data}", "alt": said}
    return tag("img", attributes | {"width": picture.width, "height": picture.height})


def gallery_item(item: GalleryItem) -> Html:
    """A picture with what there is to say of it."""
    said = f"{item.caption}, in {item.file_name}"
    if item.picture is None:
        picture = tag("div", {"class": "missing"}, item.missing or "no picture")
    elif item.beside is None:
        picture = _image(item.picture, said)
    else:
        pair = (("A", item.picture), ("B", item.beside))
        sides = [
            tag(
                "div", None, _image(one, f"{name}: {said}"), tag("span", {"class": "side", "aria-hidden": "true"}, name)
            )
            for name, one in pair
        ]
        picture = tag("div", {"class": "pair"}, *sides)
    name = tag("span", {"class": "file"}, isolated(item.file_name))
    label = tag("span", {"class": f"kind {item.kind}"}, _ONE[item.kind]) if item.kind != "picture" else ""
    caption = tag("figcaption", None, label, tag("span", {"class": "caption"}, item.caption), name)
    classes = "\n".join(item.categories)
    css = "wide" if item.beside else None
    return tag("figure", {"class": css, "data-kind": item.kind, "data-classes": classes}, picture, caption)
