"""The ground truth of TFRecord files of the TF Object Detection API, as tables.

Keys: https://github.com/tensorflow/models/blob/master/research/object_detection/dataset_tools/create_coco_tf_record.py
`image/object/difficult` and `/weight` have no counterpart in COCO's metrics and are not read.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.formats.coco_faults import FaultError, check_boxes, refusal
from beam_jobs.formats.coco_truth import WHAT, truth_warnings
from beam_jobs.formats.evaluated import TRUTH_IMAGES, TRUTH_OBJECTS, GroundTruth
from beam_jobs.formats.tf_example import Features
from beam_jobs.formats.tfrecord import read_records
from beam_jobs.matching import Found
from beam_jobs.records import MAX_IMAGE_ID, image_id_of
from beam_jobs.words import counted

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_LABELS = "image/object/class/label"
_TEXTS = "image/object/class/text"


def load_tfrecord_truth(
    files: Sequence[Found], *, categories: Mapping[int, str] | None = None, masks: bool = True
) -> GroundTruth:
    """The ground truth of TFRecord files, in the order given.

    An image is called `image/filename`, else `image/source_id`, else by its file and index (`shard#3`), as in a run.
    Its id is `image/source_id` where that is an integer that no other record has, else a digest of its name. Objects
    are numbered from 1. An object of a group (`group_of`) counts as a crowd.

    Args:
        categories: names by class id: the ids of objects that have only a name (`class/text`).
        masks: False leaves `image/object/mask` out, and saves the time to decode it.

    Raises:
        UsageError: a file is damaged, or cannot be evaluated against; file, place and remedy.
    """
    images = [image for file in files for image in _read(file, categories, masks)]
    ids, repeated = _image_ids(images)
    counts = [len(image.category_ids) for image in images]
    names = dict(categories or {})
    for image in images:
        for category_id, name in zip(image.category_ids.tolist(), image.names, strict=True):
            if not names.get(category_id):
                names[category_id] = name
    truth_ids = np.arange(1, sum(counts) + 1)
    boxes = _joined([image.boxes for image in images], np.zeros((0, 4)))
    areas = _joined([image.areas for image in images], np.zeros(0))
    without_area = np.isnan(areas)
    objects = {
        "image_id": np.repeat(ids, counts),
        "truth_id": truth_ids,
        "category_id": _joined([image.category_ids for image in images], np.zeros(0, np.int64)).astype(np.int32),
        **{name: boxes[:, i] for i, name in enumerate(("x", "y", "width", "height"))},
        "area": np.where(without_area, boxes[:, 2] * boxes[:, 3], areas),
        "iscrowd": _joined([image.crowd for image in images], np.zeros(0, bool)),
        "segmentation": pa.array([mask for image in images for mask in image.masks], pa.binary()),
        "keypoints": pa.array([points for image in images for points in image.keypoints], pa.list_(pa.float64())),
        "num_keypoints": pa.array([count for image in images for count in image.num_keypoints], pa.int32()),
    }
    table = pa.table(
        {
            "image_id": pa.array(ids),
            "file_name": pa.array([image.file_name for image in images], pa.string()),
            "width": pa.array([image.width for image in images], pa.int32()),
            "height": pa.array([image.height for image in images], pa.int32()),
        },
        schema=TRUTH_IMAGES,
    )
    warnings = truth_warnings(truth_ids, int(without_area.sum()), "image/object/area")
    if repeated:
        these = counted(repeated, "record has", "records have")
        warnings += (f"{these} the name of another one: what joins them is the image id alone, which is a digest",)
    return GroundTruth(
        table.take(pa.array(np.argsort(ids))),
        pa.table({name: pa.array(values) for name, values in objects.items()}, schema=TRUTH_OBJECTS),
        {category_id: name or str(category_id) for category_id, name in sorted(names.items())},
        warnings,
    )


@dataclass(frozen=True, slots=True)
class _Image:
    """A record; boxes are x, y, width, height in pixels, an area that is not known is NaN, a name that is not is ''."""

    file_name: str
    source_id: str | None
    width: int
    height: int
    boxes: NDArray[np.float64]
    category_ids: NDArray[np.int64]
    names: list[str]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    masks: list[bytes | None]
    keypoints: Sequence[list[float] | None]
    num_keypoints: list[int]


def _read(file: Found, categories: Mapping[int, str] | None, masks: bool) -> Iterator[_Image]:
    ids: dict[str, list[int]] = {}
    for category_id, name in (categories or {}).items():
        ids.setdefault(name, []).append(category_id)
    try:
        with storage.open_read(file.uri) as stream:
            for index, record in enumerate(read_records(stream)):
                place = f"record {index}"
                if isinstance(record, InputError):
                    raise refusal(WHAT, file.uri, f"{place}: {record.message}", "copy or write the file again")
                try:
                    yield _image(Features(record), f"{file.file_name}#{index}", ids, masks)
                except FaultError as fault:
                    raise refusal(WHAT, file.uri, f"{place}: {fault.what}", fault.remedy) from fault
                except InputError as error:
                    raise refusal(
                        WHAT, file.uri, f"{place}: {error.message}", "give tf.Examples with image/object/*"
                    ) from error
    except OSError as error:
        raise refusal(WHAT, file.uri, f"it cannot be read: {storage.reason(error)}", "check the file") from error


def _image(features: Features, place: str, ids: Mapping[str, Sequence[int]], masks: bool) -> _Image:
    source_id = features.text("image/source_id")
    sides = {side: features.floats(f"image/object/bbox/{side}").astype(np.float64) for side in _SIDES}
    n = len(sides["xmin"])
    if any(len(values) != n for values in sides.values()):
        counts = ", ".join(f"{len(values)} {side}" for side, values in sides.items())
        raise FaultError(f"image/object/bbox has {counts}", "write the four sides of every object")
    width, height = (int(_first(features.ints(f"image/{side}"))) for side in ("width", "height"))
    known = 0 < width < 2**31 and 0 < height < 2**31
    if n and not known:
        raise FaultError(
            f"image/width and image/height are missing or no size ({width} × {height})",
            "write them (pixels, int64): boxes are normalised, and COCO's areas are in pixels",
        )
    if not known:
        width = height = 0
    xmin, ymin, xmax, ymax = (sides[side] * (width, height)[i % 2] for i, side in enumerate(_SIDES))
    boxes = np.stack([xmin, ymin, xmax - xmin, ymax - ymin], axis=1)
    check_boxes(boxes, "image/object/bbox", lambda at: f"{width} × {height} pixels")
    category_ids, names = _classes(features, n, ids)
    areas = _each(features.floats("image/object/area").astype(np.float64), n, "image/object/area", np.nan)
    if np.isinf(areas).any():
        raise FaultError("image/object/area has a value that is not finite", "write square pixels")
    crowd, group = (
        _each(features.ints(key), n, key, 0) != 0 for key in ("image/object/is_crowd", "image/object/group_of")
    )
    keypoints, num_keypoints = _keypoints(features, n, width, height)
    return _Image(
        features.text("image/filename") or source_id or place,
        source_id,
        width,
        height,
        boxes,
        category_ids,
        names,
        areas,
        crowd | group,
        _masks(features, n, width, height) if masks else [None] * n,
        keypoints,
        num_keypoints,
    )


def _classes(features: Features, n: int, ids: Mapping[str, Sequence[int]]) -> tuple[NDArray[np.int64], list[str]]:
    """Ids and names; the API's own converter of COCO writes names only."""
    texts = [text.decode("utf-8", "replace") for text in features.bytes(_TEXTS)]
    labels = features.ints(_LABELS)
    if len(labels):
        _each(labels, n, _LABELS, 0)
        if labels.min() < 0 or labels.max() >= 2**31:
            raise FaultError(
                f"{_LABELS} has {labels.min() if labels.min() < 0 else labels.max()}", "ids are 0 to 2^31 - 1"
            )
        return labels, texts if len(texts) == n else [""] * n
    if len(texts) != n:
        raise FaultError(
            f"{_objects(n)} {len(texts)} {_TEXTS} and no {_LABELS}",
            "write the class of every object",
        )
    for text in texts:
        if len(ids.get(text, ())) != 1:
            raise FaultError(
                f"class {text!r} has no id: there is no {_LABELS}, and {_why(text, ids)}",
                "give the label map in which every class of the ground truth has one id",
            )
    return np.array([ids[text][0] for text in texts], np.int64), texts


def _why(text: str, ids: Mapping[str, Sequence[int]]) -> str:
    if not ids:
        return "no label map was given"
    return f"the label map gives it the ids {list(ids[text])}" if text in ids else "the label map does not name it"


def _keypoints(features: Features, n: int, width: int, height: int) -> tuple[Sequence[list[float] | None], list[int]]:
    key = "image/object/keypoint"
    x, y = (features.floats(f"{key}/{axis}").astype(np.float64) for axis in "xy")
    if not n or not len(x):
        return [None] * n, [0] * n
    seen = features.ints(f"{key}/visibility")
    if len(x) % n or len(y) != len(x) or len(seen) != len(x) or not np.isfinite([x, y]).all():
        raise FaultError(
            f"{_objects(n)} {len(x)} {key}/x, {len(y)} /y and {len(seen)} /visibility, or one that is not finite",
            "write all keypoints of every object, 0 for those that are not labelled",
        )
    points = np.stack([x * width, y * height, seen], axis=1).reshape(n, -1)
    visible = (seen.reshape(n, -1) > 0).sum(1)
    counts = features.ints(f"{key}/num")
    return points.tolist(), (counts if len(counts) == n else visible).tolist()


def _masks(features: Features, n: int, width: int, height: int) -> list[bytes | None]:
    key = "image/object/mask"
    found = features.bytes(key)
    if not found and not len(features.floats(key)):
        return [None] * n
    if len(found) != n:
        raise FaultError(f"{_objects(n)} {len(found)} {key} as PNG", "write one PNG for each object")
    masks: list[bytes | None] = []
    for at, data in enumerate(found):
        try:
            with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
                size = picture.size
                pixels = np.asarray(picture) if size == (width, height) else None
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
            raise FaultError(f"{key}[{at}] is not a whole PNG", "write it again") from error
        if pixels is None or pixels.ndim != 2:
            raise FaultError(
                f"{key}[{at}] is not a mask of {width} × {height} pixels (mode {picture.mode}, {size[0]} × {size[1]})",
                "write a grey PNG of the picture's size",
            )
        masks.append(_rle(pixels != 0))
    return masks


def _rle(mask: NDArray[np.bool_]) -> bytes:
    """COCO's RLE as JSON: the lengths of runs down the columns, beginning with zeros.

    Source: https://github.com/cocodataset/cocoapi/blob/master/PythonAPI/pycocotools/mask.py
    """
    pixels = mask.ravel(order="F")
    ends = np.flatnonzero(np.diff(pixels, prepend=False))
    return msgspec.json.encode(
        {"size": list(mask.shape), "counts": np.diff(ends, prepend=0, append=len(pixels)).tolist()}
    )


def _image_ids(images: Sequence[_Image]) -> tuple[NDArray[np.int64], int]:
    """The id of each, and how many have the name of another one and none of their own."""
    wanted = [_as_id(image.source_id) for image in images]
    count = Counter(wanted)
    taken = {one for one in wanted if one is not None and count[one] == 1}
    ids, repeated = [], 0
    for image, one in zip(images, wanted, strict=True):
        if one is None or count[one] > 1:
            repetition = 0
            one = image_id_of(image.file_name)
            while one in taken:
                repetition += 1
                one = image_id_of(image.file_name, 0, repetition)
            repeated += repetition > 0
            taken.add(one)
        ids.append(one)
    return np.array(ids, np.int64), repeated


def _as_id(text: str | None) -> int | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 20:
        return None
    return number if (number := int(text)) < MAX_IMAGE_ID else None


def _objects(n: int) -> str:
    return counted(n, "object has", "objects have")


def _each(values: NDArray[Any], n: int, key: str, default: float) -> NDArray[Any]:
    """One value an object; the default where the key is missing."""
    if len(values) not in (0, n):
        raise FaultError(
            f"{_objects(n)} {len(values)} {key}",
            "write one for every object, or leave the key out",
        )
    return values if len(values) else np.full(n, default)


def _first(values: NDArray[np.int64]) -> int:
    return int(values[0]) if len(values) else 0


def _joined(arrays: list[NDArray[Any]], empty: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else empty
