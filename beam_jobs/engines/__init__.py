"""What runs the pipelines: the local engine, or a runner of Beam's.

A runner with flags that a user need not know has a module here, with a function `completed` that fills them in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from beam_jobs.errors import UsageError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult

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
    if runner_name(beam_args) == "DataflowRunner":
        from beam_jobs.engines import dataflow

        return dataflow.completed(beam_args)
    return list(beam_args)


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


def submit(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str]) -> PipelineResult:
    """Gives a pipeline to the runner that the flags name, and does not wait for it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(options=PipelineOptions(list(beam_args)))
    build(pipeline)
    return pipeline.run()


def described(result: PipelineResult, beam_args: Sequence[str]) -> list[tuple[str, str]]:
    """What is to be said of a job that was submitted, as pairs of a name and a text."""
    if runner_name(beam_args) == "DataflowRunner":
        from beam_jobs.engines import dataflow

        return dataflow.described(result, beam_args)
    return []


def run_once(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str]) -> None:
    """Runs one pipeline, in this process or where the flags say, and waits for it."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    runner = FnApiRunner() if is_local(beam_args) else None
    with beam.Pipeline(runner=runner, options=PipelineOptions(list(beam_args))) as pipeline:
        build(pipeline)


def reason(error: Exception) -> str:
    """Why a pipeline failed, in one line: Beam gives the error of a step as text, with its traceback."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    last = (lines[-1].strip() if lines else type(error).__name__).split(" [while running")[0]
    # "beam_jobs.errors.JobError: the message [while running 'the step']"
    head, _, message = last.partition(": ")
    return message if message and " " not in head else last
