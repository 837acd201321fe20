"""`beam-detect compare`: two sets of detections against one ground truth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs import storage
from beam_jobs.cli import compare_outputs, compare_text, interrupt
from beam_jobs.cli.categories import chosen_ids
from beam_jobs.cli.compare_result import Compared, Side, changed, note
from beam_jobs.cli.output_folder import check_output, make_output
from beam_jobs.cli.progress import counting, status
from beam_jobs.cli.sides import check_images, join_results, read_truth
from beam_jobs.cli.summary import say
from beam_jobs.errors import UsageError
from beam_jobs.evaluation import bootstrap
from beam_jobs.evaluation.refusals import check_rows
from beam_jobs.evaluation.repeats import count_repeats
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.threshold_matches import ThresholdMatches, match_thresholds
from beam_jobs.evaluation.weighted import WeightedEvaluation
from beam_jobs.formats.evaluated import GroundTruth
from beam_jobs.formats.label_map import load_label_map
from beam_jobs.processes.resampling import over_processes
from beam_jobs.report.compare_gallery import PICKS, ChangedImage, ComparedSide, compare_gallery
from beam_jobs.report.content import GalleryItem, GalleryKind

#: An image is judged by its detections of this IoU and score: COCO's mildest, and what is commonly shown to people.
IMAGE_IOU, IMAGE_SCORE = 0.5, 0.3
#: Samples times the work of one, which one process does before others would have started: a second.
FEW = 50_000_000


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
    check_output(root, options.output, "comparison", compare_outputs.FILES, overwrite=options.overwrite)
    check_images(options.images)
    label_map = load_label_map(options.label_map) if options.label_map else None
    truth = read_truth(options.ground_truth, options.iou_type, label_map)
    settings = _settings(options, truth)
    with status("matching A …"):
        a = _prepare("A", options.detections_a, options.ground_truth, truth, settings)
    with status("matching B …"):
        b = _prepare("B", options.detections_b, options.ground_truth, truth, settings)
    make_output(root, options.output)
    pair = bootstrap.Pair(a.evaluation, b.evaluation)
    with counting("samples", options.samples) as done:
        comparison = bootstrap.compare(
            pair,
            samples=options.samples,
            seed=options.seed,
            confidence=options.confidence,
            over=over_processes(_processes(options, pair), done),
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
    with status("writing the report …"):
        compare_outputs.write(root, compared, _gallery(compared, a, b, options.images or ""))
    interrupt.left_behind.clear()
    say(compare_text.text(compared))
    say(f"\nnumbers, images and a report are in {options.output}")
    return 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    side: Side
    evaluation: WeightedEvaluation
    shown: ComparedSide


def _settings(options: argparse.Namespace, truth: GroundTruth) -> EvaluationSettings:
    known = set(truth.categories)
    ids = chosen_ids(options.categories, truth.categories) & known if options.categories else known
    if not ids:
        raise UsageError("There are no classes to compare: the ground truth has none of them.")
    return EvaluationSettings.of(options.iou_type, tuple(sorted(ids)))


def _processes(options: argparse.Namespace, pair: bootstrap.Pair) -> int:
    if options.workers:
        return int(options.workers)
    few = options.samples * (pair.a.work + pair.b.work) <= FEW
    return 1 if few else len(os.sched_getaffinity(0))


def _prepare(name: str, source: str, truth_source: str, truth: GroundTruth, settings: EvaluationSettings) -> _Prepared:
    found = join_results(source, f"{name} ({source})", truth, truth_source, settings.iou_type)
    joined = found.joined
    results = joined.of_truth(found.read())
    wanted = pc.is_in(results["category_id"], value_set=pa.array(settings.category_ids, pa.int32()))
    evaluated = results.filter(wanted)
    if results.num_rows and not evaluated.num_rows:
        raise UsageError(
            f"{name} ({source}) and --ground_truth {truth_source} have no class in common"
            f" (of {', '.join(map(str, settings.category_ids[:10]))}). --label_map names them alike."
        )
    try:
        check_rows(settings.iou_type, truth.images, truth.objects, evaluated)
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
        repeated_detections=count_repeats(evaluated),
    )
    return _Prepared(side, WeightedEvaluation(settings, matches, count), ComparedSide(source, evaluated, joined))


def _gallery(compared: Compared, a: _Prepared, b: _Prepared, images: str) -> tuple[GalleryItem, ...] | None:
    """The images that changed most, some that gained and some that lost; None where nothing says where they are."""
    kinds: dict[GalleryKind, list[ChangedImage]] = {"better": [], "worse": []}
    for row in changed(compared):
        kind: GalleryKind = "better" if row["difference"] > 0 else "worse"
        caption = f"F1 {row['f1_a']:.2f} → {row['f1_b']:.2f}: {note(row)}"
        kinds[kind].append(ChangedImage(row["image_id"], kind, caption))
    return compare_gallery(
        [one for some in kinds.values() for one in some[:PICKS]],
        compared.truth,
        (a.shown, b.shown),
        compared.settings,
        iou_threshold=IMAGE_IOU,
        min_score=IMAGE_SCORE,
        images=images,
    )
