"""pycocotools itself on the same tables: slow, all in one process, and what the other engine is held against."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from beam_jobs.evaluation.accumulated import Accumulated
from beam_jobs.evaluation.refusals import check_rows
from beam_jobs.evaluation.rows import results_of, truths_of
from beam_jobs.evaluation.settings import RECALL_THRESHOLDS, EvaluationSettings


def evaluate(settings: EvaluationSettings, images: pa.Table, objects: pa.Table, results: pa.Table) -> Accumulated:
    """The numbers of pycocotools for rows of `TRUTH_IMAGES`, `TRUTH_OBJECTS` and `RESULTS`.

    Differs from handing pycocotools the files in this: truths are numbered anew from 1 (a detection that matches
    truth 0 counts as false there), no results are not an error, and a result's polygons need no box.

    Raises:
        ValueError: see `check_rows`; or polygons in an image of unknown size.
    """
    check_rows(settings.iou_type, images, objects, results)
    truths = truths_of(settings.iou_type, objects, objects["category_id"].to_numpy().astype(np.int64))
    for number, truth in enumerate(truths, start=1):
        truth["id"] = number
    found = results_of(settings.iou_type, results, results["category_id"].to_numpy().astype(np.int64))
    columns = (images[name].to_pylist() for name in ("image_id", "width", "height"))
    records = [{"id": number, "width": w, "height": h} for number, w, h in zip(*columns, strict=True)]
    if settings.iou_type == "segm":
        _check_sizes(records, [*truths, *found])
    dataset = {"info": {}, "images": records, "categories": [{"id": number} for number in settings.category_ids]}
    # It tells of its progress on stdout, which is the caller's.
    with contextlib.redirect_stdout(io.StringIO()):
        truth_side = _coco({**dataset, "annotations": truths})
        evaluation = COCOeval(truth_side, _load(truth_side, found), settings.iou_type)
        parameters = evaluation.params
        parameters.catIds = list(settings.category_ids)
        parameters.iouThrs = np.array(settings.iou_thresholds)
        parameters.recThrs = np.array(RECALL_THRESHOLDS)
        parameters.maxDets = list(settings.max_detections)
        parameters.areaRng = [[area.low, area.high] for area in settings.area_ranges]
        parameters.areaRngLbl = [area.label for area in settings.area_ranges]
        evaluation.evaluate()
        evaluation.accumulate()
    return Accumulated(settings, *(evaluation.eval[name] for name in ("precision", "recall", "scores")))


def _check_sizes(records: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Refuses shapes that must be drawn on an image of unknown size: pycocotools takes them as empty masks."""
    sizeless = {record["id"] for record in records if not (record["width"] and record["height"])}
    for row in rows:
        if row["image_id"] in sizeless and not isinstance(row.get("segmentation"), dict):
            raise ValueError(f"image {row['image_id']} has polygons or boxes as masks, but no width and height")


def _coco(dataset: dict[str, Any]) -> Any:
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def _load(truth_side: Any, found: list[dict[str, Any]]) -> Any:
    """`COCO.loadRes`, which looks at the first result and so fails where there is none."""
    if not found:
        return _coco({**truth_side.dataset, "annotations": []})
    for result in found:
        if "segmentation" in result and "bbox" not in result:
            # Without a box it measures the mask, which it can only if that is compressed.
            result["segmentation"] = truth_side.annToRLE(result)
    return truth_side.loadRes(found)
