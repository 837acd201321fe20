"""`beam-detect detect`: from flags to a finished run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from beam_jobs import matching, pipelines, storage
from beam_jobs.cli import engine, interrupt
from beam_jobs.cli.categories import chosen_ids
from beam_jobs.cli.profile import DetectStage, profile
from beam_jobs.cli.progress import Progress, Transfer, status
from beam_jobs.cli.sample import sample_pictures
from beam_jobs.cli.summary import LISTED_PICTURES, listing, say, summary
from beam_jobs.detectors import catalogue, frozen_form
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.detectors.cache import report_to_stderr
from beam_jobs.detectors.tiles import Tiling
from beam_jobs.errors import JobError, UsageError
from beam_jobs.formats.coco_ids import CocoImage, ImageIds, load_image_ids
from beam_jobs.formats.evaluated import EVALUATION_FILES, GroundTruth, IouType
from beam_jobs.matching import Found
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.annotate import Annotation
from beam_jobs.processes.calls import batch_pixels
from beam_jobs.processes.gpus import suitable_processes
from beam_jobs.processes.picture import PictureSettings
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.select import Selection
from beam_jobs.processes.settings import process_settings
from beam_jobs.runs import layout
from beam_jobs.runs.finalise import Outcome, finalise
from beam_jobs.runs.folder import check_output, remove_run
from beam_jobs.runs.manifest import (
    MANIFEST_VERSION,
    DetectorRecord,
    InputsRecord,
    Manifest,
    ModelRecord,
    machine,
    mark_success,
    program_version,
    versions,
)
from beam_jobs.runs.parts import file_record
from beam_jobs.runs.plan import Plan, Planner

if TYPE_CHECKING:
    from beam_jobs.cli.evaluate import Request
    from beam_jobs.transforms.detect import PoolSource

#: Inputs that a detector process is given at a time: at most; and where pictures share calls, which depends on it.
GROUP_SIZE, SHARING_GROUP_SIZE = 16, 32
#: Up to so many small pictures, one process is done before a second one has opened the detector.
FEW_INPUTS, FEW_BYTES = 8, 32 << 20

DEFAULT_MIN_SCORE = 0.05

DONE, FAILED = 0, 1

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class _Stages:
    """Wall-clock seconds of the stages of a run."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)


def run(options: argparse.Namespace, beam_args: Sequence[str], command: Sequence[str]) -> int:
    """Does a run; returns the exit status.

    Raises:
        UsageError: it cannot start.
        JobError: it cannot be completed.
    """
    started = datetime.now(UTC)
    stages = _Stages()
    root = options.output if storage.is_remote(options.output) else os.path.abspath(options.output)
    if beam_args:
        storage.set_options(beam_args)
    check_output(root, overwrite=options.overwrite)
    if options.iou_type != "bbox" and not options.ground_truth:
        raise UsageError(f"--iou_type {options.iou_type} says what is evaluated: give --ground_truth SOURCE as well.")
    if options.dedupe and options.input_format == "tfrecord":
        raise UsageError("--dedupe compares files of pictures, not records: leave it out with --input_format tfrecord.")
    if options.tile_overlap is not None and not options.tile:
        raise UsageError("--tile_overlap says how much tiles have in common: give --tile N as well.")
    if options.min_score is None:
        options.min_score = 0.0 if options.ground_truth else DEFAULT_MIN_SCORE  # a cut lowers AP
    with ExitStack() as stack, stages.time("total"):
        with stages.time("model_files"):
            job = _job(options, root)
        with stages.time("plan"), status("looking for the inputs …"):
            truth, image_ids = _image_ids(options, root, job)
            planner = stack.enter_context(Planner(image_ids))
            matches = _match(options)
            planner.add(_not_below(root, matches))
            planner.arrange(options.limit)
        if options.dedupe:
            with stages.time("dedupe"), status("looking for files of the same content …"):
                planner.dedupe(job.settings.max_bytes)
        with stages.time("model_form"):
            job = replace(job, spec=_with_form(job.spec, planner))
        processes = _processes(options, planner)
        # On another runner the detector is opened here only to see whether it can be.
        local = engine.is_local(beam_args)
        here = processes if local else 1
        pool = DetectorPool(job.spec, job.settings, here, beam_args=beam_args, verbose=options.verbose)
        stack.callback(pool.close)
        if options.profile and not local:
            raise UsageError("--profile: only the local engine can tell; leave --runner out.")
        if not options.dry_run:
            source = _source(job, processes, beam_args, options.verbose)  # imports Beam while the model is opened
        with stages.time("model_open"), status(f"opening {job.spec.name} …"):
            info = pool.ready()
        job = _settled(job, info)
        _check_evaluated(options.iou_type, job.spec.name, info)
        _LOGGER.info("%s", _threads(job.spec, info, processes))
        if not local:
            pool.close()
        elif not (info.on_gpu or options.workers or processes == 1):
            # A GPU that TensorFlow cannot use.
            pool.grow(len(os.sched_getaffinity(0)))
            processes = pool.size
        if options.dry_run:
            say(_dry_run(options, job, planner, matches, info, processes))
            return DONE
        interrupt.left_behind.append(f"{options.output} holds an unfinished run: --overwrite starts it afresh.")
        with stages.time("plan_write"):
            if options.overwrite:
                remove_run(root)
            plan = _write_plan(planner, root, job)
        with stages.time("detect"), Progress(plan.inputs, pool.tally):
            source = replace(source, settings=job.settings, processes=processes)
            cpu_s = _detect(root, plan, job, source, pool if local else None, beam_args)
        with stages.time("finalise"), status("writing the COCO files and the manifest …"):
            outcome = finalise(root, plan, job.spec.categories, f"Pictures seen by {job.spec.name}, beam-detect")
    detector = _detector_record(outcome.detector, job.spec, pool if local else None)
    outcome = replace(outcome, detector=detector)
    manifest = _manifest(options, job, info, matches, plan, outcome, stages.seconds, started, command)
    manifest = msgspec.structs.replace(manifest, cpu_s=cpu_s)
    manifest.write(root)
    evaluated = None
    if truth is not None and manifest.status == "succeeded":
        from beam_jobs.cli.evaluate import evaluate

        evaluated = evaluate(_evaluation(options, root, job), beam_args, truth)
        files = (f"{layout.EVALUATION_FOLDER}/{name}" for name in EVALUATION_FILES)
        manifest = msgspec.structs.replace(manifest, files=[*manifest.files, *(file_record(root, f) for f in files)])
        manifest.write(root)
    if manifest.status == "succeeded":
        mark_success(root)
    say(summary(options.output, manifest))
    if manifest.counts.inputs <= LISTED_PICTURES:
        say("\n" + listing(root, manifest, options.annotate_min_score))
    if evaluated is not None:
        say(f"\n{evaluated.text}")
    if options.profile and cpu_s is not None:
        cores = len(os.sched_getaffinity(0))
        say("\n" + profile(cpu_s, stages.seconds["detect"], cores, manifest.counts.inputs))
    if manifest.status == "failed":
        print(f"\nbeam-detect: {_why_failed(options, manifest)}", file=sys.stderr)
        return FAILED
    return DONE


def _detect(
    root: str, plan: Plan, job: DetectJob, source: PoolSource, pool: DetectorPool | None, beam_args: Sequence[str]
) -> dict[str, float] | None:
    """Does all parts of the plan: in this process and with its `pool`, or where the flags say.

    Returns:
        CPU seconds by step, if they were spent here.
    """
    group_size = job.group_size or max(1, min(GROUP_SIZE, plan.inputs // (4 * source.processes)))
    try:
        if pool is None:
            parts = range(len(plan.parts))
            engine.run_once(lambda pipeline: pipelines.detect(pipeline, root, source, parts, group_size), beam_args)
            return None
        source.lend(pool)
        stage = DetectStage(pool)
        run = engine.run_local(root, source, len(plan.parts), job.part_size, group_size, beam_args)
        return stage.cpu_s(run)
    except Exception as error:
        # Beam gives the error of a step as text. The pool has its own, whole.
        raise (pool.error if pool and pool.error else JobError(engine.reason(error))) from error


def _job(options: argparse.Namespace, root: str) -> DetectJob:
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


def _settled(job: DetectJob, info: DetectorInfo) -> DetectJob:
    """The job with what depends on where the detector runs: from here on it is the same wherever the rest is done."""
    pixels = batch_pixels(job.settings.batch_pixels, info)
    settings = replace(job.settings, batch_pixels=pixels)
    return replace(job, settings=settings, group_size=SHARING_GROUP_SIZE if pixels else None)


def _with_form(spec: DetectorSpec, planner: Planner) -> DetectorSpec:
    """The detector in the form in which the whole job opens it."""
    return frozen_form.choose(spec, lambda: sample_pictures(each.key for each in planner), report_to_stderr)


def _evaluation(options: argparse.Namespace, root: str, job: DetectJob) -> Request:
    """What `--ground_truth` asks for; the classes of the model help where the truth names classes without ids."""
    from beam_jobs.cli.evaluate import Request

    folder = storage.join(root, layout.EVALUATION_FOLDER)
    return Request(root, options.ground_truth, folder, options.iou_type, label_map=job.spec.categories)


def _check_evaluated(iou_type: IouType, model: str, info: DetectorInfo) -> None:
    """Refuses to evaluate what the model does not give, if it says what it gives: at the end it would be too late."""
    needed = {"segm": "detection_masks", "keypoints": "detection_keypoints"}.get(iou_type)
    outputs = info.details.get("outputs")
    if needed and outputs and needed not in outputs.split(", "):
        raise UsageError(f"--iou_type {iou_type}: {model} has no output {needed}; it has {outputs}.")


def _image_ids(options: argparse.Namespace, root: str, job: DetectJob) -> tuple[GroundTruth | None, ImageIds | None]:
    """The ground truth, if one is given, and the image ids that the job takes: its own before another's."""
    truth = None
    if options.ground_truth:
        from beam_jobs.cli.evaluate import load_truth

        truth = load_truth(_evaluation(options, root, job))
    if options.image_ids:
        return truth, load_image_ids(options.image_ids)
    if truth is None:
        return None, None
    columns = (truth.images["image_id"].to_pylist(), truth.images["file_name"].to_pylist())
    try:
        return truth, ImageIds.of([CocoImage(*image) for image in zip(*columns, strict=True)])
    except ValueError as error:
        raise UsageError(f"--ground_truth {options.ground_truth}: {error}") from error


def _match(options: argparse.Namespace) -> matching.Matches:
    if options.input and options.input_list:
        raise UsageError("--input and --input_list cannot be used together: put the paths into the list.")
    if options.input_list:
        return matching.match_list(options.input_list, root=options.root)
    if not options.input:
        raise UsageError("No input: give --input PATTERN, or --input_list FILE.")
    return matching.match(options.input, root=options.root)


def _not_below(root: str, found: Iterable[Found]) -> Iterator[Found]:
    """The inputs, none of which may be what an earlier run wrote to `root`: it is there only to be replaced."""
    prefixes = {root.rstrip("/") + "/"} | (set() if storage.is_remote(root) else {os.path.realpath(root) + "/"})
    for one in found:
        if one.uri.startswith(tuple(prefixes)):
            raise UsageError(
                f"--overwrite: the input {one.file_name!r} is in the folder of the run that is to be replaced,"
                f" {root}: keep --output out of the inputs."
            )
        yield one


def _processes(options: argparse.Namespace, planner: Planner) -> int:
    if options.workers:
        return int(options.workers)
    if planner.inputs <= FEW_INPUTS and planner.bytes <= FEW_BYTES:
        return 1
    return suitable_processes()


def _threads(spec: DetectorSpec, info: DetectorInfo, processes: int) -> str:
    settings = " ".join(f"{name}={value}" for name, value in process_settings(spec.threads).items())
    return (
        f"{processes} detector processes for {len(os.sched_getaffinity(0))} cores, {spec.threads} threads a call of"
        f" {info.engine}, each with {settings}; Beam: one bundle at a time, in this process"
    )


def _source(job: DetectJob, processes: int, beam_args: Sequence[str], verbose: bool) -> PoolSource:
    from apache_beam.utils.shared import Shared

    from beam_jobs.transforms.detect import PoolSource

    return PoolSource(job.spec, job.settings, processes, tuple(beam_args), verbose, Shared())


def _write_plan(planner: Planner, root: str, job: DetectJob) -> Plan:
    try:
        return planner.write(root, job.part_size, job.identity())
    except OSError as error:
        raise UsageError(f"--output {root} cannot be written: {storage.reason(error)}.") from error


def _manifest(
    options: argparse.Namespace,
    job: DetectJob,
    info: DetectorInfo,
    matches: matching.Matches,
    plan: Plan,
    outcome: Outcome,
    stage_s: Mapping[str, float],
    started: datetime,
    command: Sequence[str],
) -> Manifest:
    counts = outcome.counts
    rate = counts.failed / counts.inputs if counts.inputs else 0.0
    failed = rate > options.max_failure_rate or (counts.failed and not counts.images)
    return Manifest(
        version=MANIFEST_VERSION,
        status="failed" if failed else "succeeded",
        program_version=program_version(),
        command=[storage.display_name(word) for word in command],
        job=job.identity(),
        model=ModelRecord(job.spec.name, job.spec.fingerprint, info.engine, dict(info.details)),
        inputs=InputsRecord(
            planned=plan.inputs,
            parts=len(plan.parts),
            repeated=plan.repeated_inputs,
            hidden_skipped=matches.hidden_skipped,
            folder_links_skipped=matches.dir_links_skipped,
            special_files_skipped=matches.special_skipped,
        ),
        counts=counts,
        known_image_ids=outcome.known_image_ids,
        renamed=outcome.renamed,
        detector=outcome.detector,
        stage_s=dict(stage_s),
        work_s=outcome.work_s,
        pictures_per_s=round(counts.inputs / stage_s["detect"], 2) if stage_s["detect"] else 0.0,
        started=started.isoformat(timespec="seconds"),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine(),
        files=outcome.files,
        repeatable=not outcome.detector.shrunk_calls,
    )


def _detector_record(record: DetectorRecord, spec: DetectorSpec, pool: DetectorPool | None) -> DetectorRecord:
    """With what only the pool knows, and the timings table does not."""
    record = msgspec.structs.replace(record, environment=process_settings(spec.threads))
    if pool is None or not pool.loads:
        return record
    model_mb = round(sum(load.bytes for load in pool.loads) / len(pool.loads) / 1e6)
    return msgspec.structs.replace(record, model_mb=model_mb, rss_mb=round(pool.peak_rss / 1e6))


def _why_failed(options: argparse.Namespace, manifest: Manifest) -> str:
    counts = manifest.counts
    where = f"{storage.join(options.output, 'failures')} says why"
    if not counts.images:
        return f"no input gave a result; {where}."
    return (
        f"{counts.failed / counts.inputs:.1%} of the inputs failed, more than --max_failure_rate"
        f" {options.max_failure_rate:g}; {where}."
    )


def _dry_run(
    options: argparse.Namespace,
    job: DetectJob,
    planner: Planner,
    matches: matching.Matches,
    info: DetectorInfo,
    processes: int,
) -> str:
    first = [f"  {planned.key.file_name}" for planned, _ in zip(planner, range(LISTED_PICTURES), strict=False)]
    if planner.inputs > len(first):
        first.append(f"  … and {planner.inputs - len(first):,} more")
    skipped = matches.hidden_skipped + matches.dir_links_skipped + matches.special_skipped
    identity = {name: value for name, value in job.identity().items() if name not in ("categories", "fingerprint")}
    settings = {"output": options.output, "detector processes": processes, **identity}
    return "\n".join(
        (
            f"plan: {planner.inputs:,} inputs, {planner.bytes / 1e6:,.1f} MB, {skipped:,} skipped,"
            f" {planner.repeated_inputs:,} repeated"
            + (f", {planner.twins:,} with a content that others have as well" if planner.twins else ""),
            *first,
            f"model: {job.spec.name}, sha256 {job.spec.fingerprint}",
            *(f"  {name}: {value}" for name, value in {"engine": info.engine, **info.details}.items()),
            f"  classes: {len(job.spec.categories)}",
            "settings:",
            *(f"  {name}: {'-' if value is None else value}" for name, value in settings.items()),
            "Nothing was written.",
        )
    )
