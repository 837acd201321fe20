"""A job on a runner elsewhere, at a terminal: its name and address, how far it is, and what a Ctrl-C does to it."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from types import TracebackType

from beam_jobs.cli import interrupt
from beam_jobs.engines.running import RunningJob
from beam_jobs.processes.work import Tally
from beam_jobs.runs.progress import read_progress

_LOOK_SECONDS = 2.0


class Elsewhere:
    """Waits for a job that was submitted. A context manager.

    When it is left because the user, or the system, asked the program to end, the job is cancelled, but for one that is
    detached; on a terminal the user is asked first.

    Args:
        job: the job.
        when_cancelled: what the user should then know of what is left behind.
        root: the run's folder, where workers write down how far they are; None if they do not.
    """

    def __init__(self, job: RunningJob, when_cancelled: Sequence[str], root: str | None = None) -> None:
        self._job = job
        self._when_cancelled = when_cancelled
        self._root = root
        self._ended = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="elsewhere", daemon=True)
        #: How far the job is.
        self.tally = Tally()
        #: What the engine calls its state, where it is worth a word.
        self.state = ""

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        stopped = interrupt.received()
        if stopped is None or self._ended or self._job.detached:
            return
        if not _is_to_be_cancelled(self._job, stopped):
            interrupt.left_behind.insert(0, f"The job {self._job.where} is left running.")
            return
        ended = "was cancelled" if self._job.cancel() else "was asked to end, and has not ended yet"
        interrupt.left_behind[:] = [f"The job {self._job.where} {ended}.", *self._when_cancelled]

    def wait(self) -> None:
        """Waits for the end of the job.

        Raises:
            UsageError, JobError: what a worker raised; or somebody cancelled it.
        """
        self._job.wait()
        self._ended = True

    def _look(self) -> None:
        while not self._stop.wait(_LOOK_SECONDS):
            state = self._job.state()
            self.state = "" if state == "RUNNING" else state.lower()
            if self._root is None:
                continue
            seen = read_progress(self._root)
            self.tally.pictures, self.tally.tfrecord_files = seen.pictures, seen.tfrecord_files
            self.tally.clips = seen.clips
            self.tally.failures.update({code: n - self.tally.failures[code] for code, n in seen.failures.items()})


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
