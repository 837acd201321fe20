"""Rows that COCO's rules do not cover."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs.formats.evaluated import IouType

#: COCO's keypoints: 17, each x, y, v. Their tolerances are part of COCO's parameters, so there are no others.
KEYPOINT_NUMBERS = 17 * 3


def check_rows(iou_type: IouType, images: pa.Table, objects: pa.Table, results: pa.Table) -> None:
    """Refuses what cannot be matched, or what pycocotools would read in another sense.

    Args:
        images: rows of `TRUTH_IMAGES`.
        objects, results: rows of `TRUTH_OBJECTS` and `RESULTS` of these images. In `segm` and `keypoints` a box of NaN
            says that the result has none: its area is then that of the mask, or of the box around the keypoints.

    Raises:
        ValueError: rows of other images, a NaN score, a truth without a mask in `segm`, a result with neither mask nor
            box, other than 17 keypoints in `keypoints`, some results with a box and some without (one alone decides in
            pycocotools how all are read).
    """
    ids = images["image_id"].to_numpy()
    for rows, what in ((objects, "truths"), (results, "results")):
        owners = rows["image_id"].to_numpy()
        strangers = ~np.isin(owners, ids)
        if strangers.any():
            raise ValueError(f"{what} of image {owners[strangers][0]}, which is not among the images")
    if np.isnan(results["score"].to_numpy()).any():
        raise ValueError("a score is NaN")
    if iou_type == "bbox":
        return
    boxless = np.all([np.isnan(results[name].to_numpy()) for name in ("x", "y", "width", "height")], axis=0)
    if boxless.any() and not boxless.all():
        raise ValueError("some results have a box and some have none")
    if iou_type == "segm":
        _refuse(objects, "truth_id", _nulls(objects, "segmentation"), "truth {} has no segmentation")
        shapeless = _nulls(results, "segmentation") & boxless
        _refuse(results, "image_id", shapeless, "a result of image {} has neither segmentation nor bbox")
        return
    given, wanted = _lengths(objects), f"numbers as keypoints, not {KEYPOINT_NUMBERS}"
    # COCO's files give crowds 51 zeros; left out, they mean the same.
    for row in np.flatnonzero((given >= 0) & (given != KEYPOINT_NUMBERS))[:1].tolist():
        raise ValueError(f"truth {objects['truth_id'][row].as_py()} has {given[row]} {wanted}")
    given = _lengths(results)
    for row in np.flatnonzero(given != KEYPOINT_NUMBERS)[:1].tolist():
        count = "no" if given[row] < 0 else given[row]
        raise ValueError(f"a result of image {results['image_id'][row].as_py()} has {count} {wanted}")


def _nulls(rows: pa.Table, name: str) -> NDArray[np.bool_]:
    nulls: NDArray[np.bool_] = pc.is_null(rows[name]).to_numpy()
    return nulls


def _lengths(rows: pa.Table) -> NDArray[np.int64]:
    """int64 [N], numbers of keypoints, -1 for null."""
    lengths: NDArray[np.int64] = pc.fill_null(pc.list_value_length(rows["keypoints"]), -1).to_numpy()
    return lengths


def _refuse(rows: pa.Table, name: str, bad: NDArray[np.bool_], message: str) -> None:
    if bad.any():
        raise ValueError(message.format(rows[name][int(bad.argmax())].as_py()))
