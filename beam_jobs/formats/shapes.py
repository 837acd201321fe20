"""Masks and keypoints as columns of the table `detections`: null where the model gives none."""

from __future__ import annotations

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import masks as mask_arithmetic
from beam_jobs.formats import rle
from beam_jobs.formats.coco_faults import FaultError
from beam_jobs.formats.evaluated import IouType
from beam_jobs.records import BoxMasks, Detections


def _list(kind: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", kind, nullable=False))  # the name that Parquet gives it


#: COCO's compressed run lengths, as `pycocotools.mask` takes them; `size` is height, width of the picture.
_RLE = pa.struct([("size", _list(pa.int32())), ("counts", pa.string())])
#: x, y, score of each keypoint, in the model's order: pixels, also outside of the picture; all 0 where one is missing.
_KEYPOINTS = _list(pa.float32())

#: `mask_area` is in pixels; a row's `area` is that of its box.
SHAPES = (pa.field("mask", _RLE), pa.field("mask_area", pa.int32()), pa.field("keypoints", _KEYPOINTS))


def shape_columns(detections: Detections, width: int, height: int) -> pa.Table:
    """The columns of `SHAPES` for the detections of one picture of `width` x `height` pixels.

    Keypoints of a detection that has none of them, as those of other classes than people, are null. One that is not
    finite is missing.
    """
    columns = (*_masks(detections.masks, len(detections), width, height), _keypoints(detections))
    return pa.table(list(columns), schema=pa.schema(SHAPES))


def null_shapes(rows: int) -> pa.Table:
    """The columns of `SHAPES` for so many detections without masks and keypoints."""
    return pa.table([pa.nulls(rows, each.type) for each in SHAPES], schema=pa.schema(SHAPES))


def _masks(masks: BoxMasks | None, n: int, width: int, height: int) -> tuple[pa.Array, pa.Array]:
    if masks is None:
        return pa.nulls(n, _RLE), pa.nulls(n, pa.int32())
    patches = mask_arithmetic.patches(masks, width, height)
    rows = [{"size": [height, width], "counts": counts} for counts in rle.encode(patches, width, height)]
    return pa.array(rows, _RLE), pa.array([patch.area for patch in patches], pa.int32())


def _keypoints(detections: Detections) -> pa.Array:
    found = detections.keypoints
    if found is None:
        return pa.nulls(len(detections), _KEYPOINTS)
    found = np.where(np.isfinite(found).all(axis=2, keepdims=True), found, np.float32(0))
    there = (found != 0).any(axis=(1, 2)).tolist()
    flat = found.reshape(len(found), 3 * found.shape[1])
    return pa.array([row if given else None for row, given in zip(flat, there, strict=True)], _KEYPOINTS)


def evaluated_shapes(detections: pa.Table, iou_type: IouType) -> pa.Table:
    """The columns `segmentation` and `keypoints` as rows of `RESULTS` have them; what is not compared is null.

    Raises:
        FaultError: the column holds something else.
    """
    columns: dict[str, pa.Array] = {
        "segmentation": pa.nulls(detections.num_rows, pa.binary()),
        "keypoints": pa.nulls(detections.num_rows, pa.list_(pa.float64())),
    }
    if iou_type == "segm" and "mask" in detections.column_names:
        encode = msgspec.json.Encoder().encode
        masks = _cast(detections, "mask", _RLE, "{size: [height, width], counts: text}").to_pylist()
        columns["segmentation"] = pa.array([None if mask is None else encode(mask) for mask in masks], pa.binary())
    if iou_type == "keypoints" and "keypoints" in detections.column_names:
        found = _cast(detections, "keypoints", pa.list_(pa.float64()), "a list of x, y, score of each keypoint")
        if not np.isfinite(pc.list_flatten(found).to_numpy()).all():
            raise FaultError("the column keypoints has numbers that are not finite", "leave them out")
        columns["keypoints"] = found
    return pa.table(columns)


def _cast(detections: pa.Table, name: str, kind: pa.DataType, wanted: str) -> pa.ChunkedArray:
    try:
        return detections[name].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
        raise FaultError(f"the column {name} is {detections[name].type}", f"write it as {wanted}") from error
