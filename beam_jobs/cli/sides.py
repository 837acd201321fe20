"""What `evaluate` and `compare` begin with: ground truth, results, and which image of these is which of the truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from beam_jobs import storage
from beam_jobs.cli.progress import status
from beam_jobs.errors import UsageError
from beam_jobs.formats.evaluated import GroundTruth, IouType
from beam_jobs.formats.ground_truth import load_ground_truth
from beam_jobs.formats.image_join import ImageJoin, Joined
from beam_jobs.formats.results import CocoResults, ResultChunk, ResultSource, result_sources
from beam_jobs.words import counted


def read_truth(source: str, iou_type: IouType, label_map: Mapping[int, str] | None) -> GroundTruth:
    """The ground truth of an evaluation; masks only where they are compared.

    Args:
        label_map: names by category id, for TFRecords that hold class names only; None if there are none.

    Raises:
        UsageError: it cannot be read, or has no images.
    """
    with status("reading the ground truth …"):
        truth = load_ground_truth(source, categories=label_map, masks=iou_type == "segm")
    if not truth.images.num_rows:
        raise UsageError(f"--ground_truth {source} has no images: there is nothing to compare with.")
    _check_shapes(f"--ground_truth {source}", truth.objects, iou_type)
    return truth


def check_images(folder: str | None) -> None:
    """Refuses what is no folder: a page would only say so of each picture.

    Raises:
        UsageError: it is none.
    """
    if folder and not storage.is_remote(folder) and not storage.is_dir(folder):
        raise UsageError(f"--images {folder} is not a folder: name the one with the pictures of the ground truth.")


@dataclass(frozen=True, slots=True)
class Results:
    """Results whose images have been looked up in a ground truth.

    Args:
        parsed: the whole of them, where looking at their images took reading them; else None.
    """

    sources: list[ResultSource]
    parsed: ResultChunk | None
    joined: Joined

    def read(self) -> pa.Table:
        """All results, as rows of `RESULTS` with the image ids of their source."""
        chunks = [self.parsed] if self.parsed else [source.read() for source in self.sources]
        return pa.concat_tables([chunk.results for chunk in chunks])


def join_results(source: str, called: str, truth: GroundTruth, truth_source: str, iou_type: IouType) -> Results:
    """Looks at the images of results.

    Args:
        called: what a message calls the source, as `--detections DIR`.

    Raises:
        UsageError: they cannot be read, have images and none is the truth's, or do not have what is compared.
    """
    sources = result_sources(source, iou_type)
    # JSON is slow to parse: a file of it is parsed once, here, where what is wrong with it is said best.
    parsed = sources[0].read() if isinstance(sources[0], CocoResults) else None
    images = parsed.images if parsed else pa.concat_tables([one.read_images() for one in sources])
    joined = ImageJoin.of(truth).join(images)
    if images.num_rows and not len(joined.missing) < truth.images.num_rows:
        raise UsageError(
            f"{called}: none of its images is in {truth_source}, neither by id nor by name (for example"
            f" {', '.join(joined.unmatched_examples)}). Is it the ground truth of these pictures?"
        )
    # Masks that are left out are the boxes.
    if parsed and iou_type == "keypoints":
        _check_shapes(called, parsed.results, iou_type)
    return Results(sources, parsed, joined)


def repeats(number: int, where: str) -> str:
    """The warning of detections that are the same as others."""
    these = counted(number, f"detection of {where} repeats", f"detections of {where} repeat")
    return f"{these} others (image, class, box and score) and counted again: were results written twice?"


def _check_shapes(called: str, rows: pa.Table, iou_type: IouType) -> None:
    """Refuses rows of which none has what is compared."""
    if iou_type == "bbox" or not rows.num_rows:
        return
    column, what = ("segmentation", "masks") if iou_type == "segm" else ("keypoints", "keypoints")
    if rows[column].null_count == rows.num_rows:
        raise UsageError(f"{called} has no {what}, which --iou_type {iou_type} compares; bbox compares boxes.")
