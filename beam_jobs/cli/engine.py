"""What runs the pipelines: the local engine, or a runner of Beam's.

Beam's in-memory runner holds what is between two steps in memory. So the pipeline of a local run has no shuffle, and
commits part after part. Elsewhere the work is spread over the workers in small groups, and gathered by part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from beam_jobs import pipelines
from beam_jobs.errors import UsageError

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_jobs.transforms.detect import PoolSource

#: Names of the local engine. It is pinned: Beam's own DirectRunner tries others first, one of which it downloads.
LOCAL = ("DirectRunner", "direct")


def is_local(beam_args: Sequence[str]) -> bool:
    """Whether these flags of Beam's leave the job to the local engine. Imports Beam if there are any.

    Raises:
        UsageError: they name a runner that Beam does not have, or cannot load.
    """
    if not beam_args:
        return True
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    runner = PipelineOptions(list(beam_args)).view_as(StandardOptions).runner
    if runner is None or runner.rpartition(".")[2] in LOCAL:
        return True
    from apache_beam.runners.runner import create_runner

    try:
        create_runner(runner)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--runner {runner} cannot be used: {error}") from error
    return False


class LocalRun(NamedTuple):
    """What a local run took: CPU seconds of writing tables."""

    write_cpu_s: float


def run_local(root: str, source: PoolSource, parts: int, group_size: int, beam_args: Sequence[str]) -> LocalRun:
    """Does all parts of the plan in `root`, in order, in this process."""
    import apache_beam as beam
    from apache_beam.metrics import MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from beam_jobs.transforms.write import NAMESPACE, WRITE_CPU

    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_args))) as pipeline:
        pipelines.detect_in_order(pipeline, root, source, range(parts), group_size)
    written = MetricsFilter().with_namespace(NAMESPACE).with_name(WRITE_CPU)
    write_cpu_us = sum(each.result for each in pipeline.result.metrics().query(written)["counters"])
    return LocalRun(write_cpu_us / 1e6)


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
