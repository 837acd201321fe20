"""The pictures of the page of an evaluation: which, where they are, and what is drawn on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.formats.image_join import Joined
from beam_jobs.formats.parquet_results import read_columns
from beam_jobs.report.content import GalleryItem
from beam_jobs.report.evaluation_matches import Pick, rows_of
from beam_jobs.report.gallery import Candidate, Gallery, Marked
from beam_jobs.runs.manifest import Manifest, table_files

#: Of each kind.
PICKS = 12
#: What else was found is drawn from this score, and a picture shows at most so many truths, and as many detections.
_SHOWN_SCORE = 0.3
_SHOWN_BOXES = 40
#: A picture that is larger is not read for a page.
_MOST_BYTES = 1 << 28

_ERRORS = {
    "classification": "a thing of another class",
    "localisation": "badly placed",
    "both": "badly placed, and another class",
    "duplicate": "found a second time",
    "background": "no truth there",
}


def evaluation_gallery(
    root: str,
    manifest: Manifest,
    matches: str,
    picks: Sequence[Pick],
    joined: Joined,
    names: Mapping[int, str],
) -> tuple[GalleryItem, ...]:
    """The pictures of `picks`, with their boxes.

    Args:
        root: the folder of the run that is evaluated.
        matches: the path of `matches.parquet`.
        joined: which image of the run is which of the truth.
        names: of the categories, by id.
    """
    rows = rows_of(matches, {pick.image_id for pick in picks})
    sources = _sources(root, manifest, joined, list(rows))
    records = {uri for uri, file_name in sources.values() if not _is_file_of(uri, file_name)}

    def read(uri: str) -> bytes:
        if not uri:
            raise InputError("read", "not_found", "the run does not have it")
        if uri in records:
            raise InputError("read", "unsupported", "it is a record of a TFRecord file, which pages do not read")
        return storage.read_bytes(uri, _MOST_BYTES)

    candidates = []
    for pick in picks:
        uri, _ = sources.get(pick.image_id, ("", ""))
        candidates.append(_candidate(pick, uri, rows[pick.image_id], names))
    return Gallery(read).items(candidates)


def _sources(root: str, manifest: Manifest, joined: Joined, wanted: list[int]) -> dict[int, tuple[str, str]]:
    """The uri and the name in the run, of images of the truth."""
    at = np.flatnonzero(np.isin(joined.truth_ids, np.array(wanted, np.int64)))
    of_truth = dict(zip(joined.image_ids[at].tolist(), joined.truth_ids[at].tolist(), strict=True))
    ids = pa.array(sorted(of_truth), pa.int64())
    found: dict[int, tuple[str, str]] = {}
    for path in table_files(manifest.files, "images"):
        if len(found) == len(of_truth):
            break
        table = read_columns(storage.join(root, path), ["image_id", "uri", "file_name"])
        for row in table.filter(pc.is_in(table["image_id"], value_set=ids)).to_pylist():
            found[of_truth[row["image_id"]]] = (row["uri"], row["file_name"])
    return found


def _is_file_of(uri: str, file_name: str) -> bool:
    """Whether the picture is the file itself: a record has a name of its own."""
    return uri.rpartition("/")[2] == file_name.rpartition("/")[2]


def _candidate(pick: Pick, uri: str, rows: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> Candidate:
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
    boxes = [_marked(row, names, focus=False) for row in shown] + [_marked(row, names, focus=True) for row in focus]
    row = focus[-1]
    name = names.get(row["category_id"], row["category"])
    return Candidate(pick.kind, uri, row["file_name"], (name,), _caption(row, name), tuple(boxes))


def _marked(row: Mapping[str, Any], names: Mapping[int, str], *, focus: bool) -> Marked:
    box = (row["x"], row["y"], row["x"] + row["width"], row["y"] + row["height"])
    name = names.get(row["category_id"], row["category"])
    if row["kind"] == "truth":
        return Marked(box, name, "truth", row["category_id"], focus)
    return Marked(box, f"{name} {row['score']:.2f}", "detection", row["category_id"], focus)


def _caption(row: Mapping[str, Any], name: str) -> str:
    nearest = f", best IoU {row['iou']:.2f}" if row["iou"] > 0 else ""
    if row["kind"] == "truth":
        return f"{name}, {row['area']:,.0f} square pixels{nearest}"
    if row["outcome"] == "TP":
        return f"{name} {row['score']:.2f}, IoU {row['iou']:.2f}"
    # The IoU is with truths of the class: of the other errors it says nothing.
    how_far = nearest if row["error"] == "localisation" else ""
    return f"{name} {row['score']:.2f}: {_ERRORS.get(row['error'], 'no match')}{how_far}"
