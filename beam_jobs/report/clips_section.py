"""The clips of a run on its page: a list of them, and of some a timeline and stills."""

from __future__ import annotations

from beam_jobs.report import parts
from beam_jobs.report.content import ClipContent, ClipRow, ClipsContent
from beam_jobs.report.markup import Attribute, Html, isolated, join, tag
from beam_jobs.report.numbers import clock, count
from beam_jobs.report.tables import Cell, Column, table
from beam_jobs.report.timeline import timeline
from beam_jobs.words import counted


def clips_section(clips: ClipsContent) -> list[Html]:
    """What the section holds; nothing, if there were no clips."""
    if not clips.listed:
        return []
    return [_list(clips), *_note(clips), *(_card(i, clip) for i, clip in enumerate(clips.shown))]


def _list(clips: ClipsContent) -> Html:
    columns = [
        Column("Clip", is_number=False),
        Column("Frames", "That were looked at"),
        Column("From", "Of the first of these frames", is_number=False),
        Column("To", "End of the last of these frames", is_number=False),
        Column("Detections"),
        Column("A frame", "Detections a frame, on average"),
        Column("At most", "Detections in the frame with most"),
        *([Column("Objects", "That were followed from frame to frame: tracks")] if clips.tracked else []),
        Column("Mostly", "The most frequent classes", is_number=False),
    ]
    number = counted(len(clips.listed), "clip")
    what = number if len(clips.listed) == clips.all else f"the {number} of {clips.all:,} in which most was found"
    rows = [_row(row, clips.tracked) for row in clips.listed]
    return table(f"Clips: {what}", columns, rows, sorted_by=(0, "ascending"), tall=True)


def _row(row: ClipRow, tracked: bool) -> list[Cell]:
    return [
        row.video,
        count(row.frames),
        clock(row.begin_s),
        clock(row.end_s),
        count(row.detections),
        f"{row.detections / row.frames:.1f}",
        count(row.most),
        *([count(row.tracks)] if tracked else []),
        ", ".join(row.classes),
    ]


def _note(clips: ClipsContent) -> list[Html]:
    if len(clips.shown) == clips.all:
        return []
    return [tag("p", {"class": "note"}, f"Shown are the {len(clips.shown)} in which most was found.")]


def _card(number: int, clip: ClipContent) -> Html:
    heading = tag("h3", None, isolated(clip.video))
    link = Html()
    if clip.annotated:
        link = tag("p", {"class": "note"}, tag("a", {"href": clip.annotated}, "Annotated video"))
    if not clip.timeline.lanes:
        shown = tag("p", {"class": "note"}, "Nothing was found that counts.")
    else:
        frame: dict[str, Attribute] = {"class": "scroll matrix", "role": "region", "tabindex": 0}
        said = f"What was found in {clip.video}"
        chart = tag("div", {**frame, "aria-label": said}, timeline(f"clip-{number}", said, clip.timeline))
        live = " A live stream cannot be read again: there are no stills." if clip.is_live else ""
        shown = join(chart, tag("p", {"class": "note"}, f"Objects a frame by class: the darker, the more.{live}"))
    stills = tag("div", {"class": "stills"}, *map(parts.gallery_item, clip.stills)) if clip.stills else ""
    return tag("div", {"class": "card wide"}, heading, shown, stills, link)
