"""A COCO evaluation as a state that grows image by image, merges in any order, and crosses the wire.

The work is hotcoco's `StreamingEval` (https://derekallman.github.io/hotcoco/), which equals pycocotools to the bit;
what is here keeps to the inputs for which it does, and to few bytes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import hotcoco
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.rows import results_of, truths_of
from beam_jobs.evaluation.settings import RECALL_THRESHOLDS, EvaluationSettings
from beam_jobs.records import MAX_IMAGE_ID

_DIGEST_BYTES = 16


def limit_threads(count: int) -> None:
    """Caps the threads of hotcoco's pool in this process, which is as large as the machine unless told.

    The pool (rayon's) reads `RAYON_NUM_THREADS` when it is first used, not on import: to be called before the first
    update in a worker that shares its machine with others. Later it has no effect. The results do not depend on it.
    """
    os.environ["RAYON_NUM_THREADS"] = str(count)


def category_groups(
    settings: EvaluationSettings, detections: Mapping[int, int], at_most: int
) -> list[EvaluationSettings]:
    """Settings for runs of neighbouring categories, each with at most so many detections.

    States of such groups are kept apart and `Accumulated.concat` joins what comes of them: so the process that merges
    never holds more than a group. A category with more is alone; its images are spread over states as all are, but its
    numbers need one sort over all its scores. In memory a state takes about 33 bytes a detection (default settings,
    several detections an image and category; at most 86), packed 6 to 21.

    Args:
        detections: by category id; what is not there counts as none.
        at_most: detections a group, 1 or more.
    """
    groups: list[list[int]] = []
    held = 0
    for number in settings.category_ids:
        count = detections.get(number, 0)
        if not groups or held + count > at_most:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += count
    return [replace(settings, category_ids=tuple(group)) for group in groups]


class EvaluationState:
    """What is known of the images seen so far: flags and scores of detections, no boxes.

    The same images give the same bytes and the same numbers, however they were batched, sharded and merged. An image
    must come whole, once: hotcoco keeps the last of two silently.
    """

    def __init__(self, settings: EvaluationSettings, evaluator: hotcoco.StreamingEval) -> None:
        """For `empty`, `from_bytes` and `merge`."""
        self.settings = settings
        self._evaluator = evaluator

    @staticmethod
    def empty(settings: EvaluationSettings) -> EvaluationState:
        """The state before any image; merging it changes nothing."""
        # Categories go by their place among the evaluated: every id that Arrow can hold is then one that hotcoco takes.
        places = range(len(settings.category_ids))
        categories = [{"id": place, "name": str(place)} for place in places]
        parameters = hotcoco.Params(settings.iou_type)
        # Reading one of these gives a copy, so each is set whole.
        parameters.iou_thrs = list(settings.iou_thresholds)
        parameters.rec_thrs = list(RECALL_THRESHOLDS)
        parameters.max_dets = list(settings.max_detections)
        parameters.area_rng = [[area.low, area.high] for area in settings.area_ranges]
        parameters.area_rng_lbl = [area.label for area in settings.area_ranges]
        parameters.cat_ids = list(places)
        return EvaluationState(settings, hotcoco.StreamingEval(categories, settings.iou_type, params=parameters))

    def update(self, images: pa.Table, objects: pa.Table, results: pa.Table) -> None:
        """Matches some images and adds what came of it.

        Rows of categories that are not evaluated are passed over. An update of many images (32 or more) costs less
        than many updates.

        Args:
            images: rows of `TRUTH_IMAGES`; those without truths and results too.
            objects: rows of `TRUTH_OBJECTS`, all of these images and of no other.
            results: rows of `RESULTS`, likewise. In `segm` and `keypoints` a box of NaN says that the result has none:
                its area is then that of the mask, or of the box around the keypoints.

        Raises:
            ValueError: rows that COCO's rules do not cover: an image id outside [0, 2**53), rows of other images, a
                NaN score, no mask or keypoints where they are what is compared, polygons in an image of unknown size,
                some results with a box and some without. The state is then as it was.
        """
        ids: NDArray[np.int64] = images["image_id"].to_numpy()
        # hotcoco's arrays of results are float64, image ids included.
        if len(ids) and not 0 <= ids.min() <= ids.max() < MAX_IMAGE_ID:
            raise ValueError(f"image_id must be in [0, 2**53), got {ids.min()}..{ids.max()}")
        objects, truth_places = self._evaluated(objects, ids, "truths")
        results, places = self._evaluated(results, ids, "results")
        if np.isnan(results["score"].to_numpy()).any():
            raise ValueError("a score is NaN")
        columns = (images[name].to_pylist() for name in ("image_id", "width", "height"))
        records = [{"id": number, "width": w, "height": h} for number, w, h in zip(*columns, strict=True)]
        truths = truths_of(self.settings.iou_type, objects, truth_places)
        found: NDArray[np.float64] | list[dict[str, Any]]
        if self.settings.iou_type == "bbox":
            names = ("image_id", "x", "y", "width", "height", "score")
            found = np.column_stack([*(results[name].to_numpy() for name in names), places]).astype(np.float64)
        else:
            found = results_of(self.settings.iou_type, results, places)
        self._evaluator.update(records, truths, found)

    def _evaluated(self, rows: pa.Table, images: NDArray[np.int64], what: str) -> tuple[pa.Table, NDArray[np.int64]]:
        """The rows of evaluated categories, and int64 [N], the places of their categories among these."""
        # hotcoco drops such rows with no more than a line on stderr.
        strangers = ~np.isin(rows["image_id"].to_numpy(), images)
        if strangers.any():
            number = rows["image_id"][int(strangers.argmax())].as_py()
            raise ValueError(f"{what} of image {number}, which is not among the images")
        wanted = np.array(self.settings.category_ids, np.int64)
        categories = rows["category_id"].to_numpy().astype(np.int64)
        kept = np.isin(categories, wanted)
        if not kept.all():
            rows, categories = rows.filter(pa.array(kept)), categories[kept]
        return rows, np.searchsorted(wanted, categories)

    def to_bytes(self) -> bytes:
        """The state for the wire and the disk, compressed: raw, one detection an image takes more than 64 bytes."""
        return _digest(self.settings) + zlib.compress(self._evaluator.to_bytes(), 1)

    @staticmethod
    def from_bytes(settings: EvaluationSettings, data: bytes) -> EvaluationState:
        """The state of `to_bytes`.

        Raises:
            ValueError: bytes of other settings, or no bytes of a state.
        """
        if data[:_DIGEST_BYTES] != _digest(settings):
            raise ValueError("this is not a state of these settings")
        try:
            return EvaluationState(settings, hotcoco.StreamingEval.from_bytes(zlib.decompress(data[_DIGEST_BYTES:])))
        except zlib.error as error:
            raise ValueError(f"the state is damaged: {error}") from error

    @staticmethod
    def merge(states: Iterable[EvaluationState]) -> EvaluationState:
        """A new state of the images of all; the states stay as they are.

        Raises:
            ValueError: none, or states of different settings.
        """
        found = list(states)
        if not found:
            raise ValueError("no states to merge")
        settings = found[0].settings
        if any(state.settings != settings for state in found):
            raise ValueError("the states are of different settings")
        return EvaluationState(settings, hotcoco.StreamingEval.merge([state._evaluator for state in found]))

    def accumulate(self) -> Accumulated:
        """The numbers of all images. Uses the state up, so that it is not in memory twice.

        Raises:
            RuntimeError: the state was used up before.
        """
        evaluation = self._evaluator.finalize()
        evaluation.accumulate()
        found: Any = evaluation.eval
        arrays = (np.ascontiguousarray(found[name]) for name in ("precision", "recall", "scores"))
        return Accumulated(self.settings, *arrays)


def _digest(settings: EvaluationSettings) -> bytes:
    """Of the settings and of hotcoco's version, whose bytes another version need not understand."""
    return blake2b(f"{hotcoco.__version__} {settings}".encode(), digest_size=_DIGEST_BYTES).digest()
