"""From a network's raw boxes and scores to detections: what an SSD's graph does behind its network.

Source: the API's `SSDMetaArch.postprocess`, whose score conversion and box decoding are part of the network here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from beam_jobs.boxes import from_normalised_yxyx
from beam_jobs.detectors.nms import Floats, Suppression, suppress
from beam_jobs.errors import InputError
from beam_jobs.records import Detections


@dataclass(frozen=True, slots=True)
class PostProcessing:
    """What is done with the raw outputs.

    Args:
        rules: of the suppression.
        first_category: the category id of the first column of scores: 1 where there is no column for the background.
    """

    rules: Suppression
    first_category: int = 1


def detections_of_raw(boxes: Floats, scores: Floats, width: int, height: int, how: PostProcessing) -> Detections:
    """The detections of one picture, best first.

    Args:
        boxes: float32 [A, 4], ymin, xmin, ymax, xmax as shares of the picture, one for all classes.
        scores: float32 [A, C], 0 to 1.
        width, height: of the upright picture, in pixels.

    Raises:
        InputError: a score is not a finite number: then nothing of that picture can be trusted.
    """
    flat = scores.ravel()
    # One product in place of a look at each: a NaN or an infinity anywhere makes it one. It is quicker than a sum, too.
    if not np.isfinite(np.dot(flat, flat)):
        raise InputError("infer", "inference", "The model gave scores that are not finite numbers.")
    cells = np.flatnonzero(flat > how.rules.score)
    anchors, classes = np.divmod(cells, scores.shape[1])
    candidates, found = boxes[anchors], flat[cells]
    kept = suppress(candidates, classes, found, how.rules)
    clipped = np.clip(candidates[kept], np.float32(0), np.float32(1))
    category_ids = (classes[kept] + how.first_category).astype(np.int32)
    return Detections(from_normalised_yxyx(clipped, width, height), found[kept], category_ids)
