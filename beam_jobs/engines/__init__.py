"""What runs the pipelines: the local engine, or a runner of Beam's.

A runner with flags that a user need not know has a module here, with a function `completed` that fills them in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from beam_jobs.engines.faults import reason
from beam_jobs.errors import UsageError

__all__ = [
    "check_paths",
    "completed",
    "described",
    "is_local",
    "is_portable",
    "reason",
    "run_here",
    "runner_name",
    "submit",
]

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_jobs.engines.running import RunningJob

#: Names of the local engine. It is pinned: Beam's own DirectRunner tries others first, one of which it downloads.
LOCAL = ("DirectRunner", "direct")


def runner_name(beam_args: Sequence[str]) -> str:
    """The last part of `--runner`'s name in these flags of Beam's. Imports Beam if there are any."""
    if not beam_args:
        return LOCAL[0]
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    runner = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner
    return LOCAL[0] if runner is None else str(runner).rpartition(".")[2]


def is_local(beam_args: Sequence[str]) -> bool:
    """Whether these flags of Beam's leave the job to the local engine. Imports Beam if there are any.

    Raises:
        UsageError: they name a runner that Beam does not have, or cannot load.
    """
    if runner_name(beam_args) in LOCAL:
        return True
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
    from apache_beam.runners.runner import create_runner

    runner = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner
    try:
        create_runner(runner)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--runner {runner} cannot be used: {error}") from error
    return False


def completed(beam_args: Sequence[str]) -> list[str]:
    """Beam's flags with those added that the runner needs and a user need not know; what is given already stays.

    Raises:
        UsageError: a flag that the runner needs is missing or wrong.
    """
    runner = runner_name(beam_args)
    if runner == "DataflowRunner":
        from beam_jobs.engines import dataflow

        return dataflow.completed(beam_args)
    if is_portable(beam_args):
        from beam_jobs.engines import portable

        return portable.completed(runner, beam_args)
    return list(beam_args)


def is_portable(beam_args: Sequence[str]) -> bool:
    """Whether the runner speaks Beam's Job API: its workers are ours, and its jobs end with their launcher."""
    from beam_jobs.engines.portable import RUNNERS

    return runner_name(beam_args) in RUNNERS


def check_paths(
    beam_args: Sequence[str], paths: Iterable[tuple[str, str]], in_image: Iterable[tuple[str, str]] = ()
) -> None:
    """Refuses files and folders that the runner's workers could not open, as far as that can be known.

    Args:
        paths: flags, and what they name.
        in_image: the same, of what an image of the workers may hold.

    Raises:
        UsageError: one is on this machine, and the workers are not.
    """
    if runner_name(beam_args) == "DataflowRunner":
        from beam_jobs.engines import dataflow

        dataflow.check_paths(beam_args, paths, in_image)


def submit(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str]) -> RunningJob:
    """Gives a pipeline to the runner that the flags name, and does not wait for it.

    Raises:
        JobError: it was not accepted.
    """
    from beam_jobs.engines import portable
    from beam_jobs.engines.running import RunningJob, submitted

    result = submitted(build, beam_args)
    if not is_portable(beam_args):
        return RunningJob(result, "", None, detached=True)
    return RunningJob(result, portable.job_name(beam_args), portable.cluster(beam_args))


def described(job: RunningJob, beam_args: Sequence[str]) -> list[tuple[str, str]]:
    """What is to be said of a job that was submitted, as pairs of a name and a text."""
    if runner_name(beam_args) == "DataflowRunner":
        from beam_jobs.engines import dataflow

        return dataflow.described(job.result, beam_args)
    return [("job", job.where)] if job.name else []


def run_here(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str]) -> None:
    """Runs one pipeline in this process, and waits for it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_args))) as pipeline:
        build(pipeline)
