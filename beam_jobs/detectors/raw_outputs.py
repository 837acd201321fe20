"""From a network's raw boxes and scores to detections: what an SSD's graph does behind its network.

Source: the API's `SSDMetaArch.postprocess`, whose score conversion and box decoding are part of the network here, and
its `core/post_processing.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from beam_jobs.boxes import from_normalised_yxyx
from beam_jobs.detectors.nms import Floats, Ints, Suppression, suppress
from beam_jobs.errors import InputError
from beam_jobs.records import Detections

#: Of more candidates the best so many are tried first, then this many times as many.
_FIRST, _TIMES = 8192, 8


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """What is done with the raw outputs.

    Args:
        rules: of the suppression.
        first_category: the category id of the first column of scores: 1 where there is no column for the background.
        class_agnostic: a box is a candidate for its best class only, and overlaps count whatever the classes are.
        drop_empty: boxes without area inside the picture do not count to `rules.total`.
    """

    rules: Suppression
    first_category: int = 1
    class_agnostic: bool = False
    drop_empty: bool = False


def detections_of_raw(
    boxes: Floats,
    scores: Floats,
    width: int,
    height: int,
    how: PostProcessing,
    inside: tuple[float, float] = (1.0, 1.0),
) -> Detections:
    """The detections of one picture, best first.

    Args:
        boxes: float32 [A, 4], ymin, xmin, ymax, xmax as shares of the network's input, one for all classes.
        scores: float32 [A, C], 0 to 1.
        width, height: of the upright picture, in pixels.
        inside: the height and width of what the picture takes of the network's input, from its upper left corner on, as
            shares of it.

    Raises:
        InputError: a score is not a finite number: then nothing of that picture can be trusted.
    """
    flat = scores.ravel()
    # One product in place of a look at each: a NaN or an infinity anywhere makes it one. It is quicker than a sum, too.
    if not np.isfinite(np.dot(flat, flat)):
        raise InputError("infer", "inference", "The model gave scores that are not finite numbers.")
    window = np.array(inside * 2, np.float32)
    best = scores.argmax(axis=1) if how.class_agnostic else None
    if best is not None:
        flat = scores[np.arange(len(scores)), best]
    for cells in _best_first(flat, np.flatnonzero(flat > np.float32(how.rules.score))):
        anchors, classes = np.divmod(cells, scores.shape[1]) if best is None else (cells, best[cells])
        groups = classes if best is None else np.zeros_like(classes)
        candidates, found = boxes[anchors], flat[cells]
        clipped = np.clip(candidates, np.float32(0), window)
        wanted = ((clipped[:, 2:] - clipped[:, :2]).prod(axis=1) > 0) if how.drop_empty else None
        kept = suppress(candidates, groups, found, how.rules, wanted)
        if len(kept) == how.rules.total:
            break
    category_ids = (classes[kept] + how.first_category).astype(np.int32)
    normalised = clipped[kept] * (np.float32(1) / window)
    return Detections(from_normalised_yxyx(normalised, width, height), found[kept], category_ids)


def _best_first(scores: Floats, cells: Ints) -> Iterator[Ints]:
    """Of many `cells` the best few first, since those below have no influence on them; at last all.

    If few come to as many detections as there may be, they are what all come to.
    """
    size = _FIRST
    while size < len(cells):
        found = scores[cells]
        # Those of the same score stay together.
        yield cells[found >= np.partition(found, len(cells) - size)[-size]]
        size *= _TIMES
    yield cells
