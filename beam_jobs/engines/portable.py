"""Runners that speak Beam's Job API: Flink's, Spark's, any job server. Their workers are processes of this package."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from beam_jobs.detectors.cache import report_to_stderr
from beam_jobs.engines import flink
from beam_jobs.engines.flink_rest import FlinkRest, address_of
from beam_jobs.engines.worker_environment import process_environment
from beam_jobs.errors import UsageError

RUNNERS = ("FlinkRunner", "PortableRunner", "SparkRunner")
#: Flags that have something installed on the workers, which ours do not do.
_STAGING = ("requirements_file", "setup_file", "extra_packages", "save_main_session")


def completed(runner: str, beam_args: Sequence[str]) -> list[str]:
    """Beam's flags with those added that a user need not know; fetches Beam's job server for Flink if it is missing.

    Raises:
        UsageError: a cluster does not answer or cannot do the job, or the job server cannot be had.
    """
    from apache_beam import __version__

    given = _given(beam_args)
    added = []
    if "job_name" not in given:
        added.append(f"--job_name=beam-detect-{uuid.uuid4().hex[:8]}")
    if "environment_type" not in given:
        if staged := [name for name in _STAGING if given.get(name)]:
            raise UsageError(
                f"--{staged[0]} has no use here: the workers run the package as it is installed on their hosts. To have"
                " something installed, give containers: --environment_type DOCKER."
            )
        added += process_environment()
        # It would run `pip freeze` and send the list.
        added.append("--experiments=disable_logging_submission_environment")
    if runner == "FlinkRunner":
        rest = flink.cluster(given)
        slots = flink.parallelism(given, rest)
        added += flink.flags(given, rest, slots, __version__, lambda line: report_to_stderr(f"beam-detect: {line}"))
    return [*beam_args, *added]


def job_name(beam_args: Sequence[str]) -> str:
    """The job's name, of flags that are complete."""
    return str(_given(beam_args)["job_name"])


def cluster(beam_args: Sequence[str]) -> FlinkRest | None:
    """The Flink cluster that has the job; None where there is none to ask."""
    given = _given(beam_args)
    master = given.get("flink_master")
    return None if master is None or master in flink.LOCAL_MASTERS else FlinkRest(address_of(master))


def _given(beam_args: Sequence[str]) -> Mapping[str, Any]:
    """The flags that say something else than Beam's defaults, by name."""
    from apache_beam.options.pipeline_options import PipelineOptions

    options: Mapping[str, Any] = PipelineOptions(list(beam_args)).get_all_options(drop_default=True)
    return options
