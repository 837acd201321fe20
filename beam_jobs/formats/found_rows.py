"""From rows of the table `detections` back to what was found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats import rle
from beam_jobs.masks import Patch
from beam_jobs.records import Detections


def found_in(rows: pa.Table) -> Detections:
    """The boxes, scores and classes of all rows, in their order."""
    boxes = np.stack([rows[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax")], axis=1)
    return Detections(boxes, rows["score"].to_numpy(), rows["category_id"].to_numpy())


def masks_in(rows: pa.Table) -> list[Patch] | None:
    """The masks of rows, None where they have none; empty for one that lacks it."""
    masks = rows["mask"].to_pylist()
    if not any(masks):
        return None
    return [rle.decode(mask) if mask else Patch(0, 0, np.zeros((0, 0), bool)) for mask in masks]


def keypoints_in(rows: pa.Table) -> NDArray[np.float32] | None:
    """float32 [N, K, 3], as `Detections` has them; None where no row has any."""
    keypoints: list[Any] = rows["keypoints"].to_pylist()
    longest = max((len(each) for each in keypoints if each), default=0)
    if not longest:
        return None
    found = np.zeros((len(keypoints), longest), np.float32)
    for row, each in zip(found, keypoints, strict=True):
        row[: len(each or ())] = each or ()
    return found.reshape(len(keypoints), -1, 3)


def track_ids_in(rows: pa.Table) -> NDArray[np.int32]:
    """int32 [N]; 0 where a row has no track."""
    return np.asarray(rows["track_id"].fill_null(0).to_numpy(), np.int32)
