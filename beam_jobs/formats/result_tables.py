"""Results as tables, whatever file they come from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats.evaluated import RESULTS

#: What results are to the user, in messages.
WHAT = "detections"
#: What they can be.
KINDS = "give a run's folder, a COCO results file, or Parquet files with the columns of a run's detections"
#: The images of results: `file_name` is null where it is not known.
RESULT_IMAGES = pa.schema([pa.field("image_id", pa.int64(), False), pa.field("file_name", pa.string())])


@dataclass(frozen=True, slots=True)
class ResultChunk:
    """What a source holds.

    Args:
        images: rows of `RESULT_IMAGES`, each image once.
        results: rows of `RESULTS`, the rows of an image in the order of the file. A segm result that gives no bbox has
            NaN as its box: COCO then takes the mask's area, not the box's.
        all_images: `images` holds also those in which nothing was found; else nobody knows of them.
    """

    images: pa.Table
    results: pa.Table
    all_images: bool


def results_table(
    image_ids: NDArray[np.int64],
    category_ids: NDArray[np.int32],
    boxes: NDArray[np.float64],
    scores: NDArray[np.float64],
    shapes: pa.Table | None = None,
) -> pa.Table:
    """Rows of `RESULTS`, in this order; `detection` is counted.

    Args:
        boxes: x, y, width, height, [N, 4].
        shapes: the columns `segmentation` and `keypoints`; without it they are null.
    """
    n = len(image_ids)
    columns = {
        "image_id": pa.array(image_ids),
        "detection": pa.array(_numbered(image_ids)),
        "category_id": pa.array(category_ids),
        **{name: pa.array(boxes[:, i]) for i, name in enumerate(("x", "y", "width", "height"))},
        "score": pa.array(scores),
        "segmentation": pa.nulls(n, pa.binary()) if shapes is None else shapes["segmentation"],
        "keypoints": pa.nulls(n, pa.list_(pa.float64())) if shapes is None else shapes["keypoints"],
    }
    return pa.table(columns, schema=RESULTS)


def _numbered(image_ids: NDArray[np.int64]) -> NDArray[np.int32]:
    """The place of each row among those of its image."""
    order = np.argsort(image_ids, kind="stable")
    _, first, counts = np.unique(image_ids[order], return_index=True, return_counts=True)
    numbers = np.empty(len(image_ids), np.int32)
    numbers[order] = np.arange(len(image_ids)) - np.repeat(first, counts)
    return numbers


def images_of(image_ids: NDArray[np.int64], names: pa.ChunkedArray | None) -> pa.Table:
    """Rows of `RESULT_IMAGES`: each id once, with the name in its first row."""
    ids, first = np.unique(image_ids, return_index=True)
    column = pa.nulls(len(ids), pa.string()) if names is None else names.cast(pa.string()).take(pa.array(first))
    return pa.table([pa.array(ids), column], schema=RESULT_IMAGES)
