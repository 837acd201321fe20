"""Which detections of a picture are kept, and in which order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from beam_jobs import boxes
from beam_jobs.records import Detections


@dataclass(frozen=True, slots=True)
class Selection:
    """The rules of a job.

    Args:
        min_score: detections below it are left out.
        max_detections: the best so many of a picture; None for all that the model gives.
        category_ids: only these; None for all.
    """

    min_score: float = 0.05
    max_detections: int | None = None
    category_ids: frozenset[int] | None = None


def select(found: Detections, width: int, height: int, rules: Selection) -> tuple[Detections, int]:
    """The detections to keep, best first, and how many of those the rules ask for had an empty box.

    Boxes are clipped to the picture (`width`, `height` in pixels); keypoints are not: neither the API nor COCO moves
    one that is guessed to lie outside. Ties in score are ordered by category, then box, so that the order is the same
    whatever order the model gave.
    """
    wanted = found.scores >= rules.min_score  # a NaN score is below everything
    if rules.category_ids is not None:
        wanted &= np.isin(found.category_ids, list(rules.category_ids))
    found = found.take(wanted)
    clipped = boxes.clip(found.boxes, width, height)
    full = ~boxes.is_empty(clipped)
    kept = replace(found, boxes=clipped).take(full)
    keys = (*(kept.boxes[:, side] for side in (3, 2, 1, 0)), kept.category_ids, -kept.scores)
    return kept.take(np.lexsort(keys)[: rules.max_detections]), int((~full).sum())
