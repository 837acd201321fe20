"""A job on a runner elsewhere, from its submission to its end."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from beam_jobs.engines.faults import reason, reason_in
from beam_jobs.engines.flink_rest import FINAL, FlinkRest, Job
from beam_jobs.errors import JobError, UsageError

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.runners.runner import PipelineResult

#: For how long a job that is cancelled is waited for.
_CANCEL_SECONDS = 30


class RunningJob:
    """A job that was submitted.

    Args:
        result: what Beam's runner gave.
        name: the job's; engines show it.
        rest: the Flink cluster that has it; None elsewhere.
        detached: it is to go on when its launcher ends.
    """

    def __init__(self, result: Any, name: str, rest: FlinkRest | None, *, detached: bool = False) -> None:
        self.result = result
        self.name = name
        self.detached = detached
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
            self.result.wait_until_finish()
        except Exception as error:
            kind = UsageError if "beam_jobs.errors.UsageError: " in str(error) else JobError
            raise kind(self._why(error)) from error

    def cancel(self) -> bool:
        """Ends it; returns whether it is known to have ended."""
        with contextlib.suppress(Exception):  # Beam's job server may be gone, and does not pass it on on every engine
            self.result.cancel()
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


class _LastLines(logging.Handler):
    """Keeps the last lines that a job server said; Beam logs them."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=100)
        self._loggers = [logging.getLogger(name) for name in ("FlinkJarJobServer", "SparkJarJobServer")]
        for logger in self._loggers:
            logger.setLevel(logging.INFO)
            logger.propagate = logging.getLogger("beam_jobs").isEnabledFor(logging.INFO)  # with --verbose
            logger.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(record.getMessage())

    def text(self) -> str:
        """The lines."""
        return "\n".join(self._lines)

    def close(self) -> None:
        """Listens no more."""
        for logger in self._loggers:
            logger.removeHandler(self)
        super().close()


def submitted(build: Callable[[beam.Pipeline], object], beam_args: Sequence[str]) -> PipelineResult:
    """What Beam gives for a pipeline that was submitted.

    Raises:
        JobError: it was not accepted.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(options=PipelineOptions(list(beam_args)))
    build(pipeline)
    ours, hook = signal.getsignal(signal.SIGINT), threading.excepthook
    # A thread of gRPC's fails with a traceback when the channel to a job server that did not start is closed.
    threading.excepthook = lambda _: None
    said = _LastLines()
    try:
        result = pipeline.run()
        threading.excepthook = hook
    except Exception as error:
        why = reason(error)
        if "Service failed to start" in why:
            why = f"Beam's job server did not start: {reason_in(said.text()) or why}"
        raise JobError(f"The job cannot be submitted: {why}") from error
    finally:
        said.close()
        # Beam's, which ends its job server at once, would leave nobody to cancel the job.
        signal.signal(signal.SIGINT, ours)
    return result
