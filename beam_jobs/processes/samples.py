"""What a run takes, noted in its log from time to time: enough to explain afterwards why it became slow."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from types import TracebackType

from beam_jobs import storage
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.spent import free_memory, of_process
from beam_jobs.runs.log import RunLog
from beam_jobs.words import counted

#: Seconds between two samples: at first, and in the end; each pause is longer than the one before it by a tenth.
FIRST_SECONDS, LAST_SECONDS = 5.0, 60.0


class Sampler:
    """Notes a pool's rate, its processes' memory, files and threads in a log. A context manager.

    Args:
        root: the run's folder, whose disk is looked at.
    """

    def __init__(self, pool: DetectorPool, log: RunLog, root: str) -> None:
        self._pool = pool
        self._log = log
        self._root = root
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="samples", daemon=True)
        self._at = time.monotonic()
        self._done = pool.tally.done
        self._cpu_s: Mapping[str, float] = dict(pool.cpu_s)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(1)
        self.sample()

    def sample(self) -> None:
        """Notes how it is now, and what was done since the last time."""
        now, tally, cpu_s = time.monotonic(), self._pool.tally, dict(self._pool.cpu_s)
        seconds, done = now - self._at, tally.done
        rate = (done - self._done) / seconds if seconds > 0 else 0.0
        self._log.info(
            "detect",
            "progress",
            f"{counted(done, 'picture')}, {rate:.1f} a second",
            pictures=done,
            failed=tally.failures.total(),
            seconds=round(seconds, 3),
            rate=round(rate, 2),
            cpu_s={step: round(cpu_s[step] - self._cpu_s[step], 3) for step in cpu_s},
            processes=[of_process(pid) for pid in (os.getpid(), *self._pool.pids())],
            load=round(os.getloadavg()[0], 2),
            memory_free_mb=free_memory() >> 20,
            disk_free_mb=_disk_free(self._root),
        )
        self._at, self._done, self._cpu_s = now, done, cpu_s

    def _run(self) -> None:
        pause = FIRST_SECONDS
        while not self._stop.wait(pause):
            pause = min(LAST_SECONDS, pause * 1.1)
            self.sample()
            self._log.flush()


def _disk_free(root: str) -> int | None:
    if storage.is_remote(root):
        return None
    try:
        disk = os.statvfs(root)
    except OSError:
        return None
    return disk.f_bavail * disk.f_frsize >> 20
