"""Whether contenders of the benchmark find the same."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MIN_SCORE = 0.05
#: What threads of another number may change in a score or box; the rest is another detection.
SCORE_TOLERANCE, BOX_TOLERANCE = 1e-3, 0.5

#: Of each path: one row a detection, of category, score, xmin, ymin, xmax, ymax in pixels.
Found = dict[str, NDArray[np.float64]]


@dataclass(slots=True)
class Agreement:
    """How far two contenders found the same, at `MIN_SCORE` or more.

    Args:
        matched: detections that both have.
        unmatched: detections that only one of them has.
        box, score: the largest difference among the matched, in pixels and in score.
    """

    matched: int = 0
    unmatched: int = 0
    box: float = 0.0
    score: float = 0.0


def compare(ours: Found, theirs: Found) -> Agreement:
    """Pairs the detections of each picture: same class, nearest box, within the tolerances.

    What lies within the tolerance of `MIN_SCORE` may be missing on one side.
    """
    result = Agreement(unmatched=len(ours.keys() ^ theirs.keys()))
    for path in ours.keys() & theirs.keys():
        left = list(theirs[path])
        single = []
        for row in ours[path]:
            near = [i for i, other in enumerate(left) if _is_same(row, other)]
            if near:
                other = left.pop(min(near, key=lambda i: _box_difference(row, left[i])))
                # Of two that both lack the job's threshold nobody asks.
                result.matched += max(row[1], other[1]) >= MIN_SCORE
                result.box = max(result.box, _box_difference(row, other))
                result.score = max(result.score, abs(row[1] - other[1]))
            else:
                single.append(row)
        result.unmatched += sum(row[1] >= MIN_SCORE + SCORE_TOLERANCE for row in [*single, *left])
    return result


def _is_same(row: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    near = abs(row[1] - other[1]) <= SCORE_TOLERANCE and _box_difference(row, other) <= BOX_TOLERANCE
    return bool(row[0] == other[0] and near)


def _box_difference(row: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(row[2:] - other[2:]).max())


def agreement_line(name: str, agreement: Agreement) -> str:
    """What `compare` came to, for people."""
    return (
        f"{name} and the loop have {agreement.matched:,} detections in common, {agreement.unmatched:,} only one of them"
        f" has; largest differences {agreement.box:.2g} px and {agreement.score:.2g} in score."
    )
