"""A job on a runner elsewhere, from its submission to its end."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from beam_jobs.engines.faults import reason, reason_in
from beam_jobs.engines.flink_rest import FINAL, FlinkRest, Job
from beam_jobs.errors import JobError, UsageError

if TYPE_CHECKING:
    import apache_beam as beam

#: For how long a job that is cancelled is waited for.
_CANCEL_SECONDS = 30


class RunningJob:
    """A job that was submitted.

    Args:
        result: what Beam's runner gave.
        name: the job's; engines show it.
        rest: the Flink cluster that has it; None elsewhere.
    """

    def __init__(self, result: Any, name: str, rest: FlinkRest | None) -> None:
        self._result = result
        self.name = name
        self._rest = rest

    @property
    def where(self) -> str:
        """The job's name, and the address of the page that shows it, if there is one."""
        return f"{self.name} on {self._rest.address}" if self._rest else self.name

    def state(self) -> str:
        """Its state as the engine calls it; empty if it does not say."""
        job = self._known()
        return job.state if job else ""

    def wait(self) -> None:
        """Waits for its end.

        Raises:
            UsageError: a worker raised one.
            JobError: it failed, with the reason in one line; or somebody cancelled it.
        """
        try:
            self._result.wait_until_finish()
        except Exception as error:
            kind = UsageError if "beam_jobs.errors.UsageError: " in str(error) else JobError
            raise kind(self._why(error)) from error

    def cancel(self) -> bool:
        """Ends it; returns whether it is known to have ended."""
        with contextlib.suppress(Exception):  # Beam's job server may be gone, and does not pass it on on every engine
            self._result.cancel()
        deadline = time.monotonic() + _CANCEL_SECONDS
        if self._rest is None:
            return True
        while time.monotonic() < deadline:
            job = self._known()
            if job is None or job.state in FINAL:
                return job is not None
            if job.state != "CANCELLING":
                with contextlib.suppress(OSError):
                    self._rest.cancel(job.id)
            time.sleep(0.5)
        return False

    def _known(self) -> Job | None:
        try:
            return self._rest.job(self.name) if self._rest else None
        except (OSError, ValueError, KeyError):
            return None

    def _why(self, error: Exception) -> str:
        job = self._known()
        if job and job.state == "CANCELED":
            return f"The job {self.where} was cancelled."
        if job and "Traceback" not in str(error) and self._rest:
            with contextlib.suppress(OSError, ValueError, KeyError):
                if said := reason_in(self._rest.failure(job.id)):
                    return said
        return reason(error)


def submit(build: Callable[[beam.Pipeline], object], flags: Sequence[str], rest: FlinkRest | None) -> RunningJob:
    """Submits one pipeline and returns at once.

    Raises:
        JobError: it was not accepted.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

    options = PipelineOptions(list(flags))
    name = options.view_as(GoogleCloudOptions).job_name
    pipeline = beam.Pipeline(options=options)
    build(pipeline)
    ours = signal.getsignal(signal.SIGINT)
    try:
        result = pipeline.run()
    except Exception as error:
        raise JobError(f"The job cannot be submitted: {reason(error)}") from error
    finally:
        # Beam's, which ends its job server at once, would leave nobody to cancel the job.
        signal.signal(signal.SIGINT, ours)
    return RunningJob(result, name, rest)
