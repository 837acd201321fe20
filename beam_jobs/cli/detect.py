"""`beam-detect detect`: from flags to a finished run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from beam_jobs import pipelines, storage
from beam_jobs.cli import engine, interrupt
from beam_jobs.cli.detect_job import (
    check_evaluated,
    evaluation_of,
    job_of,
    match_inputs,
    not_below,
    processes_for,
    truth_and_ids,
    with_form,
)
from beam_jobs.cli.detect_record import detector_record, dry_run, manifest_of, why_failed
from beam_jobs.cli.profile import DetectStage, profile
from beam_jobs.cli.progress import Progress, status
from beam_jobs.cli.summary import LISTED_PICTURES, listing, say, summary
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.errors import JobError, UsageError
from beam_jobs.formats.evaluated import EVALUATION_FILES
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.calls import batch_pixels
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.settings import process_settings
from beam_jobs.runs import layout
from beam_jobs.runs.finalise import finalise
from beam_jobs.runs.folder import check_output, remove_run
from beam_jobs.runs.manifest import (
    mark_success,
)
from beam_jobs.runs.parts import file_record
from beam_jobs.runs.plan import Plan, Planner

if TYPE_CHECKING:
    from beam_jobs.transforms.detect import PoolSource

#: Inputs that a detector process is given at a time: at most; and where pictures share calls, which depends on it.
GROUP_SIZE, SHARING_GROUP_SIZE = 16, 32
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
            job = job_of(options, root)
        with stages.time("plan"), status("looking for the inputs …"):
            truth, image_ids = truth_and_ids(options, root, job)
            planner = stack.enter_context(Planner(image_ids))
            matches = match_inputs(options)
            planner.add(not_below(root, matches))
            planner.arrange(options.limit)
        if options.dedupe:
            with stages.time("dedupe"), status("looking for files of the same content …"):
                planner.dedupe(job.settings.max_bytes)
        with stages.time("model_form"):
            job = replace(job, spec=with_form(job.spec, options.engine, planner))
        processes = processes_for(options, planner)
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
        check_evaluated(options.iou_type, job.spec.name, info)
        _LOGGER.info("%s", _threads(job.spec, info, processes))
        if not local:
            pool.close()
        elif not (info.on_gpu or options.workers or processes == 1):
            # A GPU that TensorFlow cannot use.
            pool.grow(len(os.sched_getaffinity(0)))
            processes = pool.size
        if options.dry_run:
            say(dry_run(options, job, planner, matches, info, processes))
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
    detector = detector_record(outcome.detector, job.spec, pool if local else None)
    outcome = replace(outcome, detector=detector)
    manifest = manifest_of(options, job, info, matches, plan, outcome, stages.seconds, started, command)
    manifest = msgspec.structs.replace(manifest, cpu_s=cpu_s)
    manifest.write(root)
    evaluated = None
    if truth is not None and manifest.status == "succeeded":
        from beam_jobs.cli.evaluate import evaluate

        evaluated = evaluate(evaluation_of(options, root, job), beam_args, truth)
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
        print(f"\nbeam-detect: {why_failed(options, manifest)}", file=sys.stderr)
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


def _settled(job: DetectJob, info: DetectorInfo) -> DetectJob:
    """The job with what depends on where the detector runs: from here on it is the same wherever the rest is done."""
    pixels = batch_pixels(job.settings.batch_pixels, info)
    settings = replace(job.settings, batch_pixels=pixels)
    return replace(job, settings=settings, group_size=SHARING_GROUP_SIZE if pixels else None)


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
