"""The results that are evaluated: a run of ours, a COCO results file, or Parquet files with our columns.

A source is small and picklable; what reads it may be another process.
COCO's results: https://cocodataset.org/#format-results.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec
import numpy as np
import pyarrow as pa

from beam_jobs import storage
from beam_jobs.errors import DECODE_ERRORS, UsageError
from beam_jobs.formats.coco_faults import head_of, refusal
from beam_jobs.formats.coco_results import read_coco_results
from beam_jobs.formats.evaluated import IouType
from beam_jobs.formats.parquet_results import (
    check_columns,
    read_columns,
    read_parquet_results,
    refuse_shapeless,
    values,
)
from beam_jobs.formats.result_tables import KINDS, RESULT_IMAGES, WHAT, ResultChunk, images_of
from beam_jobs.formats.textfile import json_fault, read_whole
from beam_jobs.formats.tfrecord import HEAD_BYTES, looks_like_tfrecord
from beam_jobs.matching import match
from beam_jobs.storage import display_name

__all__ = ["RESULT_IMAGES", "CocoResults", "ParquetResults", "ResultChunk", "ResultSource", "RunPart", "result_sources"]

_MANIFEST = "run.json"
_PARQUET_MAGIC = b"PAR1"


class ResultSource(Protocol):
    """A part of the results that is read at once. An image is in one source only."""

    def read(self) -> ResultChunk:
        """All of it. Raises `UsageError`: it cannot be used; file, place and remedy."""

    def read_images(self) -> pa.Table:
        """The images of `read`, in a run for the price of these alone."""


def result_sources(source: str, iou_type: IouType = "bbox") -> list[ResultSource]:
    """The sources of results: of a run its parts, in its order; a COCO file; each of several Parquet files.

    What a file is, its content says. Of Parquet files the columns are checked here, and that no image is in two.

    Args:
        iou_type: what the sources are read for. In `segm` and `keypoints`, rows of a run's tables that have no mask or
            no keypoints are left out, as they are in its COCO files of these.

    Raises:
        UsageError: there is nothing, or it is something else; the name and the remedy.
    """
    if storage.exists(storage.join(source, _MANIFEST)):
        parts_of_run = _run_parts(source, iou_type)
        refuse_shapeless(source, [storage.join(part.root, part.detections) for part in parts_of_run], iou_type)
        return list(parts_of_run)
    if storage.exists(storage.join(source, "_plan")):
        raise UsageError(f"the run {display_name(source)!r} is not finished: it has no {_MANIFEST}; run it to its end")
    try:
        files = sorted(match([source]), key=lambda file: file.file_name)
    except UsageError as error:
        raise UsageError(f"the {WHAT} cannot be found: {error}") from error
    heads = [head_of(WHAT, file.uri, HEAD_BYTES) for file in files]
    if len(files) == 1 and not heads[0].startswith(_PARQUET_MAGIC):
        if looks_like_tfrecord(heads[0]):
            raise refusal(WHAT, files[0].uri, "it is a TFRecord file", KINDS)
        return [CocoResults(files[0].uri, iou_type)]
    for file, head in zip(files, heads, strict=True):
        if not head.startswith(_PARQUET_MAGIC):
            fault = f"it is one of {len(files):,} files of {display_name(source)!r}, and no Parquet file"
            raise refusal(WHAT, file.uri, fault, KINDS)
    parts = [ParquetResults(file.uri, iou_type) for file in files]
    _refuse_shared_images(parts)
    refuse_shapeless(source, [part.path for part in parts], iou_type)
    return list(parts)


class _File(msgspec.Struct):
    path: str


class _Run(msgspec.Struct):
    """What is read of `run.json`."""

    files: list[_File]


def _run_parts(root: str, iou_type: IouType) -> list[RunPart]:
    path = storage.join(root, _MANIFEST)
    data = read_whole(path, "manifest")
    try:
        files = [file.path for file in msgspec.json.decode(data, type=_Run).files]
    except DECODE_ERRORS as error:
        raise refusal("manifest", path, json_fault(data, error), "it is no run of beam-detect, or damaged") from error
    images, detections = (
        [name for name in files if name.startswith(f"{table}/")] for table in ("images", "detections")
    )
    if [name.partition("/")[2] for name in images] != [name.partition("/")[2] for name in detections]:
        raise refusal("manifest", path, "its images and detections are not of the same parts", "run it again")
    return [RunPart(root, *pair, iou_type) for pair in zip(images, detections, strict=True)]


@dataclass(frozen=True, slots=True)
class RunPart:
    """A part of a run; `images` and `detections` are the paths of its tables, relative to the run's folder `root`."""

    root: str
    images: str
    detections: str
    iou_type: IouType = "bbox"

    def read(self) -> ResultChunk:
        """See `ResultSource`. Boxes are as in the run's COCO file: float64 of the columns, width = xmax - xmin."""
        results = read_parquet_results(storage.join(self.root, self.detections), self.iou_type)[0]
        return ResultChunk(self.read_images(), results, all_images=True)

    def read_images(self) -> pa.Table:
        """See `ResultSource`."""
        return read_columns(storage.join(self.root, self.images), RESULT_IMAGES.names).cast(RESULT_IMAGES)


@dataclass(frozen=True, slots=True)
class ParquetResults:
    """A Parquet file with the columns of a run's detections; `file_name` may be missing."""

    path: str
    iou_type: IouType = "bbox"

    def read(self) -> ResultChunk:
        """See `ResultSource`."""
        results, images = read_parquet_results(self.path, self.iou_type)
        return ResultChunk(images, results, all_images=False)

    def read_images(self) -> pa.Table:
        """See `ResultSource`."""
        names = [name for name in RESULT_IMAGES.names if name in check_columns(self.path)]
        table = read_columns(self.path, names)
        ids = values(self.path, table, "image_id", pa.int64())
        return images_of(ids, table["file_name"] if "file_name" in names else None)


@dataclass(frozen=True, slots=True)
class CocoResults:
    """A COCO results file."""

    path: str
    iou_type: IouType = "bbox"

    def read(self) -> ResultChunk:
        """See `ResultSource`."""
        results = read_coco_results(self.path, self.iou_type)
        return ResultChunk(images_of(results["image_id"].to_numpy(), None), results, all_images=False)

    def read_images(self) -> pa.Table:
        """See `ResultSource`."""
        return self.read().images


def _refuse_shared_images(parts: Sequence[ParquetResults]) -> None:
    """An image is read at once: its order of ties, and its best detections, are those of one file."""
    each = []
    for part in parts:
        check_columns(part.path)
        each.append(np.unique(values(part.path, read_columns(part.path, ["image_id"]), "image_id", pa.int64())))
    ids = np.concatenate(each)
    owner = np.repeat(np.arange(len(parts)), [len(one) for one in each])
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero(ids[order][1:] == ids[order][:-1])
    if len(same):
        first, second = order[same[0]], order[same[0] + 1]
        other = display_name(parts[owner[second]].path)
        fault = f"image_id {ids[first]} is also in {other!r}"
        raise refusal(WHAT, parts[owner[first]].path, fault, "write all detections of an image into one file")
