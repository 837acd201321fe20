"""Pictures of a run with what was found on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.report.gallery import Candidate, Marked

#: Boxes that a picture shows at most.
_SHOWN_BOXES = 40


def found_picture(image: Mapping[str, Any], detections: pa.Table, min_score: float, source: str = "") -> Candidate:
    """A picture with its detections.

    Args:
        image: a row of `images`.
        detections: those of the picture, and perhaps others.
        min_score: the least score of what is drawn.
        source: what is asked for, if it is not the picture's `uri`.
    """
    same = pc.and_(pc.equal(detections["image_id"], image["image_id"]), pc.equal(detections["frame"], image["frame"]))
    sure = pc.greater_equal(detections["score"], pa.scalar(min_score, pa.float32()))
    rows = detections.filter(pc.and_(same, sure)).to_pylist()
    rows.sort(key=lambda row: row["rank"])
    boxes = tuple(
        Marked((row["xmin"], row["ymin"], row["xmax"], row["ymax"]), _label(row), "class", row["category_id"])
        for row in rows[:_SHOWN_BOXES]
    )
    found = Counter(row["category"] for row in rows)
    said = ", ".join(f"{n} × {name}" for name, n in found.most_common(4)) or f"nothing of a score from {min_score:g}"
    return Candidate("picture", source or image["uri"], image["file_name"], tuple(found), said, boxes)


def _label(row: Mapping[str, Any]) -> str:
    track = row.get("track_id")
    return f"{row['category']} {row['score']:.2f}" + (f" #{track}" if track else "")
