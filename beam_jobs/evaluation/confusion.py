"""Which category is taken for which: the confusion matrix with background.

Source of the definition: hotcoco's `confusion_matrix` (https://derekallman.github.io/hotcoco/). Of an image the
detections of all categories together choose among all truths that are no crowds.
"""

from __future__ import annotations

import numpy as np

from beam_jobs.evaluation.greedy import greedy
from beam_jobs.evaluation.overlaps import Ints, Pairs
from beam_jobs.evaluation.sides import Detections, Truths, places


def confusion_cells(
    regions: Pairs, truths: Truths, found: Detections, *, iou: float, score: float, at_most: int, categories: int
) -> Ints:
    """int64 [X], a cell of the flat matrix [K + 1, K + 1] for each matched pair and each one left over.

    Rows are the truth's category, columns the detection's, the last of each is background.

    Args:
        regions: pairs over all categories, without crowds.
        iou: the least of a match.
        score: detections below it are left out.
        at_most: detections an image.
        categories: K.
    """
    order = np.lexsort((-found.score, found.image_id))  # ties stay by category
    order = order[found.score[order] >= score]
    order = order[places(found.image_id[order]) < at_most]
    position = np.full(len(found.row), -1, np.int64)
    position[order] = np.arange(len(order))

    chosen = (regions.iou >= iou) & (position[regions.detection] >= 0)
    detection, truth, values = position[regions.detection[chosen]], regions.truth[chosen], regions.iou[chosen]
    by_position = np.argsort(detection, kind="stable")
    pairs = Pairs(detection[by_position], truth[by_position], values[by_position])
    none = np.zeros(len(truths.row), bool)
    match, taken = greedy(pairs, len(order), none, none)
    there = np.full(len(order), categories, np.int64)
    there[match >= 0] = truths.slot[match[match >= 0]]
    missed = truths.slot[(taken < 0) & ~truths.iscrowd]
    stride = categories + 1
    return np.concatenate([there * stride + found.slot[order], missed * stride + categories])
