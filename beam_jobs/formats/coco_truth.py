"""The ground truth of a COCO file, as tables.

Format: https://cocodataset.org/#format-data. Where a file leaves out what pycocotools insists on (`area`, `iscrowd`,
`num_keypoints`), it follows from the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.errors import DECODE_ERRORS
from beam_jobs.formats.coco_faults import FaultError, check_boxes, fault_of, kind_of, refusal
from beam_jobs.formats.evaluated import TRUTH_IMAGES, TRUTH_OBJECTS, GroundTruth
from beam_jobs.formats.textfile import read_whole
from beam_jobs.records import MAX_IMAGE_ID
from beam_jobs.words import counted, plural

WHAT = "ground truth"
#: Ids that JSON readers with doubles keep exact.
Id = Annotated[int, msgspec.Meta(ge=0, lt=MAX_IMAGE_ID)]
#: Category ids, and counts.
Int32 = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Box = tuple[float, float, float, float]

_MAX_SIDE = 2**31 - 1
#: Annotations that become columns at a time: what bounds the Python objects beside the decoded file.
_CHUNK = 1 << 16
_NOT_COCO = 'it must be COCO JSON with "images", "annotations" and "categories", or TFRecords with image/object/*'


class _Image(msgspec.Struct, gc=False):
    id: Id
    file_name: Annotated[str, msgspec.Meta(min_length=1)]
    width: float | None = None
    height: float | None = None


class _Category(msgspec.Struct, gc=False):
    id: Int32
    name: str


class _BoxAnnotation(msgspec.Struct, gc=False):
    id: Id
    image_id: Id
    category_id: Int32
    bbox: Box
    area: float | None = None
    iscrowd: int | bool | None = None
    keypoints: list[float] | None = None
    num_keypoints: Int32 | None = None


class _Annotation(_BoxAnnotation, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw()


class _BoxDataset(msgspec.Struct):
    images: list[_Image]
    annotations: list[_BoxAnnotation]
    categories: list[_Category]


class _Dataset(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def load_coco_truth(path: str, *, masks: bool = True) -> GroundTruth:
    """The ground truth of a COCO JSON file; gzip, too.

    While it runs, memory holds the file, some 500 bytes an annotation, and the tables.

    Args:
        masks: False leaves `segmentation` out, and saves the memory and the time for it.

    Raises:
        UsageError: it cannot be read, is not such a file, or cannot be evaluated against; file, place and remedy.
    """
    data = read_whole(path, WHAT)
    try:
        dataset: Any = msgspec.json.decode(data, type=_Dataset if masks else _BoxDataset)
    except DECODE_ERRORS as error:
        if isinstance(error, msgspec.ValidationError) and " - at `$" not in str(error):
            raise refusal(WHAT, path, f"{kind_of(data)}, and no COCO dataset ({error})", _NOT_COCO) from error
        raise refusal(WHAT, path, *fault_of(data, error)) from error
    del data
    try:
        return _truth(dataset, masks)
    except FaultError as fault:
        raise refusal(WHAT, path, fault.what, fault.remedy) from fault


def _truth(dataset: _Dataset, masks: bool) -> GroundTruth:
    images = _images(dataset.images)
    categories = _categories(dataset.categories)
    found = dataset.annotations
    ids = _column(found, "id", np.int64)
    _refuse_repeated(ids, "annotations", "each annotation needs an id of its own")
    image_ids = _column(found, "image_id", np.int64)
    category_ids = _column(found, "category_id", np.int32)
    listed = images["image_id"].to_numpy()
    for values, known, what in (
        (image_ids, listed, "image"),
        (category_ids, np.fromiter(categories, np.int32, len(categories)), "category"),
    ):
        unlisted = ~np.isin(values, known)
        if unlisted.any():
            at = int(np.argmax(unlisted))
            raise FaultError(
                f"annotations[{at}] (id {ids[at]}) is of {what} {values[at]}, which the file does not list",
                f"list the {what} or leave its annotations out",
            )
    boxes = np.fromiter(chain.from_iterable(one.bbox for one in found), np.float64, 4 * len(found)).reshape(-1, 4)
    check_boxes(boxes, "annotations", lambda at: f"id {ids[at]}")
    batches = [
        _objects(found[at : at + _CHUNK], boxes[at : at + _CHUNK], at, masks) for at in range(0, len(found), _CHUNK)
    ]
    warnings = truth_warnings(ids, sum(one.area is None for one in found), "area")
    return GroundTruth(images, pa.Table.from_batches(batches, TRUTH_OBJECTS), categories, warnings)


def truth_warnings(ids: NDArray[np.int64], without_area: int, key: str) -> tuple[str, ...]:
    """What people should know of a truth: of its ids, and of the objects that have no area."""
    warnings = []
    if not len(ids):
        warnings.append("the ground truth has no objects: every detection is a false positive, and AP is -1")
    if without_area:
        warnings.append(
            f"{without_area:,} of {counted(len(ids), 'object')} {plural(without_area, 'has', 'have')} no {key}: width ×"
            " height of the box stands in for it, also for segm, where COCO's is the area of the mask"
        )
    if (ids == 0).any():
        warnings.append("an annotation has the id 0: pycocotools counts its match as a false positive, this does not")
    return tuple(warnings)


def _images(found: Sequence[_Image]) -> pa.Table:
    ids = _column(found, "id", np.int64)
    _refuse_repeated(ids, "images", "list each image once")
    columns = [pa.array(ids), pa.array([one.file_name for one in found], pa.string())]
    for side in ("width", "height"):
        sizes = np.fromiter((getattr(one, side) or 0 for one in found), np.float64, len(found))
        bad = ~((sizes >= 0) & (sizes <= _MAX_SIDE))
        if bad.any():
            at = int(np.argmax(bad))
            raise FaultError(f"images[{at}] (id {ids[at]}): {side} is {sizes[at]:g}", "write pixels, or leave it out")
        columns.append(pa.array(sizes.astype(np.int32)))
    return pa.table(columns, schema=TRUTH_IMAGES).take(pa.array(np.argsort(ids)))


def _categories(found: Sequence[_Category]) -> dict[int, str]:
    _refuse_repeated(_column(found, "id", np.int64), "categories", "list each category once")
    return dict(sorted((one.id, one.name) for one in found))


def _objects(found: Sequence[_Annotation], boxes: NDArray[np.float64], first: int, masks: bool) -> pa.RecordBatch:
    for at, one in enumerate(found, start=first):
        if one.keypoints is not None and (len(one.keypoints) % 3 or not np.isfinite(one.keypoints).all()):
            raise FaultError(
                f"annotations[{at}] (id {one.id}): keypoints holds {counted(len(one.keypoints), 'value')}",
                "it must hold x, y, v of each keypoint, finite",
            )
    areas = np.fromiter((np.nan if one.area is None else one.area for one in found), np.float64, len(found))
    with np.errstate(over="ignore"):
        products = boxes[:, 2] * boxes[:, 3]
    visible = (
        sum(v > 0 for v in (one.keypoints or ())[2::3]) if one.num_keypoints is None else one.num_keypoints
        for one in found
    )
    columns = (
        pa.array(_column(found, "image_id", np.int64)),
        pa.array(_column(found, "id", np.int64)),
        pa.array(_column(found, "category_id", np.int32)),
        *(pa.array(boxes[:, i]) for i in range(4)),
        pa.array(np.where(np.isnan(areas), products, areas)),
        pa.array([bool(one.iscrowd) for one in found], pa.bool_()),
        pa.array([_segmentation(one, at) for at, one in enumerate(found, first)], pa.binary())
        if masks
        else pa.nulls(len(found), pa.binary()),
        pa.array([one.keypoints for one in found], pa.list_(pa.float64())),
        pa.array(np.fromiter(visible, np.int32, len(found))),
    )
    return pa.record_batch(list(columns), schema=TRUTH_OBJECTS)


def _segmentation(one: _Annotation, at: int) -> bytes | None:
    """The JSON text of polygons or RLE; None where there is none."""
    text = bytes(one.segmentation)
    start = text[:1]
    if start in (b"[", b"{"):
        return text
    if start in (b"", b"n"):
        return None
    raise FaultError(
        f"annotations[{at}] (id {one.id}): segmentation is neither a list of polygons nor RLE",
        "write [[x, y, …], …] or {size, counts}, or leave it out",
    )


def _column(found: Sequence[Any], name: str, dtype: type[np.integer[Any]]) -> NDArray[Any]:
    return np.fromiter(map(attrgetter(name), found), dtype, len(found))


def _refuse_repeated(ids: NDArray[np.int64], place: str, remedy: str) -> None:
    order = np.argsort(ids, kind="stable")
    same = ids[order][1:] == ids[order][:-1]
    if same.any():
        second = int(order[1:][same].min())
        first = int(np.argmax(ids == ids[second]))
        raise FaultError(f"{place}[{first}] and {place}[{second}] have the same id {ids[second]}", remedy)
