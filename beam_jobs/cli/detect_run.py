"""The parts of a run whose plan is written: done in this process, or by the runner that the flags name."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from beam_jobs import engines, pipelines, storage
from beam_jobs.cli import interrupt
from beam_jobs.cli.elsewhere import Elsewhere
from beam_jobs.cli.importing import import_beam
from beam_jobs.cli.profile import DetectStage
from beam_jobs.cli.progress import Progress, status
from beam_jobs.cli.summary import printable, say, submitted
from beam_jobs.engines.local import run_local
from beam_jobs.errors import JobError
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.clips import Drawing, annotate_clips
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.samples import Sampler
from beam_jobs.runs import layout
from beam_jobs.runs.completion import complete
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.parts import committed_records
from beam_jobs.runs.plan import Plan
from beam_jobs.runs.progress import remove_progress
from beam_jobs.runs.resume import sweep

if TYPE_CHECKING:
    from beam_jobs.transforms.detect import PoolSource

#: Inputs that a detector process is given at a time, at most.
GROUP_SIZE = 16
#: Detector processes of a job whose runner decides it: what few inputs are divided for.
MANY_PROCESSES = 64


@dataclass(slots=True)
class Stages:
    """Wall-clock seconds of the stages of a run, since the program was begun."""

    begun: float = field(default_factory=time.monotonic)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Measures a stage."""
        start = time.monotonic()
        yield
        self.seconds[name] = round(time.monotonic() - start, 3)

    @property
    def total(self) -> float:
        """Seconds so far, those between the stages too."""
        return time.monotonic() - self.begun


@dataclass(frozen=True, slots=True)
class Todo:
    """What is left of a plan.

    Args:
        parts: the parts that are to be done, by their numbers.
        inputs: how many they have.
        group_size: inputs that a detector process is given at a time.
    """

    parts: Sequence[int]
    inputs: int
    group_size: int

    @staticmethod
    def of(plan: Plan, parts: Sequence[int], job: DetectJob, processes: int) -> Todo:
        """These parts of a plan, for so many processes; 0 where the runner decides it."""
        group_size = job.group_size or max(1, min(GROUP_SIZE, plan.inputs // (4 * (processes or MANY_PROCESSES))))
        return Todo(parts, sum(plan.parts[part] for part in parts), group_size)


def source_of(job: DetectJob, processes: int, beam_args: Sequence[str], *, verbose: bool) -> PoolSource:
    """Where Beam's workers have their detector processes from. Imports Beam."""
    import_beam()
    from apache_beam.utils.shared import Shared

    from beam_jobs.transforms.detect import PoolSource

    here, slots = engines.is_local(beam_args), engines.is_portable(beam_args)
    return PoolSource(
        job.spec, job.settings, processes, tuple(beam_args), verbose, Shared(), per_bundle=slots, tells=not here
    )


def run_here(
    root: str,
    plan: Plan,
    todo: Todo,
    source: PoolSource,
    launch: Launch,
    pool: DetectorPool,
    beam_args: Sequence[str],
    stages: Stages,
) -> Manifest:
    """Does what is left of the plan in this process and with its `pool`, and what follows.

    Raises:
        JobError: it cannot be done.
    """
    with stages.time("detect"), Sampler(pool, pool.log, root), Progress(todo.inputs, pool.tally):
        try:
            stage = DetectStage(pool)
            done = run_local(root, source, pool, todo.parts, todo.group_size, beam_args)
        except Exception as error:
            # Beam gives the error of a step as text. The pool has its own, whole.
            raise (pool.error or JobError(engines.reason(error))) from error
        cpu_s = stage.cpu_s(done)
    if drawing := Drawing.of(plan.job):
        with stages.time("annotate"), status("drawing on clips …"):
            notes = annotate_clips(root, committed_records(root), drawing, pool.size, beam_args)
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


def end_streams(pool: DetectorPool) -> None:
    """What the first Ctrl-C does to a run over live streams alone."""
    pool.end_streams()
    # Not print: this is a signal handler, which may have interrupted one.
    os.write(2, b"\nbeam-detect: the streams end here, and the run with them; Ctrl-C again stops at once.\n")


def run_elsewhere(
    options: argparse.Namespace, root: str, todo: Todo, source: PoolSource, beam_args: Sequence[str]
) -> Manifest | None:
    """Gives what is left of the plan, and what follows, to the runner that the flags name, and waits for it.

    Returns:
        None with `--no_wait`, which does not wait.

    Raises:
        UsageError, JobError: as `Elsewhere.wait` does.
    """
    after = list(interrupt.left_behind)
    remove_progress(root)  # of a run that is resumed
    with status("submitting the job …"):
        running = engines.submit(
            lambda pipeline: pipelines.detect_and_finish(pipeline, root, source, todo.parts, todo.group_size), beam_args
        )
    interrupt.left_behind[:] = [f"The job goes on; {options.output} is complete when it has {layout.MANIFEST}."]
    say(submitted(options, engines.described(running, beam_args)))
    if options.no_wait:
        return None
    with Elsewhere(running, after, root) as there, Progress(todo.inputs, there.tally, there):
        there.wait()
    return Manifest.read(root)
