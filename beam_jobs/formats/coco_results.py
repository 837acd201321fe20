"""COCO results files: https://cocodataset.org/#format-results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.errors import DECODE_ERRORS
from beam_jobs.formats.coco_faults import FaultError, check_boxes, fault_of, kind_of, refusal
from beam_jobs.formats.coco_truth import Box, Id, Int32
from beam_jobs.formats.evaluated import RESULTS, IouType
from beam_jobs.formats.result_tables import KINDS, WHAT, results_table
from beam_jobs.formats.textfile import read_whole
from beam_jobs.words import counted

#: Rows that become columns at a time.
_ROWS = 1 << 16


class _Rle(msgspec.Struct, gc=False):
    """A mask, compressed; size is height, width."""

    size: tuple[Int32, Int32]
    counts: str


class _Result(msgspec.Struct, gc=False):
    image_id: Id
    category_id: Int32
    score: float
    bbox: Box | None = None
    segmentation: _Rle | None = None
    keypoints: list[float] | None = None


_FIELDS = ("bbox", "segmentation", "keypoints")


def read_coco_results(path: str, iou_type: IouType = "bbox") -> pa.Table:
    """The rows of `RESULTS` of a COCO results file; gzip, too.

    Either all results have a bbox, or none. Where they have, some may lack a mask or keypoints, as in a run's file.

    Args:
        iou_type: what is compared; in `bbox`, results that are masks alone get the box around it.

    Raises:
        UsageError: it is not such a file, or has a result that cannot be evaluated; file, place and remedy.
    """
    data = read_whole(path, WHAT)
    try:
        found = msgspec.json.decode(data, type=list[_Result])
    except DECODE_ERRORS as error:
        if isinstance(error, msgspec.ValidationError) and data.lstrip()[:1] != b"[":
            raise refusal(WHAT, path, f"{kind_of(data)}, and no list of COCO results", KINDS) from error
        raise refusal(WHAT, path, *fault_of(data, error)) from error
    del data
    try:
        return _table(found, iou_type)
    except FaultError as fault:
        raise refusal(WHAT, path, fault.what, fault.remedy) from fault


def _table(found: Sequence[_Result], iou_type: IouType) -> pa.Table:
    if not found:
        return RESULTS.empty_table()
    # Attributes are fetched by `map` here, and what no result has is not looked at: it is most of the time of a file.
    given = {}
    for name in _FIELDS:
        values = list(map(attrgetter(name), found))
        missing = values.count(None)
        if missing < len(found):
            given[name] = values
        if 0 < missing < len(found) and (name == "bbox" or "bbox" not in given):
            other = values.index(None)
            first = next(at for at, value in enumerate(values) if value is not None)
            raise FaultError(
                f"[{first}] (image_id {found[first].image_id}) has {name} and [{other}]"
                f" (image_id {found[other].image_id}) has none",
                "results of one file must be of one kind",
            )
    if not given:
        raise FaultError(f"[0] (image_id {found[0].image_id}) has no bbox, segmentation or keypoints", "write one")
    if "keypoints" in given:
        for at, one in enumerate(found):
            _check_keypoints(one, at)
    if "bbox" in given:
        boxes = np.fromiter(chain.from_iterable(given["bbox"]), np.float64, 4 * len(found)).reshape(-1, 4)
        check_boxes(boxes, "", lambda at: f"image_id {found[at].image_id}")
    elif "keypoints" in given:
        boxes = np.array([_extent(points) for points in given["keypoints"]])
    elif iou_type == "bbox":
        boxes = _around(given["segmentation"], found)
    else:
        boxes = np.full((len(found), 4), np.nan)
    return results_table(
        np.fromiter(map(attrgetter("image_id"), found), np.int64, len(found)),
        np.fromiter(map(attrgetter("category_id"), found), np.int32, len(found)),
        boxes,
        np.fromiter(map(attrgetter("score"), found), np.float64, len(found)),
        _shapes(found) if iou_type != "bbox" and given.keys() - {"bbox"} else None,
    )


def _shapes(found: Sequence[_Result]) -> pa.Table:
    """The columns `segmentation` and `keypoints`."""
    batches = []
    encode = msgspec.json.Encoder().encode
    for at in range(0, len(found), _ROWS):
        some = found[at : at + _ROWS]
        masks = [None if one.segmentation is None else encode(one.segmentation) for one in some]
        points = pa.array([one.keypoints for one in some], pa.list_(pa.float64()))
        batches.append(pa.record_batch([pa.array(masks, pa.binary()), points], names=["segmentation", "keypoints"]))
    return pa.Table.from_batches(batches)


def _check_keypoints(one: _Result, at: int) -> None:
    points = one.keypoints
    if points is not None and (not points or len(points) % 3 or not np.isfinite(points).all()):
        raise FaultError(
            f"[{at}] (image_id {one.image_id}): keypoints holds {counted(len(points), 'value')}",
            "it must hold x, y, v of each keypoint, finite",
        )


def _extent(points: Sequence[float]) -> tuple[float, float, float, float]:
    """The box of all keypoints, as pycocotools' `loadRes` makes it: those that are not visible, too."""
    x, y = points[0::3], points[1::3]
    return min(x), min(y), max(x) - min(x), max(y) - min(y)


def _around(masks: Sequence[_Rle], found: Sequence[_Result]) -> NDArray[np.float64]:
    """float64 [N, 4]: the boxes around masks, as pycocotools' `loadRes` makes them."""
    from hotcoco import mask as coco_mask  # takes a while, and hardly anybody needs it

    boxes = np.empty((len(masks), 4))
    for at, mask in enumerate(masks):
        try:
            boxes[at] = coco_mask.toBbox({"size": mask.size, "counts": mask.counts})
        except ValueError as error:
            raise FaultError(f"[{at}] (image_id {found[at].image_id}): segmentation: {error}", "correct it") from error
    return boxes
