"""Giving each detection the best truth that is left.

Source: `evaluateImg` of pycocotools' cocoeval.py.
"""

from __future__ import annotations

import numpy as np

from beam_jobs.evaluation.overlaps import Flags, Floats, Ints, Pairs
from beam_jobs.evaluation.sides import places


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


def greedy_at_thresholds(
    pairs: Pairs, cells: Ints, thresholds: Floats, ignored: Flags, reusable: Flags
) -> tuple[Ints, Ints, Ints, Ints]:
    """What `greedy` finds at each of several thresholds and with several sets of truths that are ignored.

    All cells take a turn at once, and in it all thresholds and sets: first the first detection of each cell that
    overlaps anything, then the second, ….

    Args:
        pairs: all that overlap.
        cells: int64 [N], ascending, of each detection its image and category; truths are of one cell.
        thresholds: float64 [T], the least IoU of a match.
        ignored: bool [A, M].
        reusable: bool [M].

    Returns:
        int64 [X] four times: set, threshold, detection and truth of each match.
    """
    pairs = pairs.where(pairs.iou >= thresholds.min())
    count = len(pairs.iou)
    # Of two keys the greater is chosen: what is not ignored, then the higher IoU, then the last.
    by_iou = np.argsort(pairs.iou, kind="stable")
    key = np.empty(count, np.int64)
    key[by_iou] = np.arange(count)
    starts = np.flatnonzero(np.diff(pairs.detection, prepend=-1))
    lengths = np.diff(starts, append=count)
    turn = places(cells[pairs.detection[starts]])
    by_turn = np.argsort(turn, kind="stable")
    taken = np.zeros((len(ignored), len(thresholds), len(reusable)), bool)
    none = np.empty(0, np.int64)
    found = [(none, none, none, none)]
    for row in np.split(by_turn, np.flatnonzero(np.diff(turn[by_turn])) + 1) if count else ():
        first = np.cumsum(lengths[row]) - lengths[row]
        here = np.repeat(starts[row] - first, lengths[row]) + np.arange(lengths[row].sum())
        truth = pairs.truth[here]
        usable = (~taken[:, :, truth] | reusable[truth]) & (pairs.iou[here] >= thresholds[:, None])
        keys = np.where(usable, (key[here] + np.where(ignored[:, truth], 0, count))[:, None], -1)
        best = np.maximum.reduceat(keys, first, axis=2)
        group, threshold, at = np.nonzero(best >= 0)
        chosen = by_iou[best[group, threshold, at] % count]
        taken[group, threshold, pairs.truth[chosen]] = True
        found.append((group, threshold, pairs.detection[chosen], pairs.truth[chosen]))
    group, threshold, detection, truth = (np.concatenate(column) for column in zip(*found, strict=True))
    return group, threshold, detection, truth
