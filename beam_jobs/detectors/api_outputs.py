"""What the Object Detection API's models give, as `Detections`: arrays of one picture in, by the API's names.

Source: `exporter_lib_v2` and `core/standard_fields.py` of the API. All are floats, classes and counts too; boxes are
ymin, xmin, ymax, xmax as shares of the picture, keypoints y, x likewise, and 0 where there is none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from beam_jobs.boxes import from_normalised_yxyx
from beam_jobs.errors import InputError
from beam_jobs.records import BoxMasks, Detections

BOXES, SCORES, CLASSES = REQUIRED = ("detection_boxes", "detection_scores", "detection_classes")
COUNT = "num_detections"
MASKS = "detection_masks"
KEYPOINTS, KEYPOINT_SCORES = "detection_keypoints", "detection_keypoint_scores"
#: All that is read. Models have other outputs too, and not all of them have a batch dimension.
KEYS = (*REQUIRED, COUNT, MASKS, KEYPOINTS, KEYPOINT_SCORES)


def check_shapes(outputs: Mapping[str, NDArray[Any]], pictures: int = 1) -> None:
    """Whether the outputs of a call with so many pictures are those of detectors, each with its batch dimension.

    Raises:
        ValueError: they have other shapes; the message says which.
    """
    boxes = outputs[BOXES]
    n, k = pictures, boxes.shape[1] if boxes.ndim == 3 else 0
    wanted: dict[str, tuple[int | None, ...]] = {BOXES: (n, k, 4), SCORES: (n, k), CLASSES: (n, k)}
    wanted |= {MASKS: (n, k, None, None), KEYPOINTS: (n, k, None, 2), KEYPOINT_SCORES: (n, k, None)}
    for key, shape in wanted.items():
        if key in outputs and not _fits(outputs[key].shape, shape):
            found = ", ".join(f"{name} {list(outputs[name].shape)}" for name in wanted if name in outputs)
            raise ValueError(f"its outputs must be [N, K, 4], [N, K] and [N, K] for N = {n}, got {found}")


def detections_of(outputs: Mapping[str, NDArray[Any]], width: int, height: int) -> Detections:
    """The first `num_detections` of one picture.

    Boxes may reach past the picture or be non-finite, as the model gave them: who selects, clips and counts them.

    Args:
        outputs: by the names in `KEYS`, those that the model has, without batch dimension.
        width, height: of the upright picture, in pixels.

    Raises:
        InputError: a score, class or count is not a finite number: then nothing of that picture can be trusted.
    """
    boxes, scores, classes = (outputs[key] for key in REQUIRED)
    count = float(np.ravel(outputs[COUNT])[0]) if COUNT in outputs else len(scores)
    if not (np.isfinite(count) and np.isfinite(scores).all() and np.isfinite(classes).all()):
        raise InputError("infer", "inference", "The model gave scores or classes that are not finite numbers.")
    n = min(max(int(count), 0), len(scores))
    pixels = from_normalised_yxyx(boxes[:n].astype(np.float32), width, height)
    masks = BoxMasks(outputs[MASKS][:n].astype(np.float32), pixels) if MASKS in outputs else None
    keypoints = _keypoints(outputs, n, width, height) if KEYPOINTS in outputs else None
    category_ids = np.rint(classes[:n]).astype(np.int32)
    # A copy: the array may be the model's own memory.
    return Detections(pixels, np.array(scores[:n], np.float32), category_ids, masks, keypoints)


def _keypoints(outputs: Mapping[str, NDArray[Any]], n: int, width: int, height: int) -> NDArray[np.float32]:
    places = np.nan_to_num(outputs[KEYPOINTS][:n].astype(np.float32), posinf=0.0, neginf=0.0)
    there = (places != 0).any(axis=2)
    if KEYPOINT_SCORES in outputs:
        scores = np.nan_to_num(outputs[KEYPOINT_SCORES][:n].astype(np.float32))
    else:
        scores = there.astype(np.float32)
    found = np.stack([places[..., 1] * np.float32(width), places[..., 0] * np.float32(height), scores], axis=2)
    return np.where(there[..., None], found, np.float32(0))


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(shape) == len(wanted) and all(w is None or s == w for s, w in zip(shape, wanted, strict=True))
