"""What runs the pipelines: the local engine, or a runner of Beam's.

Beam's in-memory runner holds what is between two steps in memory, and returns only at the end. So a local run is a
series of pipelines, each over so many parts that Beam's fixed cost does not count and its memory stays bounded; the
detector processes live on from one to the next. Elsewhere the whole run is one pipeline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from beam_jobs import pipelines
from beam_jobs.errors import UsageError

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_jobs.engines.remote import Remote
    from beam_jobs.transforms.detect import PoolSource

#: Names of the local engine. It is pinned: Beam's own DirectRunner tries others first, one of which it downloads.
LOCAL = ("DirectRunner", "direct")
#: A pipeline's fixed cost is about 0.7 s; in one of this length it is below 1%.
SLICE_SECONDS = 80.0
#: Of the first slice, while nobody knows how long one takes: 7 s of a quick detector, half an hour of a slow one.
FIRST_INPUTS = 1000
#: Bounds the rows in memory: 32 parts of 500 pictures with 100 detections each are about 100 MB.
MAX_SLICE_PARTS = 32


def remote(beam_args: Sequence[str]) -> Remote | None:
    """The runner elsewhere that these flags of Beam's name; None for the local engine.

    Raises:
        UsageError: Beam does not have it, it does not answer, or cannot do what is asked for.
    """
    if is_local(beam_args):
        return None
    from beam_jobs.engines.remote import Remote

    return Remote.of(beam_args)


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


def run_local(
    root: str, source: PoolSource, parts: int, part_size: int, group_size: int, beam_args: Sequence[str]
) -> LocalRun:
    """Does all parts of the plan in `root`, in order, in this process."""
    import apache_beam as beam
    from apache_beam.metrics import MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from beam_jobs.transforms.write import NAMESPACE, WRITE_CPU

    written = MetricsFilter().with_namespace(NAMESPACE).with_name(WRITE_CPU)
    first, length = 0, max(1, min(MAX_SLICE_PARTS, FIRST_INPUTS // part_size))
    write_cpu_us = 0
    while first < parts:
        start = time.monotonic()
        todo = range(first, min(first + length, parts))
        with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_args))) as pipeline:
            pipelines.detect(pipeline, root, source, todo, group_size)
        seconds_a_part = (time.monotonic() - start) / len(todo)
        length = max(1, min(MAX_SLICE_PARTS, round(SLICE_SECONDS / seconds_a_part)))
        first = todo.stop
        write_cpu_us += sum(each.result for each in pipeline.result.metrics().query(written)["counters"])
    return LocalRun(write_cpu_us / 1e6)


def run_once(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str]) -> None:
    """Runs one pipeline in this process."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_args))) as pipeline:
        build(pipeline)
