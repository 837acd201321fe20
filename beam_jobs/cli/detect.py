"""`beam-detect detect`: from flags to a finished run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from beam_jobs import engines, storage
from beam_jobs.cli import interrupt
from beam_jobs.cli.detect_begin import (
    KNOWN_LATER,
    check_same,
    check_since,
    earlier_run,
    keep_others_out,
    write_plan,
)
from beam_jobs.cli.detect_checks import check_flags, check_goes_on
from beam_jobs.cli.detect_job import (
    annotation_of,
    check_evaluated,
    check_paths,
    evaluation_of,
    job_of,
    match_inputs,
    not_below,
    not_here,
    processes_for,
    streams_of,
    truth_and_ids,
    warn_of_runs,
    with_form,
)
from beam_jobs.cli.detect_log import began, end_of, finished
from beam_jobs.cli.detect_record import dry_run, launch_of, why_failed
from beam_jobs.cli.detect_run import Stages, Todo, end_streams, run_elsewhere, run_here, source_of
from beam_jobs.cli.profile import profile
from beam_jobs.cli.progress import status
from beam_jobs.cli.summary import LISTED_PICTURES, listing, say, summary
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.errors import UsageError
from beam_jobs.formats.evaluated import EVALUATION_FILES
from beam_jobs.matching import Matches
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.calls import batch_pixels
from beam_jobs.processes.display import Display, Window
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.settings import process_settings
from beam_jobs.runs import layout
from beam_jobs.runs.completion import added_up
from beam_jobs.runs.folder import check_output, remove_run
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.manifest import Manifest, mark_success
from beam_jobs.runs.parts import Counts, commit_part, file_record
from beam_jobs.runs.plan import Plan, Planner
from beam_jobs.runs.resume import Begun, parts_done, read_begun, sweep
from beam_jobs.runs.since import Comparison, Earlier
from beam_jobs.words import counted

if TYPE_CHECKING:
    from beam_jobs.cli.evaluate import Evaluated
    from beam_jobs.formats.evaluated import GroundTruth

#: Inputs that a detector process is given at a time where pictures share calls, which depends on it.
SHARING_GROUP_SIZE = 32
DEFAULT_MIN_SCORE = 0.05

DONE, FAILED = 0, 1

_LOGGER = logging.getLogger(__name__)


def run(options: argparse.Namespace, beam_args: Sequence[str], command: Sequence[str]) -> int:
    """Does a run; returns the exit status.

    Raises:
        UsageError: it cannot start.
        JobError: it cannot be completed.
    """
    started = datetime.now(UTC)
    stages = Stages()
    root = options.output if storage.is_remote(options.output) else os.path.abspath(options.output)
    local = engines.is_local(beam_args)
    check_flags(options, local=local)
    if options.min_score is None:
        options.min_score = 0.0 if options.ground_truth else DEFAULT_MIN_SCORE  # a cut lowers AP
    if beam_args:
        storage.set_options(beam_args)
        beam_args = engines.completed(beam_args)
        check_paths(options, beam_args)
    if options.no_wait and engines.is_portable(beam_args):
        raise UsageError(
            "--no_wait: Beam's job server ends with this program. Leave it out; a Ctrl-C asks about the job."
        )
    check_output(root, overwrite=options.overwrite, resume=options.resume)
    begun = read_begun(root) if options.resume else None
    log = RunLog()
    with ExitStack() as stack:
        stack.push(end_of(log))
        with stages.time("model_files"):
            job = job_of(options, root)
        if begun:
            check_same(options, begun, job, leave_out=KNOWN_LATER)
            if begun.finished:
                say(f"{options.output} is complete: there is nothing left to do.")
                say(summary(options.output, Manifest.read(root)))
                return DONE
            check_goes_on(options)
        earlier = None if begun else earlier_run(options, root)
        if earlier:
            check_since(options, earlier, job, leave_out=KNOWN_LATER)
        inputs = _inputs(options, beam_args, root, job, begun, earlier, stack, stages)
        with stages.time("model_form"):
            job = replace(job, spec=with_form(job.spec, options.engine, inputs.planned))
        window = None
        if options.display and not options.dry_run:
            window = stack.enter_context(Window())
            display = Display(window.folder, annotation_of(options))
            job = replace(job, settings=replace(job.settings, display=display))
        processes = processes_for(options, inputs.planned, local=local)
        # On another runner the detector is opened here only to see whether it can be.
        here = processes if local else 1
        with stages.time("start"):
            pool = DetectorPool(job.spec, job.settings, here, beam_args=beam_args, verbose=options.verbose, log=log)
            stack.callback(pool.close)
            if not options.dry_run:
                # Imports Beam, while the model is opened.
                source = source_of(job, processes, beam_args, verbose=options.verbose)
        with stages.time("model_open"), status(f"opening {job.spec.name} …"):
            info = pool.ready()
        job = _settled(job, info)
        if earlier:
            check_since(options, earlier, job)
        check_evaluated(options.iou_type, job.spec.name, info)
        if not local:
            pool.close()
        elif not (info.on_gpu or options.workers or processes == 1):
            # A GPU that TensorFlow cannot use.
            pool.grow(len(os.sched_getaffinity(0)))
            processes = pool.size
        _LOGGER.info("%s", _threads(job.spec, info, processes, local=local))
        if isinstance(inputs.planned, Planner) and options.dry_run:
            say(dry_run(options, job, inputs.planned, inputs.matches, info, processes))
            return DONE
        with stages.time("plan_write"):
            keep_others_out(stack, root, options.output)
            again = "A live stream cannot be resumed" if streams_of(options) else "--resume goes on with it"
            interrupt.left_behind.append(f"{again}; --overwrite starts {options.output} afresh.")
            plan, done, launch = _begin(options, root, job, inputs, info, stages, started, command)
        launch = msgspec.structs.replace(launch, stage_s=dict(stages.seconds)).begin(root, plan)
        log.open(root)
        began(log, launch, processes, len(done))
        source = replace(source, settings=job.settings, processes=processes, attempt=launch.attempt)
        for part in (part for part, planned in enumerate(plan.parts) if not planned):
            commit_part(root, part, [], [], log, launch.attempt)
        todo = Todo.of(plan, [part for part, n in enumerate(plan.parts) if n and part not in done], job, processes)
        manifest: Manifest | None
        if local:
            if len(streams_of(options)) == plan.inputs:
                stack.enter_context(interrupt.first(lambda: end_streams(pool)))
            manifest = run_here(root, plan, todo, source, launch, pool, beam_args, stages)
        else:
            manifest = run_elsewhere(options, root, todo, source, beam_args)
            if manifest is None:
                return DONE
        evaluated = None
        if manifest.status == "evaluating":
            evaluated, manifest = _evaluate(options, root, job, manifest, inputs.truth, beam_args)
        if manifest.status == "succeeded":
            mark_success(root)
        finished(log, manifest)
        status_code = _concluded(options, root, manifest, evaluated)
        if window is not None and window.is_open:
            with suppress(interrupt.Interrupted), interrupt.first(window.end):  # the run is done, whoever ends it
                print("beam-detect: close the window to end.", file=sys.stderr)
                window.wait()
    return status_code


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a run is over.

    Args:
        planned: a plan that is not written yet, or the run that is taken up again.
        matches: what was found; a run that is taken up does not look at it.
    """

    planned: Planner | Begun
    matches: Matches
    truth: GroundTruth | None


def _inputs(
    options: argparse.Namespace,
    beam_args: Sequence[str],
    root: str,
    job: DetectJob,
    begun: Begun | None,
    earlier: Earlier | None,
    stack: ExitStack,
    stages: Stages,
) -> _Inputs:
    """Looks for the inputs and numbers them, or takes those of the run that was begun."""
    with stages.time("plan"), status("looking for the inputs …"):
        truth, image_ids = truth_and_ids(options, root, job)
        matches = match_inputs(options)
        planned: Planner | Begun
        if begun:
            planned = begun
        else:
            planned = stack.enter_context(Planner(image_ids))
            planned.add(not_below(root, not_here(options, beam_args, matches)))
            if earlier:
                planned.leave_out(lambda found: Comparison(found, earlier, job.settings.max_bytes))
            planned.arrange(options.limit)
    warn_of_runs(matches)
    if options.dedupe and isinstance(planned, Planner):
        with stages.time("dedupe"), status("looking for files of the same content …"):
            planned.dedupe(job.settings.max_bytes)
    return _Inputs(planned, matches, truth)


def _begin(
    options: argparse.Namespace,
    root: str,
    job: DetectJob,
    inputs: _Inputs,
    info: DetectorInfo,
    stages: Stages,
    started: datetime,
    command: Sequence[str],
) -> tuple[Plan, Mapping[int, Counts], Launch]:
    """Writes the plan, or takes up that of the run that was begun; returns it, what of it is done, and the launch."""
    planned = inputs.planned
    evaluate = inputs.truth is not None and not options.no_wait
    if isinstance(planned, Begun):
        check_same(options, planned, job)
        sweep(root)
        done = parts_done(root)
        launch = planned.taken_up(stages.seconds, done, options.max_failure_rate, begun=started, evaluate=evaluate)
        return planned.plan, done, launch
    check_output(root, overwrite=options.overwrite, resume=options.resume)  # another may have begun
    remove_run(root)
    plan = write_plan(planned, root, job)
    launch = launch_of(
        options,
        job,
        info,
        inputs.matches,
        plan,
        stages.seconds,
        started,
        command,
        evaluate=evaluate,
        since=planned.since,
    )
    return plan, {}, launch


def _evaluate(
    options: argparse.Namespace,
    root: str,
    job: DetectJob,
    manifest: Manifest,
    truth: GroundTruth | None,
    beam_args: Sequence[str],
) -> tuple[Evaluated, Manifest]:
    from beam_jobs.cli.evaluate import evaluate, start_afresh

    start = time.monotonic()
    request = evaluation_of(options, root, job)
    start_afresh(request.output, request.output)
    evaluated = evaluate(request, beam_args, truth)
    paths = (f"{layout.EVALUATION_FOLDER}/{name}" for name in EVALUATION_FILES)
    files = [*manifest.files, *(file_record(root, path) for path in paths)]
    seconds = time.monotonic() - start
    stage_s = added_up({**manifest.stage_s, "evaluate": seconds}, manifest.stage_s["total"] + seconds)
    manifest = msgspec.structs.replace(manifest, status="succeeded", files=files, stage_s=stage_s)
    manifest.write(root)
    return evaluated, manifest


def _concluded(options: argparse.Namespace, root: str, manifest: Manifest, evaluated: Evaluated | None) -> int:
    """Says what the run came to; returns the exit status."""
    say(summary(options.output, manifest))
    if 0 < manifest.counts.inputs <= LISTED_PICTURES:
        say("\n" + listing(root, manifest, options.annotate_min_score))
    if evaluated is not None:
        say(f"\n{evaluated.text}")
    if options.profile and manifest.cpu_s is not None:
        cores = len(os.sched_getaffinity(0))
        say("\n" + profile(manifest.cpu_s, manifest.stage_s["detect"], cores, manifest.counts.inputs))
    if manifest.status == "failed":
        print(f"\nbeam-detect: {why_failed(options, manifest)}", file=sys.stderr)
        return FAILED
    return DONE


def _settled(job: DetectJob, info: DetectorInfo) -> DetectJob:
    """The job with what depends on where the detector runs: from here on it is the same wherever the rest is done."""
    pixels = batch_pixels(job.settings.batch_pixels, info)
    settings = replace(job.settings, batch_pixels=pixels)
    return replace(job, settings=settings, group_size=SHARING_GROUP_SIZE if pixels else None)


def _threads(spec: DetectorSpec, info: DetectorInfo, processes: int, *, local: bool) -> str:
    settings = " ".join(f"{name}={value}" for name, value in process_settings(spec.threads).items())
    cores = counted(len(os.sched_getaffinity(0)), "core")
    made = counted(processes, "detector process", "detector processes") if processes else "As many processes as suit it"
    return (
        f"{made} {f'for {cores}' if local else 'a worker'}, {counted(spec.threads, 'thread')} a call of"
        f" {info.engine}, each with {settings}" + ("; Beam: one bundle at a time, in this process" if local else "")
    )
