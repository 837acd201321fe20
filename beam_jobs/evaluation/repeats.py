"""Detections that are there more than once: COCO counts all but the first as false positives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

_NUMBERS = ("image_id", "category_id", "x", "y", "width", "height", "score")
#: An odd number without a pattern: the golden ratio's, as in Knuth's multiplicative hashing.
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


def count_repeats(results: pa.Table) -> int:
    """How many rows of `RESULTS` say what one before them does: image, category, box, score, mask and keypoints."""
    mixed = np.zeros(results.num_rows, np.uint64)
    for name in _NUMBERS:
        values = np.asarray(results[name].to_numpy())
        values = values.astype(np.float64 if values.dtype.kind == "f" else np.int64)
        mixed = (mixed ^ values.view(np.uint64)) * _FACTOR
        mixed ^= mixed >> np.uint64(32)
    order = np.argsort(mixed)
    same = np.flatnonzero(mixed[order][1:] == mixed[order][:-1])
    if not len(same):
        return 0
    some = order[np.union1d(same, same + 1)]
    rows = results.select([*_NUMBERS, "segmentation", "keypoints"]).take(pa.array(some)).to_pylist()
    return len(rows) - len({repr(row) for row in rows})  # as text, in which a box of NaN is like another
