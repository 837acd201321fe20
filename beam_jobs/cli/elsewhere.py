"""A job on a runner elsewhere, at a terminal: its name and address, how far it is, and what a Ctrl-C does to it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from beam_jobs.cli import interrupt
from beam_jobs.detectors.cache import report_to_stderr
from beam_jobs.engines.remote import Remote
from beam_jobs.engines.running import RunningJob, submit
from beam_jobs.processes.picture import Tally
from beam_jobs.runs.progress import read_progress, remove_progress

if TYPE_CHECKING:
    import apache_beam as beam

_LOOK_SECONDS = 2.0


class Elsewhere:
    """Runs a pipeline on a runner elsewhere. A context manager.

    When it is left because the user, or the system, asked the program to end, the job is cancelled; on a terminal the
    user is asked first.

    Args:
        remote: the runner.
        root: the run's folder, where workers write down how far they are; None if they do not.
    """

    def __init__(self, remote: Remote, root: str | None = None) -> None:
        self._remote = remote
        self._root = root
        self._job: RunningJob | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="elsewhere", daemon=True)
        #: How far the job is.
        self.tally = Tally()
        #: What the engine calls its state, where it is worth a word.
        self.state = ""

    def __enter__(self) -> Elsewhere:
        # Fetches what is missing, before anything is written.
        self._flags = self._remote.flags(lambda line: report_to_stderr(f"beam-detect: {line}"))
        if self._root:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        stopped = interrupt.received()
        left = self._job is not None and stopped is not None and not self._cancelled(self._job, stopped)
        if self._root and not left:
            remove_progress(self._root)

    def run(self, build: Callable[[beam.Pipeline], object]) -> None:
        """Submits the pipeline, and waits for its end.

        Raises:
            UsageError, JobError: what a worker raised; or the job cannot be submitted.
        """
        self.state = "submitting"
        self._job = submit(build, self._flags, self._remote.rest)
        report_to_stderr(f"beam-detect: job {self._job.where}")
        self._job.wait()
        self._job = None

    def _look(self) -> None:
        assert self._root is not None
        while not self._stop.wait(_LOOK_SECONDS):
            seen = read_progress(self._root)
            self.tally.pictures, self.tally.tfrecord_files = seen.pictures, seen.tfrecord_files
            self.tally.failures.update({code: n - self.tally.failures[code] for code, n in seen.failures.items()})
            if self._job:
                state = self._job.state()
                self.state = "" if state == "RUNNING" else state.lower()

    def _cancelled(self, job: RunningJob, stopped: interrupt.Interrupted) -> bool:
        """Whether the job was cancelled, and not left to itself."""
        interrupt.left_behind.insert(0, f"The job {job.where} goes on.")
        if not _is_to_be_cancelled(job, stopped):
            return False
        if job.cancel():
            interrupt.left_behind[0] = f"The job {job.where} was cancelled."
        else:
            interrupt.left_behind[0] = f"The job {job.where} was asked to end, and has not ended yet."
        return True


def _is_to_be_cancelled(job: RunningJob, stopped: interrupt.Interrupted) -> bool:
    """Asks, if somebody at a terminal pressed Ctrl-C. A second one, or no answer, means yes."""
    if stopped.exit_status != 128 + signal.SIGINT or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stderr.write(f"Cancel the job {job.where}? [Y/n: leave it running] ")
    sys.stderr.flush()
    try:
        return not sys.stdin.readline().strip().lower().startswith("n")
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return True
