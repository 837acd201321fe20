"""The local engine.

Beam's in-memory runner holds what is between two steps in memory. So the pipeline of a local run has no shuffle, and
commits part after part. Elsewhere the work is spread over the workers in small groups, and gathered by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from beam_jobs import pipelines
from beam_jobs.runs.plan import read_part

if TYPE_CHECKING:
    from beam_jobs.processes.pool import DetectorPool
    from beam_jobs.transforms.detect import PoolSource


class LocalRun(NamedTuple):
    """What a local run took: CPU seconds of writing tables."""

    write_cpu_s: float


def run_local(
    root: str,
    source: PoolSource,
    pool: DetectorPool,
    parts: Sequence[int],
    group_size: int,
    beam_args: Sequence[str],
) -> LocalRun:
    """Does some parts of the plan in `root`, in order, in this process and with its `pool`."""
    import apache_beam as beam
    from apache_beam.metrics import MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    from beam_jobs.transforms.plan import groups_of
    from beam_jobs.transforms.write import NAMESPACE, WRITE_CPU

    if not parts:
        return LocalRun(0.0)
    source.lend(pool)
    if source.settings.input_format != "tfrecord":
        # The processes are at work while Beam makes its pipeline.
        for group in islice(groups_of(read_part(root, parts[0]), group_size), 2 * pool.size):
            pool.begin(group)
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(beam_args))) as pipeline:
        pipelines.detect_in_order(pipeline, root, source, parts, group_size)
    written = MetricsFilter().with_namespace(NAMESPACE).with_name(WRITE_CPU)
    write_cpu_us = sum(each.result for each in pipeline.result.metrics().query(written)["counters"])
    return LocalRun(write_cpu_us / 1e6)
