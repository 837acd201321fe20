"""The pictures of the page of an evaluation: which, where they are, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from beam_jobs.report.content import GalleryItem
from beam_jobs.report.evaluation_matches import Pick
from beam_jobs.report.gallery import Candidate, Gallery, Marked
from beam_jobs.report.pictures import Pictures
from beam_jobs.report.shapes import Key, Shape

#: Of each kind.
PICKS = 12
#: What else was found is drawn from this score, and a picture shows at most so many truths, and as many detections.
_SHOWN_SCORE = 0.3
_SHOWN_BOXES = 40

_ERRORS = {
    "classification": "a thing of another class",
    "localisation": "badly placed",
    "both": "badly placed, and another class",
    "duplicate": "found a second time",
    "background": "no truth there",
}


def evaluation_gallery(
    rows: Mapping[int, Sequence[Mapping[str, Any]]],
    picks: Sequence[Pick],
    pictures: Pictures,
    shapes: Mapping[Key, Shape],
    names: Mapping[int, str],
    overlap: str,
) -> tuple[GalleryItem, ...]:
    """The pictures of `picks`, with their boxes.

    Args:
        rows: of `matches.parquet`, by image.
        names: of the categories, by id.
        overlap: what their `iou` is: IoU or OKS.
    """
    candidates = [_candidate(pick, rows[pick.image_id], shapes, names, overlap) for pick in picks]
    return Gallery(lambda source: pictures.read(int(source))).items(candidates)


def _candidate(
    pick: Pick,
    rows: Sequence[Mapping[str, Any]],
    shapes: Mapping[Key, Shape],
    names: Mapping[int, str],
    overlap: str,
) -> Candidate:
    truths = [row for row in rows if row["kind"] == "truth"]
    found = [row for row in rows if row["kind"] == "detection"]
    found.sort(key=lambda row: (-row["score"], row["detection"]))
    if pick.kind == "missed":
        focus = [next(row for row in truths if row["truth_id"] == pick.number)]
    else:
        focus = [next(row for row in found if row["detection"] == pick.number)]
        if pick.kind == "hit":
            focus = [*(row for row in truths if row["truth_id"] == focus[0]["truth_id"]), *focus]
    shown = [row for row in truths if row not in focus][:_SHOWN_BOXES]
    shown += [row for row in found if row["score"] >= _SHOWN_SCORE and row not in focus][:_SHOWN_BOXES]
    boxes = [marked(row, shapes, names) for row in shown]
    boxes += [replace(marked(row, shapes, names), focus=True) for row in focus]
    row = focus[-1]
    name = names.get(row["category_id"], row["category"])
    return Candidate(
        pick.kind, str(pick.image_id), row["file_name"], (name,), _caption(row, name, overlap), tuple(boxes)
    )


def marked(row: Mapping[str, Any], shapes: Mapping[Key, Shape], names: Mapping[int, str]) -> Marked:
    """A row of `MATCHES` to be drawn."""
    box = (row["x"], row["y"], row["x"] + row["width"], row["y"] + row["height"])
    name = names.get(row["category_id"], row["category"])
    kind = row["kind"]
    shape = shapes.get((kind, row["image_id"], row["truth_id" if kind == "truth" else "detection"]))
    label = name if kind == "truth" else f"{name} {row['score']:.2f}"
    return Marked(box, label, kind, row["category_id"], shape=shape)


def _caption(row: Mapping[str, Any], name: str, overlap: str) -> str:
    nearest = f", best {overlap} {row['iou']:.2f}" if row["iou"] > 0 else ""
    if row["kind"] == "truth":
        return f"{name}, {row['area']:,.0f} square pixels{nearest}"
    if row["outcome"] == "TP":
        return f"{name} {row['score']:.2f}, {overlap} {row['iou']:.2f}"
    # It is with truths of the class: of the other errors it says nothing.
    how_far = nearest if row["error"] == "localisation" else ""
    return f"{name} {row['score']:.2f}: {_ERRORS.get(row['error'], 'no match')}{how_far}"
