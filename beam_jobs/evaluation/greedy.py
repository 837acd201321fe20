"""Giving each detection the best truth that is left.

Source: `evaluateImg` of pycocotools' cocoeval.py.
"""

from __future__ import annotations

import numpy as np

from beam_jobs.evaluation.overlaps import Flags, Ints, Pairs


def greedy(pairs: Pairs, detections: int, ignored: Flags, reusable: Flags) -> tuple[Ints, Ints]:
    """The truth of each detection and the (last) detection of each truth, int64, -1 for none.

    Detections choose in the order of their rows, the best of the truths that are left; among equals the last. A truth
    that is ignored is chosen only for want of another.

    Args:
        pairs: those that would do.
        detections: how many rows.
        ignored, reusable: bool [M]; reusable truths are never used up.
    """
    match, taken = [-1] * detections, [-1] * len(ignored)
    last, best, best_iou, best_ignored = -1, -1, 0.0, True
    rows = zip(
        pairs.detection.tolist(),
        pairs.truth.tolist(),
        pairs.iou.tolist(),
        ignored[pairs.truth].tolist(),
        reusable[pairs.truth].tolist(),
        strict=True,
    )
    for detection, truth, iou, is_ignored, is_reusable in rows:
        if detection != last:
            if best >= 0:
                match[last], taken[best] = best, last
            last, best, best_iou, best_ignored = detection, -1, 0.0, True
        if taken[truth] >= 0 and not is_reusable:
            continue
        if iou >= best_iou if is_ignored == best_ignored else best_ignored:
            best, best_iou, best_ignored = truth, iou, is_ignored
    if best >= 0:
        match[last], taken[best] = best, last
    return np.array(match, np.int64), np.array(taken, np.int64)
