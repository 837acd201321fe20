"""What Beam must be told to run a job on Flink, and a user need not know. What the user says wins."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from typing import Any

from beam_jobs.detectors.cache import Report
from beam_jobs.engines.flink_rest import FlinkRest
from beam_jobs.engines.job_server import job_server_jar
from beam_jobs.errors import UsageError

#: Of a Flink that the job server brings along.
LOCAL_MASTERS = ("[local]", "[auto]")
_LOCAL_VERSION = "1.20"


def cluster(given: Mapping[str, Any]) -> FlinkRest | None:
    """The cluster of `--flink_master`; None where there is none to ask.

    Args:
        given: the flags of Beam's that were given.

    Raises:
        UsageError: it does not answer.
    """
    master = given.get("flink_master", "[local]")
    return None if master in LOCAL_MASTERS else FlinkRest.of(master)


def parallelism(given: Mapping[str, Any], rest: FlinkRest | None) -> int:
    """How many slots the job takes: as many as asked for, else all. Each has one detector process.

    Raises:
        UsageError: there are none, or fewer than asked for, so that the job would wait for ever.
    """
    wanted = int(given.get("parallelism", 0))
    if rest is None:
        return wanted or len(os.sched_getaffinity(0))
    slots = rest.slots()
    if slots == 0:
        raise UsageError(f"The Flink cluster at {rest.address} has no task slots: start a TaskManager.")
    if wanted > slots:
        raise UsageError(f"--parallelism {wanted}: the Flink cluster at {rest.address} has {slots} task slots.")
    return wanted or slots


def flags(given: Mapping[str, Any], rest: FlinkRest | None, slots: int, beam: str, report: Report) -> list[str]:
    """The flags to add to those that were given.

    Raises:
        UsageError: the job server cannot be had or run, or is that of another Flink than the cluster's.
    """
    version = _version(given, rest)
    found = {
        "flink_master": "[local]",
        "flink_version": version,
        "parallelism": slots,
        # A shuffle ends a region of failure: what was before it is not done again.
        "execution_mode_for_batch": "BATCH",
        "sdk_worker_parallelism": 1,
    }
    if "job_endpoint" not in given:
        launcher = given.get("job_server_java_launcher", "java")
        if shutil.which(launcher) is None:
            raise UsageError(
                f"Beam's job server for Flink needs Java, and there is no {launcher}: install version 17 (Debian and"
                " Ubuntu: apt install openjdk-17-jre-headless)."
            )
        if "flink_job_server_jar" not in given:
            found["flink_job_server_jar"] = job_server_jar(version, beam, report)
    return [f"--{name}={value}" for name, value in found.items() if name not in given]


def _version(given: Mapping[str, Any], rest: FlinkRest | None) -> str:
    """The minor version, as `1.20`."""
    from apache_beam.options.pipeline_options import FlinkRunnerOptions

    known = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS
    asked = given.get("flink_version")
    if rest is None:
        return str(asked or _LOCAL_VERSION)
    version = rest.version()
    minor = ".".join(version.split(".")[:2])
    if asked and asked != minor:
        raise UsageError(f"--flink_version {asked}: the cluster at {rest.address} is Flink {version}.")
    if minor not in known and "flink_job_server_jar" not in given:
        raise UsageError(
            f"The cluster at {rest.address} is Flink {version}; Beam has job servers for {', '.join(known)}."
        )
    return minor
