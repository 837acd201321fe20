"""`beam-detect detect`: from flags to a finished run."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from beam_jobs import engines, pipelines, storage
from beam_jobs.cli import interrupt
from beam_jobs.cli.detect_begin import (
    KNOWN_LATER,
    check_same,
    check_since,
    earlier_run,
    keep_others_out,
    write_plan,
)
from beam_jobs.cli.detect_job import (
    annotation_of,
    check_evaluated,
    check_goes_on,
    check_paths,
    check_streams,
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
from beam_jobs.cli.elsewhere import Elsewhere
from beam_jobs.cli.importing import import_beam
from beam_jobs.cli.profile import DetectStage, profile
from beam_jobs.cli.progress import Progress, status
from beam_jobs.cli.summary import LISTED_PICTURES, listing, printable, say, submitted, summary
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.engines.local import run_local
from beam_jobs.errors import JobError, UsageError
from beam_jobs.formats.evaluated import EVALUATION_FILES
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.calls import batch_pixels
from beam_jobs.processes.clips import Drawing, annotate_clips
from beam_jobs.processes.display import Display, Window
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.samples import Sampler
from beam_jobs.processes.settings import process_settings
from beam_jobs.runs import layout
from beam_jobs.runs.completion import added_up, complete
from beam_jobs.runs.folder import check_output, remove_run
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.manifest import Manifest, mark_success
from beam_jobs.runs.parts import PartRecord, commit_part, committed, file_record
from beam_jobs.runs.plan import Plan, Planner
from beam_jobs.runs.progress import remove_progress
from beam_jobs.runs.resume import Begun, parts_done, read_begun, sweep
from beam_jobs.runs.since import Comparison
from beam_jobs.words import counted

if TYPE_CHECKING:
    from beam_jobs.cli.evaluate import Evaluated
    from beam_jobs.engines.running import RunningJob
    from beam_jobs.formats.evaluated import GroundTruth
    from beam_jobs.transforms.detect import PoolSource

#: Inputs that a detector process is given at a time: at most; and where pictures share calls, which depends on it.
GROUP_SIZE, SHARING_GROUP_SIZE = 16, 32
#: Detector processes of a job whose runner decides it: what few inputs are divided for.
MANY_PROCESSES = 64
DEFAULT_MIN_SCORE = 0.05

DONE, FAILED = 0, 1

_LOGGER = logging.getLogger(__name__)


@dataclass(slots=True)
class _Stages:
    """Wall-clock seconds of the stages of a run, since the program was begun."""

    begun: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)

    @property
    def total(self) -> float:
        """Seconds so far, those between the stages too."""
        return time.monotonic() - self.begun


def run(options: argparse.Namespace, beam_args: Sequence[str], command: Sequence[str]) -> int:
    """Does a run; returns the exit status.

    Raises:
        UsageError: it cannot start.
        JobError: it cannot be completed.
    """
    started = datetime.now(UTC)
    stages = _Stages()
    root = options.output if storage.is_remote(options.output) else os.path.abspath(options.output)
    local = engines.is_local(beam_args)
    _check_flags(options, local=local)
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
        with stages.time("model_form"):
            job = replace(job, spec=with_form(job.spec, options.engine, planned))
        window = None
        if options.display and not options.dry_run:
            window = stack.enter_context(Window())
            display = Display(window.folder, annotation_of(options))
            job = replace(job, settings=replace(job.settings, display=display))
        processes = processes_for(options, planned, local=local)
        # On another runner the detector is opened here only to see whether it can be.
        here = processes if local else 1
        with stages.time("start"):
            pool = DetectorPool(job.spec, job.settings, here, beam_args=beam_args, verbose=options.verbose, log=log)
            stack.callback(pool.close)
            if not options.dry_run:
                source = _source(job, processes, beam_args, options.verbose)  # imports Beam while the model is opened
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
        if isinstance(planned, Planner) and options.dry_run:
            say(dry_run(options, job, planned, matches, info, processes))
            return DONE
        evaluate_here = truth is not None and not options.no_wait
        with stages.time("plan_write"):
            keep_others_out(stack, root, options.output)
            again = "A live stream cannot be resumed" if streams_of(options) else "--resume goes on with it"
            interrupt.left_behind.append(f"{again}; --overwrite starts {options.output} afresh.")
            if isinstance(planned, Begun):
                check_same(options, planned, job)
                sweep(root)
                plan, done = planned.plan, parts_done(root)
                launch = planned.taken_up(
                    stages.seconds, done, options.max_failure_rate, begun=started, evaluate=evaluate_here
                )
            else:
                check_output(root, overwrite=options.overwrite, resume=options.resume)  # another may have begun
                remove_run(root)
                plan, done = write_plan(planned, root, job), {}
                launch = launch_of(
                    options,
                    job,
                    info,
                    matches,
                    plan,
                    stages.seconds,
                    started,
                    command,
                    evaluate=evaluate_here,
                    since=planned.since,
                )
        launch = msgspec.structs.replace(launch, stage_s=dict(stages.seconds)).begin(root, plan)
        log.open(root)
        began(log, launch, processes, len(done))
        source = replace(source, settings=job.settings, processes=processes, attempt=launch.attempt)
        group_size = job.group_size or max(1, min(GROUP_SIZE, plan.inputs // (4 * (processes or MANY_PROCESSES))))
        for part in (part for part, inputs in enumerate(plan.parts) if not inputs):
            commit_part(root, part, [], [], log, launch.attempt)
        todo = [part for part, inputs in enumerate(plan.parts) if inputs and part not in done]
        if local:
            if len(streams_of(options)) == plan.inputs:
                stack.enter_context(interrupt.first(lambda: _end_streams(pool)))
            manifest = _run_here(root, plan, todo, source, group_size, launch, pool, beam_args, stages)
        else:
            after = list(interrupt.left_behind)
            running = _submit(root, todo, source, group_size, beam_args)
            interrupt.left_behind[:] = [f"The job goes on; {options.output} is complete when it has {layout.MANIFEST}."]
            say(submitted(options, engines.described(running, beam_args)))
            if options.no_wait:
                return DONE
            total = sum(plan.parts[part] for part in todo)
            with Elsewhere(running, after, root) as there, Progress(total, there.tally, there):
                there.wait()
            manifest = Manifest.read(root)
        evaluated = None
        if manifest.status == "evaluating":
            evaluated, manifest = _evaluate(options, root, job, manifest, truth, beam_args)
        if manifest.status == "succeeded":
            mark_success(root)
        finished(log, manifest)
        status_code = _concluded(options, root, manifest, evaluated)
        if window is not None and window.is_open:
            with suppress(interrupt.Interrupted), interrupt.first(window.end):  # the run is done, whoever ends it
                print("beam-detect: close the window to end.", file=sys.stderr)
                window.wait()
    return status_code


def _check_flags(options: argparse.Namespace, *, local: bool) -> None:
    if options.no_wait and local:
        raise UsageError("--no_wait: the local engine ends with this program. Leave it out, or name a --runner.")
    if options.profile and not local:
        raise UsageError("--profile: only the local engine can tell; leave --runner out.")
    check_streams(options, local=local)
    if options.resume and (options.overwrite or options.dry_run):
        other = "--overwrite" if options.overwrite else "--dry_run"
        raise UsageError(f"--resume goes on with what is there, {other} does not: leave one of them out.")
    if options.since and options.ground_truth:
        raise UsageError(
            "--since leaves pictures out, which --ground_truth would count as missed: give it as --image_ids, and"
            " evaluate the runs together."
        )
    if options.iou_type != "bbox" and not options.ground_truth:
        raise UsageError(f"--iou_type {options.iou_type} says what is evaluated: give --ground_truth SOURCE as well.")
    if options.dedupe and options.input_format == "tfrecord":
        raise UsageError("--dedupe compares files of pictures, not records: leave it out with --input_format tfrecord.")
    if options.dedupe and options.input_format == "video":
        raise UsageError("--dedupe compares pictures, not frames: leave it out with --input_format video.")
    chosen = [f"--{name}" for name in ("fps", "every", "keyframes_only") if getattr(options, name)]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} choose frames in different ways: leave all but one of them out.")
    if chosen and options.input_format in ("image", "tfrecord"):
        raise UsageError(f"{chosen[0]} is for clips: leave it out with --input_format {options.input_format}.")
    if options.start is not None and options.end is not None and options.start >= options.end:
        raise UsageError(f"--start must be before --end; they are {options.start:g} and {options.end:g} seconds.")
    if options.end == 0:
        raise UsageError("--end 0: no frame is before that time; give the seconds at which to end, or leave it out.")
    if (options.annotate_frames or options.annotate_every) and not options.annotate:
        raise UsageError("--annotate_frames and --annotate_every say which frames are drawn: give --annotate as well.")
    if options.display and not local:
        raise UsageError("--display: the pictures of another runner are not here to be shown; leave --runner out.")
    for name in ("track_score", "track_lost_s"):
        if getattr(options, name) is not None and not options.track:
            raise UsageError(f"--{name} says how objects are followed: give --track as well.")
    if options.tile_overlap is not None and not options.tile:
        raise UsageError("--tile_overlap says how much tiles have in common: give --tile N as well.")
    if options.min_score is None:
        options.min_score = 0.0 if options.ground_truth else DEFAULT_MIN_SCORE  # a cut lowers AP


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


def _run_here(
    root: str,
    plan: Plan,
    todo: Sequence[int],
    source: PoolSource,
    group_size: int,
    launch: Launch,
    pool: DetectorPool,
    beam_args: Sequence[str],
    stages: _Stages,
) -> Manifest:
    """Does what is left of the plan in this process and with its `pool`, and what follows."""
    total = sum(plan.parts[part] for part in todo)
    with stages.time("detect"), Sampler(pool, pool.log, root), Progress(total, pool.tally):
        try:
            stage = DetectStage(pool)
            done = run_local(root, source, pool, todo, group_size, beam_args)
        except Exception as error:
            # Beam gives the error of a step as text. The pool has its own, whole.
            raise (pool.error or JobError(engines.reason(error))) from error
        cpu_s = stage.cpu_s(done)
    if drawing := Drawing.of(plan.job):
        with stages.time("annotate"), status("drawing on clips …"):
            records = (PartRecord.read(root, path) for path in committed(root).values())
            notes = annotate_clips(root, records, drawing, pool.size, beam_args)
        for note in notes:
            pool.log.warning("annotate", note.code, note.message, input=storage.display_name(note.uri))
            print(f"beam-detect: {printable(str(note))}", file=sys.stderr)
    with status("writing the COCO files and the manifest …"):
        loads = pool.loads
        if pool.lost:
            sweep(root)
        if not loads:
            return complete(root, launch, clock=stages, cpu_s=cpu_s)
        model_mb = round(sum(load.bytes for load in loads) / len(loads) / 1e6)
        rss_mb = round(pool.peak_rss / 1e6)
        return complete(root, launch, clock=stages, cpu_s=cpu_s, model_mb=model_mb, rss_mb=rss_mb)


def _end_streams(pool: DetectorPool) -> None:
    pool.end_streams()
    # Not print: this is a signal handler, which may have interrupted one.
    os.write(2, b"\nbeam-detect: the streams end here, and the run with them; Ctrl-C again stops at once.\n")


def _submit(
    root: str, parts: Sequence[int], source: PoolSource, group_size: int, beam_args: Sequence[str]
) -> RunningJob:
    """Gives the parts that are to be done, and what follows, to the runner that the flags name."""
    remove_progress(root)  # of a run that is resumed
    with status("submitting the job …"):
        return engines.submit(
            lambda pipeline: pipelines.detect_and_finish(pipeline, root, source, parts, group_size), beam_args
        )


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


def _source(job: DetectJob, processes: int, beam_args: Sequence[str], verbose: bool) -> PoolSource:
    import_beam()
    from apache_beam.utils.shared import Shared

    from beam_jobs.transforms.detect import PoolSource

    here, slots = engines.is_local(beam_args), engines.is_portable(beam_args)
    return PoolSource(
        job.spec, job.settings, processes, tuple(beam_args), verbose, Shared(), per_bundle=slots, tells=not here
    )
