"""How good tracks are: MOTA and IDF1, plainly.

Sources: K. Bernardin, R. Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics", 2008;
E. Ristani and others, "Performance Measures and a Data Set for Multi-Target, Multi-Camera Tracking", 2016.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from beam_jobs.tracking.assignment import best_pairs

Box = tuple[float, float, float, float]
FrameOfBoxes = Mapping[int, Box]  # by identity


@dataclass(frozen=True)
class Mot:
    mota: float
    idf1: float
    misses: int
    false_positives: int
    switches: int


def score_tracks(truth: Sequence[FrameOfBoxes], tracks: Sequence[FrameOfBoxes], iou: float = 0.5) -> Mot:
    """The scores of `tracks` (frames of boxes by track id) against `truth` (by object)."""
    misses = false_positives = switches = 0
    matched: dict[int, int] = {}  # the track that an object had last
    together: dict[tuple[int, int], int] = {}  # frames in which an object and a track overlap
    for objects, boxes in zip(truth, tracks, strict=True):
        near = {(o, t) for o, t in product(objects, boxes) if overlap(objects[o], boxes[t]) >= iou}
        for pair in near:
            together[pair] = together.get(pair, 0) + 1
        now = {o: t for o, t in matched.items() if (o, t) in near}  # CLEAR MOT keeps what still fits
        rest_o = [o for o in objects if o not in now]
        rest_t = [t for t in boxes if t not in now.values()]
        gains = np.array(
            [[overlap(objects[o], boxes[t]) if (o, t) in near else 0.0 for t in rest_t] for o in rest_o]
        ).reshape(len(rest_o), len(rest_t))
        now |= {rest_o[i]: rest_t[j] for i, j in best_pairs(gains)}
        switches += sum(o in matched and matched[o] != t for o, t in now.items())
        misses += len(objects) - len(now)
        false_positives += len(boxes) - len(now)
        matched |= now
    in_truth, in_tracks = sum(map(len, truth)), sum(map(len, tracks))
    names = sorted({o for o, _ in together}), sorted({t for _, t in together})
    shared = np.array([[float(together.get((o, t), 0)) for t in names[1]] for o in names[0]])
    same = sum(shared[pair] for pair in best_pairs(shared)) if together else 0
    return Mot(
        1 - (misses + false_positives + switches) / in_truth,
        2 * same / (in_truth + in_tracks),
        misses,
        false_positives,
        switches,
    )


def overlap(one: Box, other: Box) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)
