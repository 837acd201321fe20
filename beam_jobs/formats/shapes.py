"""Masks and keypoints as columns of the table `detections`: null where the model gives none."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from beam_jobs import masks as mask_arithmetic
from beam_jobs.formats import rle
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
