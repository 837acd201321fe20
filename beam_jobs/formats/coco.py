"""COCO's JSON files: results and data set, written row by row, so that memory does not grow with their number.

Format: https://cocodataset.org/#format-results and #format-data. Boxes are x, y, width, height in pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa


class Result(msgspec.Struct, frozen=True):
    """One detection of `coco/detections.json`; bbox is x, y, width, height in pixels."""

    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    score: float


class Image(msgspec.Struct, frozen=True):
    """One picture of `coco/dataset.json`; width and height in pixels, upright."""

    id: int
    file_name: str
    width: int
    height: int


class Category(msgspec.Struct, frozen=True):
    """One class of `coco/dataset.json`."""

    id: int
    name: str


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
        detections["score"].to_numpy().astype(np.float64).tolist(),
    )
    return (Result(*row) for row in zip(*columns, strict=True))


def images(table: pa.Table) -> Iterator[Image]:
    """COCO images of rows of the table `images`, in their order."""
    columns = (table[name].to_pylist() for name in ("image_id", "file_name", "width", "height"))
    return (Image(*row) for row in zip(*columns, strict=True))


def write_results(out: BinaryIO, tables: Iterable[pa.Table]) -> int:
    """Writes a results file from tables of detections; returns the number of results."""
    return _write_array(out, (results(table) for table in tables))


def write_dataset(out: BinaryIO, info: Info, categories: Mapping[int, str], tables: Iterable[pa.Table]) -> int:
    """Writes a data set file from tables of images; returns the number of images."""
    classes = [Category(category_id, name) for category_id, name in sorted(categories.items())]
    out.write(b'{"info":' + msgspec.json.encode(info) + b',\n"images":')
    count = _write_array(out, (images(table) for table in tables))
    out.write(b',"categories":' + msgspec.json.encode(classes) + b',\n"annotations":[]}\n')
    return count


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
