"""A runner elsewhere, as the command line names it: what it is told, and whom to ask about its jobs."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_jobs.detectors.cache import Report
from beam_jobs.engines import flink
from beam_jobs.engines.flink_rest import FlinkRest
from beam_jobs.engines.worker_environment import process_environment
from beam_jobs.errors import UsageError

#: Runners whose workers are started by what the job says: processes of ours, unless the user says otherwise.
_PORTABLE = ("FlinkRunner", "PortableRunner", "SparkRunner")
#: Flags that have files installed on the workers, which a worker of ours does not do.
_STAGING = ("requirements_file", "setup_file", "extra_packages", "save_main_session")


@dataclass(frozen=True, slots=True)
class Remote:
    """A runner elsewhere.

    Args:
        runner: its name, without its module.
        given: the flags of Beam's that the user gave, by name.
        beam_args: the same, as words.
        slots: how much of the job runs at a time, if it is known.
        rest: the Flink cluster, if it is one.
    """

    runner: str
    given: Mapping[str, Any]
    beam_args: tuple[str, ...]
    slots: int | None = None
    rest: FlinkRest | None = None

    @staticmethod
    def of(beam_args: Sequence[str]) -> Remote:
        """The runner that the flags name; asks a cluster what it is, and starts nothing.

        Raises:
            UsageError: it does not answer, or cannot do what is asked for.
        """
        from apache_beam.options.pipeline_options import PipelineOptions

        given = PipelineOptions(list(beam_args)).get_all_options(drop_default=True)
        runner = str(given.get("runner", "")).rpartition(".")[2]
        remote = Remote(runner, given, tuple(beam_args))
        if remote.own_workers and (staged := [name for name in _STAGING if given.get(name)]):
            raise UsageError(
                f"--{staged[0]} has no use here: the workers run the package as it is installed on their hosts. To have"
                " something installed, give containers: --environment_type DOCKER."
            )
        if runner != "FlinkRunner":
            return remote
        rest = flink.cluster(given)
        return Remote(runner, given, tuple(beam_args), flink.parallelism(given, rest), rest)

    @property
    def own_workers(self) -> bool:
        """Whether workers are processes that `boot` starts."""
        return self.runner in _PORTABLE and "environment_type" not in self.given

    def flags(self, report: Report) -> list[str]:
        """All flags of a job, the user's and those that a user need not know; fetches what is missing.

        Raises:
            UsageError: the job cannot be submitted.
        """
        from apache_beam import __version__

        added = [f"--job_name=beam-detect-{uuid.uuid4().hex[:8]}"] if "job_name" not in self.given else []
        if self.own_workers:
            added += process_environment()
            # It would run `pip freeze` and send the list.
            added.append("--experiments=disable_logging_submission_environment")
        if self.slots is not None:
            added += flink.flags(self.given, self.rest, self.slots, __version__, report)
        return [*self.beam_args, *added]
