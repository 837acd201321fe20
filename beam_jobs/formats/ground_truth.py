"""The ground truth of an evaluation, from whatever a user has."""

from __future__ import annotations

from collections.abc import Mapping

from beam_jobs.errors import UsageError
from beam_jobs.formats.coco_faults import head_of, refusal
from beam_jobs.formats.coco_truth import WHAT, load_coco_truth
from beam_jobs.formats.evaluated import GroundTruth
from beam_jobs.formats.tfrecord import HEAD_BYTES, looks_like_tfrecord
from beam_jobs.formats.tfrecord_truth import load_tfrecord_truth
from beam_jobs.matching import match
from beam_jobs.storage import display_name


def load_ground_truth(source: str, *, categories: Mapping[int, str] | None = None, masks: bool = True) -> GroundTruth:
    """The ground truth of a COCO JSON file, or of TFRecord files of the TF Object Detection API.

    What a file is, its content says; gzip is unpacked. See `load_coco_truth` and `load_tfrecord_truth`.

    Args:
        source: a file; of TFRecords also a folder or a pattern.
        categories: names by class id, for TFRecords that hold names only. COCO files have their own.
        masks: False leaves `segmentation` out, which boxes and keypoints do not need.

    Raises:
        UsageError: it cannot be read, is neither, or cannot be evaluated against; file, place and remedy.
    """
    try:
        files = sorted(match([source]), key=lambda file: file.file_name)
    except UsageError as error:
        raise UsageError(f"the {WHAT} cannot be found: {error}") from error
    heads = [head_of(WHAT, file.uri, HEAD_BYTES) for file in files]
    records = [looks_like_tfrecord(head) for head in heads]
    if len(files) == 1 and not records[0]:
        return load_coco_truth(files[0].uri, masks=masks)
    for file, head, is_records in zip(files, heads, records, strict=True):
        # A shard without records is an empty file.
        if not is_records and head:
            raise refusal(
                WHAT,
                file.uri,
                f"it is one of {len(files):,} files of {display_name(source)!r}, and no TFRecord file"
                " or one with a damaged start",
                "several files must all be TFRecords; of COCO JSON give one file",
            )
    return load_tfrecord_truth(files, categories=categories, masks=masks)
