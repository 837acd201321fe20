"""What the flags of `beam-detect detect` ask for: the job, its inputs, the ground truth."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from beam_jobs import matching, storage
from beam_jobs.cli.categories import chosen_ids
from beam_jobs.cli.progress import Transfer
from beam_jobs.cli.sample import sample_pictures
from beam_jobs.detectors import catalogue, forms
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec, Engine
from beam_jobs.detectors.cache import report_to_stderr
from beam_jobs.detectors.tiles import Tiling
from beam_jobs.errors import UsageError
from beam_jobs.formats.coco_ids import CocoImage, ImageIds, load_image_ids
from beam_jobs.formats.evaluated import GroundTruth, IouType
from beam_jobs.matching import Found
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.annotate import Annotation
from beam_jobs.processes.gpus import suitable_processes
from beam_jobs.processes.picture import PictureSettings
from beam_jobs.processes.select import Selection
from beam_jobs.runs import layout
from beam_jobs.runs.plan import Planner

if TYPE_CHECKING:
    from beam_jobs.cli.evaluate import Request

#: Up to so many small pictures, one process is done before a second one has opened the detector.
FEW_INPUTS, FEW_BYTES = 8, 32 << 20


def job_of(options: argparse.Namespace, root: str) -> DetectJob:
    """The job; fetches the model when need be.

    Raises:
        UsageError: the model, its label map or its classes are not as asked for.
    """
    with Transfer() as transfer:
        spec = catalogue.resolve(
            options.model,
            label_map=options.label_map,
            threads=options.threads,
            engine=options.engine,
            min_score=options.min_score,
            watch=transfer,
        )
    spec = replace(spec, gpu_memory_limit_mb=options.gpu_memory_limit_mb)
    annotation = None
    if options.annotate:
        annotation = Annotation(options.annotate_min_score, options.annotate_max_boxes, options.class_agnostic)
    wanted = chosen_ids(options.categories, spec.categories) if options.categories else None
    settings = PictureSettings(
        selection=Selection(options.min_score, options.max_detections, wanted),
        input_format=options.input_format,
        output=root,
        annotation=annotation,
        image_ids=storage.join(root, layout.IMAGE_IDS) if options.image_ids or options.ground_truth else None,
        batch_pixels=options.batch_pixels,
        tiling=_tiling(options),
    )
    return DetectJob(spec, settings, options.part_size, options.limit, dedupe=options.dedupe)


def _tiling(options: argparse.Namespace) -> Tiling | None:
    if options.tile is None:
        return None
    return Tiling(options.tile) if options.tile_overlap is None else Tiling(options.tile, options.tile_overlap)


def with_form(spec: DetectorSpec, engine: Engine, planner: Planner) -> DetectorSpec:
    """The detector in the form in which the whole job opens it."""
    return forms.choose(spec, engine, lambda: sample_pictures(each.key for each in planner), report_to_stderr)


def evaluation_of(options: argparse.Namespace, root: str, job: DetectJob) -> Request:
    """What `--ground_truth` asks for; the classes of the model help where the truth names classes without ids."""
    from beam_jobs.cli.evaluate import Request

    folder = storage.join(root, layout.EVALUATION_FOLDER)
    return Request(root, options.ground_truth, folder, options.iou_type, label_map=job.spec.categories)


def check_evaluated(iou_type: IouType, model: str, info: DetectorInfo) -> None:
    """Refuses to evaluate what the model does not give, if it says what it gives: at the end it would be too late."""
    needed = {"segm": "detection_masks", "keypoints": "detection_keypoints"}.get(iou_type)
    outputs = info.details.get("outputs")
    if needed and outputs and needed not in outputs.split(", "):
        raise UsageError(f"--iou_type {iou_type}: {model} has no output {needed}; it has {outputs}.")


def truth_and_ids(options: argparse.Namespace, root: str, job: DetectJob) -> tuple[GroundTruth | None, ImageIds | None]:
    """The ground truth, if one is given, and the image ids that the job takes: its own before another's."""
    truth = None
    if options.ground_truth:
        from beam_jobs.cli.evaluate import load_truth

        truth = load_truth(evaluation_of(options, root, job))
    if options.image_ids:
        return truth, load_image_ids(options.image_ids)
    if truth is None:
        return None, None
    columns = (truth.images["image_id"].to_pylist(), truth.images["file_name"].to_pylist())
    try:
        return truth, ImageIds.of([CocoImage(*image) for image in zip(*columns, strict=True)])
    except ValueError as error:
        raise UsageError(f"--ground_truth {options.ground_truth}: {error}") from error


def match_inputs(options: argparse.Namespace) -> matching.Matches:
    """The inputs, as they are found.

    Raises:
        UsageError: none are named, or what is named cannot be looked at.
    """
    if options.input and options.input_list:
        raise UsageError("--input and --input_list cannot be used together: put the paths into the list.")
    if options.input_list:
        return matching.match_list(options.input_list, root=options.root)
    if not options.input:
        raise UsageError("No input: give --input PATTERN, or --input_list FILE.")
    return matching.match(options.input, root=options.root)


def not_below(root: str, found: Iterable[Found]) -> Iterator[Found]:
    """The inputs, none of which may be what an earlier run wrote to `root`: it is there only to be replaced."""
    prefixes = {root.rstrip("/") + "/"} | (set() if storage.is_remote(root) else {os.path.realpath(root) + "/"})
    for one in found:
        if one.uri.startswith(tuple(prefixes)):
            raise UsageError(
                f"--overwrite: the input {one.file_name!r} is in the folder of the run that is to be replaced,"
                f" {root}: keep --output out of the inputs."
            )
        yield one


def processes_for(options: argparse.Namespace, planner: Planner) -> int:
    """How many detector processes: as many as asked for, one for a few pictures, else what suits the host."""
    if options.workers:
        return int(options.workers)
    if planner.inputs <= FEW_INPUTS and planner.bytes <= FEW_BYTES:
        return 1
    return suitable_processes()
