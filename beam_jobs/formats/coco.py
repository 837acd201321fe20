"""COCO's JSON files: results and data set, written row by row, so that memory does not grow with their number.

Format: https://cocodataset.org/#format-results and #format-data. Boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.formats.coco_keypoints import NAMES, SKELETON, are_of_people


class Rle(msgspec.Struct, frozen=True):
    """A mask as compressed run lengths; size is height, width of the picture."""

    size: tuple[int, int]
    counts: str


class Result(msgspec.Struct, frozen=True):
    """One detection of `coco/detections.json`; bbox is x, y, width, height in pixels.

    A mask and keypoints (x, y, score of each; 0, 0, 0 where one is missing) are there if the detection has them.
    """

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float
    segmentation: Rle | msgspec.UnsetType = msgspec.UNSET
    keypoints: list[float] | msgspec.UnsetType = msgspec.UNSET


class MaskResult(msgspec.Struct, frozen=True):
    """One mask of `coco/detections_segm.json`. Without a bbox, or pycocotools would take the box's area as its."""

    image_id: int
    category_id: int
    segmentation: Rle
    score: float


class Image(msgspec.Struct, frozen=True):
    """One picture of `coco/dataset.json`; width and height in pixels, upright."""

    id: int
    file_name: str
    width: int
    height: int


class Category(msgspec.Struct, frozen=True):
    """One class of `coco/dataset.json`; with COCO's keypoints and the pairs that are joined (from 1) for people."""

    id: int
    name: str
    keypoints: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET
    skeleton: tuple[tuple[int, int], ...] | msgspec.UnsetType = msgspec.UNSET


class Info(msgspec.Struct, frozen=True):
    """The head of `coco/dataset.json`."""

    description: str
    version: str


class Dataset(msgspec.Struct, frozen=True):
    """`coco/dataset.json`: `annotations` is there because readers ask for it, and empty."""

    info: Info
    images: list[Image]
    categories: list[Category]
    annotations: list[dict[str, Any]]


def results(detections: pa.Table) -> Iterator[Result]:
    """COCO results of rows of the table `detections`, in their order.

    The numbers are the float64 of the float32 columns (w = xmax - xmin taken in float64), unrounded.
    """
    sides = [detections[name].to_numpy().astype(np.float64) for name in ("xmin", "ymin", "xmax", "ymax")]
    xmin, ymin, xmax, ymax = sides
    columns = (
        detections["image_id"].to_pylist(),
        detections["category_id"].to_pylist(),
        zip(xmin.tolist(), ymin.tolist(), (xmax - xmin).tolist(), (ymax - ymin).tolist(), strict=True),
        _scores(detections),
        (msgspec.UNSET if mask is None else _rle(mask) for mask in detections["mask"].to_pylist()),
        (msgspec.UNSET if points is None else points for points in detections["keypoints"].to_pylist()),
    )
    return (Result(*row) for row in zip(*columns, strict=True))


def mask_results(detections: pa.Table) -> Iterator[MaskResult]:
    """The masks of those rows that have one."""
    rows = detections.filter(pc.is_valid(detections["mask"]))
    columns = (rows[name].to_pylist() for name in ("image_id", "category_id"))
    return (MaskResult(*row) for row in zip(*columns, map(_rle, rows["mask"].to_pylist()), _scores(rows), strict=True))


def keypoint_results(detections: pa.Table) -> Iterator[Result]:
    """The results of those rows that have keypoints: pycocotools cannot evaluate the others as such."""
    return results(detections.filter(pc.is_valid(detections["keypoints"])))


def have_people(detections: pa.Table) -> bool:
    """Whether some of these rows have COCO's keypoints of people."""
    rows = detections.filter(pc.is_valid(detections["keypoints"]))
    counts = pc.list_value_length(rows["keypoints"]).to_pylist()
    return any(are_of_people(name, n // 3) for name, n in zip(rows["category"].to_pylist(), counts, strict=True))


def _scores(detections: pa.Table) -> list[float]:
    scores: list[float] = detections["score"].to_numpy().astype(np.float64).tolist()
    return scores


def _rle(mask: dict[str, Any]) -> Rle:
    return Rle(tuple(mask["size"]), mask["counts"])


def images(table: pa.Table) -> Iterator[Image]:
    """COCO images of rows of the table `images`, in their order."""
    columns = (table[name].to_pylist() for name in ("image_id", "file_name", "width", "height"))
    return (Image(*row) for row in zip(*columns, strict=True))


#: What becomes of rows of detections in a results file.
Results = Callable[[pa.Table], Iterator[msgspec.Struct]]


def write_results(out: BinaryIO, tables: Iterable[pa.Table], kind: Results = results) -> int:
    """Writes a results file from tables of detections; returns the number of results."""
    return _write_array(out, map(kind, tables))


def write_dataset(
    out: BinaryIO, info: Info, categories: Mapping[int, str], tables: Iterable[pa.Table], *, people: bool = False
) -> int:
    """Writes a data set file from tables of images; returns the number of images.

    Args:
        people: the class of people has COCO's keypoints.
    """
    classes = [_category(category_id, name, people) for category_id, name in sorted(categories.items())]
    out.write(b'{"info":' + msgspec.json.encode(info) + b',\n"images":')
    count = _write_array(out, (images(table) for table in tables))
    out.write(b',"categories":' + msgspec.json.encode(classes) + b',\n"annotations":[]}\n')
    return count


def _category(category_id: int, name: str, people: bool) -> Category:
    if people and are_of_people(name, len(NAMES)):
        return Category(category_id, name, NAMES, SKELETON)
    return Category(category_id, name)


def _write_array(out: BinaryIO, chunks: Iterable[Iterator[msgspec.Struct]]) -> int:
    """A JSON array, one entry a line. Entries of one chunk are in memory at a time."""
    count = 0
    encode = msgspec.json.Encoder().encode
    out.write(b"[")
    for chunk in chunks:
        lines = [encode(entry) for entry in chunk]
        if lines:
            out.write((b",\n" if count else b"\n") + b",\n".join(lines))
            count += len(lines)
    out.write(b"\n]\n")
    return count
