"""The frame of every page: one file that needs nothing else, and may fetch nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from beam_jobs.report.markup import Html, join, tag


@dataclass(frozen=True, slots=True)
class Section:
    """A section with its heading; `name` is its id. Without content it is left out."""

    name: str
    title: str
    content: Sequence[str]


def document(title: str, subtitle: str, sections: Sequence[Section], *, filter_label: str = "") -> bytes:
    """The page as UTF-8: the same for the same content.

    Args:
        filter_label: of the field that filters tables and pictures by class; without it there is none.
    """
    script = _asset("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        None,
        tag("meta", {"charset": "utf-8"}),
        tag("meta", {"http-equiv": "Content-Security-Policy", "content": policy}),
        tag("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        tag("meta", {"name": "color-scheme", "content": "light dark"}),
        tag("meta", {"name": "robots", "content": "noindex"}),
        tag("title", None, title),
        tag("link", {"rel": "icon", "href": "data:,"}),
        tag("style", None, Html(_asset("page.css"))),
    )
    shown = [section for section in sections if any(section.content)]
    body = tag(
        "body",
        None,
        tag("a", {"class": "skip", "href": "#main"}, "Skip to the results"),
        tag("header", {"class": "top"}, tag("h1", None, title), tag("p", {"class": "subtitle"}, subtitle)),
        _toolbar(shown, filter_label),
        tag("main", {"id": "main"}, *map(_section, shown)),
        tag("footer", None, "beam-detect. This page is a single file and loads nothing from elsewhere."),
        tag("script", None, Html(script)),
    )
    return join(Html("<!doctype html>\n"), tag("html", {"lang": "en"}, head, body), "\n").encode()


def _toolbar(sections: Sequence[Section], filter_label: str) -> Html:
    links = (tag("li", None, tag("a", {"href": f"#{section.name}"}, section.title)) for section in sections)
    field = Html()
    if filter_label:
        box = tag("input", {"type": "search", "id": "filter", "placeholder": filter_label, "aria-label": filter_label})
        field = tag("div", {"class": "filter", "hidden": True}, box, tag("output", {"for": "filter", "id": "matches"}))
    return tag("div", {"class": "toolbar"}, tag("nav", {"aria-label": "Sections"}, tag("ul", None, *links)), field)


def _section(section: Section) -> Html:
    heading = tag("h2", {"id": f"{section.name}-heading"}, section.title)
    attributes = {"id": section.name, "aria-labelledby": f"{section.name}-heading"}
    return tag("section", attributes, heading, *section.content)


@cache
def _asset(name: str) -> str:
    return resources.files("beam_jobs.report").joinpath("assets", name).read_text(encoding="utf-8")
