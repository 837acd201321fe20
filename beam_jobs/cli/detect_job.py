"""What the flags of `beam-detect detect` ask for: the job, its inputs, the ground truth."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from beam_jobs import engines, matching, storage
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
from beam_jobs.imaging.video_ranges import FrameChoice
from beam_jobs.imaging.video_stream import StreamLimits
from beam_jobs.matching import Found
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.annotate import Annotation
from beam_jobs.processes.gpus import suitable_processes
from beam_jobs.processes.select import Selection
from beam_jobs.processes.work import PictureSettings
from beam_jobs.runs import layout
from beam_jobs.runs.plan import PlannedInput, Planner
from beam_jobs.runs.resume import Begun
from beam_jobs.tracking.tracker import Tracking
from beam_jobs.words import shown_url

if TYPE_CHECKING:
    from beam_jobs.cli.evaluate import Request

#: Up to so many small pictures, one process is done before a second one has opened the detector.
FEW_INPUTS, FEW_BYTES = 8, 32 << 20
#: Small files of these names may still be much work.
CLIP_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm")
#: Runs among the inputs that are named.
NAMED_RUNS = 3

_LOGGER = logging.getLogger(__name__)


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
    wanted = chosen_ids(options.categories, spec.categories) if options.categories else None
    settings = PictureSettings(
        selection=Selection(options.min_score, options.max_detections, wanted),
        input_format=options.input_format,
        output=root,
        annotation=annotation_of(options) if options.annotate else None,
        image_ids=storage.join(root, layout.IMAGE_IDS) if options.image_ids or options.ground_truth else None,
        batch_pixels=options.batch_pixels,
        tiling=_tiling(options),
        tracking=_tracking(options),
        frames=FrameChoice(options.fps, options.every, options.start, options.end, options.keyframes_only),
        max_pixels=options.max_pixels,
        max_bytes=options.max_bytes,
        max_clip_frames=options.max_clip_frames,
        max_seconds=options.max_seconds,
        max_memory=(options.max_memory_mb or 0) << 20,
        streams=matching.named_streams(streams_of(options)),
        stream_limits=StreamLimits(options.max_frames, options.duration, options.reconnect_s),
    )
    return DetectJob(spec, settings, options.part_size, options.limit, dedupe=options.dedupe)


def annotation_of(options: argparse.Namespace) -> Annotation:
    """What is drawn, on annotated pictures and in the window of `--display`."""
    return Annotation(
        options.annotate_min_score,
        options.annotate_max_boxes,
        options.class_agnostic,
        options.annotate_frames or (),
        options.annotate_every,
    )


def _tiling(options: argparse.Namespace) -> Tiling | None:
    if options.tile is None:
        return None
    return Tiling(options.tile) if options.tile_overlap is None else Tiling(options.tile, options.tile_overlap)


def _tracking(options: argparse.Namespace) -> Tracking | None:
    if not options.track:
        return None
    usual = Tracking()
    high = usual.high if options.track_score is None else options.track_score
    lost_s = usual.lost_s if options.track_lost_s is None else options.track_lost_s
    return Tracking(high, low=min(usual.low, high), lost_s=lost_s)


def with_form(spec: DetectorSpec, engine: Engine, planned: Iterable[PlannedInput]) -> DetectorSpec:
    """The detector in the form in which the whole job opens it."""
    return forms.choose(spec, engine, lambda: sample_pictures(each.key for each in planned), report_to_stderr)


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
    streams = streams_of(options)
    patterns = [pattern for pattern in options.input if pattern not in streams]
    names = matching.named_streams(streams)
    return matching.match(patterns, root=options.root, run_mark=layout.PLAN, streams=names)


def streams_of(options: argparse.Namespace) -> list[str]:
    """The addresses of the live streams among the inputs, with all that is secret in them."""
    return [one for one in options.input if matching.is_stream(one, stated=options.input_format == "stream")]


def warn_of_runs(matches: matching.Matches) -> None:
    """Names the earlier runs that lie among the inputs and are none."""
    if runs := matches.runs_skipped:
        named = ", ".join(map(storage.display_name, runs[:NAMED_RUNS]))
        more = f" and {len(runs) - NAMED_RUNS:,} more" if len(runs) > NAMED_RUNS else ""
        _LOGGER.warning("warning: left out what earlier runs wrote: %s%s", named, more)


def check_paths(options: argparse.Namespace, beam_args: Sequence[str]) -> None:
    """Refuses what is on this machine, if the workers are not.

    Raises:
        UsageError: it names the flag.
    """
    model = [("--model", options.model)] if os.path.exists(options.model) else []
    named = [("--output", options.output), *(("--input", pattern) for pattern in options.input)]
    engines.check_paths(beam_args, named, in_image=model)


def not_here(options: argparse.Namespace, beam_args: Sequence[str], found: Iterable[Found]) -> Iterator[Found]:
    """The inputs, none of which may be on this machine, if the workers are not: a list's lines may name anything."""
    if options.input_list and not engines.is_local(beam_args):
        for one in found:
            engines.check_paths(beam_args, [("--input_list: the input", one.uri)])
            yield one
    else:
        yield from found


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


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """What a run is asked for beside its job, as plain JSON: the same for the same words, wherever they are said."""

    def place(path: str | None) -> str | None:
        if path is None or storage.is_remote(path) or matching.is_stream(path):
            return path and shown_url(path)
        return storage.display_name(os.path.abspath(path))

    return {
        "input": [place(pattern) for pattern in options.input],
        **{
            name: place(getattr(options, name)) for name in ("input_list", "root", "image_ids", "ground_truth", "since")
        },
        "iou_type": options.iou_type,
        "limit": options.limit,
    }


def processes_for(options: argparse.Namespace, planner: Planner | Begun, *, local: bool) -> int:
    """How many detector processes a worker has: as many as asked for, one for a few pictures, else what suits the host.

    Returns:
        0 where only the worker can know that.
    """
    if options.workers:
        return int(options.workers)
    if not local:
        return 0
    if options.display:
        return max(1, len(streams_of(options)))
    streams = len(streams_of(options))  # each has a process to itself as long as it is read
    if streams and planner.inputs == streams:
        return streams
    if not streams and planner.inputs <= FEW_INPUTS and planner.bytes <= FEW_BYTES:
        clips = any(_seems_a_clip(one.key.uri, options.input_format) for one in planner)
        return suitable_processes() if clips else 1
    return suitable_processes() + streams


def _seems_a_clip(uri: str, input_format: str) -> bool:
    """Whether a file, by its name, has many pictures: none is opened only to know how many processes to start."""
    return input_format == "video" or uri.lower().endswith(CLIP_SUFFIXES)
