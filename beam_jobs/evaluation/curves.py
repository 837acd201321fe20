"""Precision by recall of detections that come best first, some at a time: their number has no influence on memory.

Source of the arithmetic: `accumulate` of pycocotools' cocoeval.py, to the last bit. What makes it a stream: precision
has its local maxima where true positives are, and between two of the 101 recalls only the greatest of them counts.
"""

from __future__ import annotations

import numpy as np

from beam_jobs.evaluation.overlaps import Flags, Floats, Ints
from beam_jobs.evaluation.settings import RECALL_THRESHOLDS

_RECALLS = np.array(RECALL_THRESHOLDS)


class Curves:
    """V curves over the same detections, which differ in what counts and in the number of truths."""

    def __init__(self, truths: Ints) -> None:
        """For int64 [V], the truths that count."""
        shape = (len(truths), len(_RECALLS))
        self._takes = least_found(truths)
        self._hits = np.zeros(len(truths), np.int64)
        self._counted = np.zeros(len(truths), np.int64)
        self._best, self._scores = np.zeros(shape), np.zeros(shape)
        self._empty = True

    def add(self, score: Floats, right: Flags, counted: Flags) -> None:
        """The next detections.

        Args:
            score: float64 [N], descending.
            right, counted: bool [V, N], true positives, and all that count, the false ones too.
        """
        if not len(score):
            return
        if self._empty:
            # pycocotools reads recall 0 at the first detection, whether it counts or not.
            self._scores[:, 0] = score[0]
            self._empty = False
        curve, row = np.nonzero(right)
        hits = np.count_nonzero(right, axis=1)
        starts = np.cumsum(hits) - hits
        found = np.arange(1, len(row) + 1) + np.repeat(self._hits - starts, hits)
        shown = np.cumsum(counted, axis=1)[curve, row] + np.repeat(self._counted, hits)
        precision = found / (shown + np.spacing(1))

        # Where each recall's stretch of true positives begins; it ends where the next begins.
        takes = self._takes - self._hits[:, None]
        begin = (starts[:, None] + np.clip(takes - 1, 0, hits[:, None])).ravel()
        filled = np.flatnonzero(np.append(begin[1:], len(row)) > begin)
        if len(filled):
            best = self._best.reshape(-1)
            best[filled] = np.maximum(best[filled], np.maximum.reduceat(precision, begin[filled]))
        here = (takes > 0) & (takes <= hits[:, None])
        self._scores[here] = score[row[(starts[:, None] + takes - 1)[here]]]
        self._hits += hits
        self._counted += np.count_nonzero(counted, axis=1)

    @property
    def hits(self) -> Ints:
        """int64 [V], true positives."""
        return self._hits

    @property
    def precision(self) -> Floats:
        """float64 [V, R], the best at a recall or beyond, 0 where it is not reached."""
        return np.maximum.accumulate(self._best[:, ::-1], axis=1)[:, ::-1]

    @property
    def scores(self) -> Floats:
        """float64 [V, R], the score at which each recall is reached, 0 where it is not."""
        return self._scores

    def average_precision(self) -> Floats:
        """float64 [V], COCO's mean of the precisions at the recalls; 0 without truths or detections."""
        reached = self._takes <= self._hits[:, None]
        rows = zip(self.precision, reached, strict=True)
        return np.array([row[there].sum() / len(_RECALLS) for row, there in rows])


def least_found(truths: Ints) -> Ints:
    """int64 [K, R]: the least number of found truths with found / truths >= each recall, as floats compare."""
    whole = np.maximum(truths, 1)[:, None]
    least: Ints = np.ceil(_RECALLS * whole).astype(np.int64)
    # The product is rounded: it may be one off either way.
    least -= (least - 1) / whole >= _RECALLS
    least += least / whole < _RECALLS
    return least
