"""`beam-detect compare`: two sets of detections against one ground truth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.cli import compare_outputs, compare_text, interrupt
from beam_jobs.cli.categories import chosen_ids
from beam_jobs.cli.compare_result import Compared, Side
from beam_jobs.cli.output_folder import check_output
from beam_jobs.cli.progress import status
from beam_jobs.cli.summary import say
from beam_jobs.errors import UsageError
from beam_jobs.evaluation import bootstrap
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.threshold_matches import ThresholdMatches, match_thresholds
from beam_jobs.evaluation.weighted import WeightedEvaluation
from beam_jobs.formats.evaluated import GroundTruth
from beam_jobs.formats.ground_truth import load_ground_truth
from beam_jobs.formats.image_join import ImageJoin
from beam_jobs.formats.label_map import load_label_map
from beam_jobs.formats.results import result_sources

#: An image is judged by its detections of this IoU and score: COCO's mildest, and what is commonly shown to people.
IMAGE_IOU, IMAGE_SCORE = 0.5, 0.3


def run(options: argparse.Namespace, beam_args: Sequence[str]) -> int:
    """Compares; returns the exit status.

    Raises:
        UsageError: it cannot start.
        JobError: it cannot be completed.
    """
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: give 0 or more.")
    if not 0 < options.confidence < 1:
        raise UsageError(f"--confidence {options.confidence:g}: give a number between 0 and 1, without these two.")
    root = options.output if storage.is_remote(options.output) else os.path.abspath(options.output)
    if beam_args:
        storage.set_options(beam_args)
    check_output(root, options.output, "a comparison", compare_outputs.FILES, overwrite=options.overwrite)
    with status("reading the ground truth …"):
        label_map = load_label_map(options.label_map) if options.label_map else None
        masks = options.iou_type == "segm"
        truth = load_ground_truth(options.ground_truth, categories=label_map, masks=masks)
    if not truth.images.num_rows:
        raise UsageError(f"--ground_truth {options.ground_truth} has no images: there is nothing to compare with.")
    settings = _settings(options, truth)
    with status("matching A …"):
        a = _prepare("A", options.detections_a, options.ground_truth, truth, settings)
    with status("matching B …"):
        b = _prepare("B", options.detections_b, options.ground_truth, truth, settings)
    with status(f"taking {options.samples:,} samples …"):
        comparison = bootstrap.compare(
            a.evaluation, b.evaluation, samples=options.samples, seed=options.seed, confidence=options.confidence
        )
    compared = Compared(
        settings,
        truth,
        options.ground_truth,
        a.side,
        b.side,
        comparison,
        samples=options.samples,
        seed=options.seed,
        confidence=options.confidence,
        image_iou=IMAGE_IOU,
        image_score=IMAGE_SCORE,
    )
    interrupt.left_behind.append(f"{options.output} holds an unfinished comparison: --overwrite starts it afresh.")
    compare_outputs.write(root, compared)
    interrupt.left_behind.clear()
    say(compare_text.text(compared))
    say(f"\nnumbers, images and a report are in {options.output}")
    return 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    side: Side
    evaluation: WeightedEvaluation


def _settings(options: argparse.Namespace, truth: GroundTruth) -> EvaluationSettings:
    known = set(truth.categories)
    ids = chosen_ids(options.categories, truth.categories) & known if options.categories else known
    if not ids:
        raise UsageError("There are no classes to compare: the ground truth has none of them.")
    return EvaluationSettings.of(options.iou_type, tuple(sorted(ids)))


def _prepare(name: str, source: str, truth_source: str, truth: GroundTruth, settings: EvaluationSettings) -> _Prepared:
    sources = result_sources(source, settings.iou_type)
    chunks = [one.read() for one in sources]
    images = pa.concat_tables([chunk.images for chunk in chunks])
    joined = ImageJoin.of(truth).join(images)
    if images.num_rows and not len(joined.missing) < truth.images.num_rows:
        raise UsageError(
            f"{name} ({source}): none of its images is in {truth_source}, neither by id nor by name (for example"
            f" {', '.join(joined.unmatched_examples)}). Is it the ground truth of these pictures?"
        )
    every = pa.concat_tables([chunk.results for chunk in chunks])
    results = _of_truth(every, joined.image_ids, joined.truth_ids)
    wanted = pc.is_in(results["category_id"], value_set=pa.array(settings.category_ids, pa.int32()))
    evaluated = results.filter(wanted)
    if results.num_rows and not evaluated.num_rows:
        raise UsageError(
            f"{name} ({source}) and --ground_truth {truth_source} have no class in common"
            f" (of {', '.join(map(str, settings.category_ids[:10]))}). --label_map names them alike."
        )
    try:
        matches: ThresholdMatches = match_thresholds(truth.images, truth.objects, evaluated, settings)
    except ValueError as error:
        raise UsageError(f"{name} ({source}) cannot be compared by {settings.iou_type}: {error}") from error
    count = truth.images.num_rows
    side = Side(
        source,
        np.isin(truth.images["image_id"].to_numpy(), joined.truth_ids),
        bootstrap.count_images(matches, settings, count, iou_threshold=IMAGE_IOU, min_score=IMAGE_SCORE),
        detections=evaluated.num_rows,
        other_categories=results.num_rows - evaluated.num_rows,
        unknown_images=joined.unmatched,
        unknown_examples=joined.unmatched_examples,
        repeated_images=joined.repeated,
    )
    return _Prepared(side, WeightedEvaluation(settings, matches, count))


def _of_truth(results: pa.Table, image_ids: NDArray[np.int64], truth_ids: NDArray[np.int64]) -> pa.Table:
    """The results of images that the truth has, with its image ids."""
    order = np.argsort(image_ids, kind="stable")
    at = np.searchsorted(image_ids[order], results["image_id"].to_numpy())
    ids = truth_ids[order][at]
    field = results.schema.get_field_index("image_id")
    renamed = results.set_column(field, results.schema.field(field), pa.array(ids))
    return renamed.filter(pa.array(ids >= 0))
