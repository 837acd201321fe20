"""Where the CPU time of a detector process went, by step."""

from __future__ import annotations

import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Mapping

#: The steps of a detector process. `batch` is what makes the network's input of pictures, `rows` what makes rows of
#: the results, and all that has no step of its own.
SPENT_STEPS = ("read", "decode", "batch", "infer", "post-process", "annotate", "rows")


class CpuClock:
    """CPU seconds of this process, of all its threads, by step: what passes until a lap was that step."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._last = time.process_time()

    def lap(self, step: str) -> None:
        """All since the last lap was `step`."""
        now = time.process_time()
        self._seconds[step] += now - self._last
        self._last = now

    def move(self, seconds: float, origin: str, step: str) -> None:
        """So much of what was counted as `origin` was `step`."""
        moved = min(seconds, self._seconds[origin])
        self._seconds[origin] -= moved
        self._seconds[step] += moved

    def take(self) -> Mapping[str, float]:
        """The seconds since this was last called."""
        taken, self._seconds = dict(self._seconds), defaultdict(float)
        return taken


def rss(pid: int) -> int:
    """The memory that a process holds now, in bytes (resident; shared pages too); 0 where nobody says."""
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as numbers:
            return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def of_process(pid: int) -> dict[str, int]:
    """What a process has now: memory in MB (resident; shared pages too), open files, threads; 0 where nobody says."""
    return {
        "pid": pid,
        "rss_mb": rss(pid) >> 20,
        "open_files": _entries(f"/proc/{pid}/fd"),
        "threads": _entries(f"/proc/{pid}/task"),
    }


def _entries(folder: str) -> int:
    try:
        return len(os.listdir(folder))
    except OSError:
        return 0


def free_memory() -> int:
    """The memory of the machine that nobody has taken, caches included, in bytes; 0 where nobody says."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return 0


def memory_of_machine() -> int:
    """The memory that there is for this process and its children, in bytes: the machine's, or its container's limit."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        # "max" is no number.
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as limit:
            memory = min(memory, int(limit.read()))
    return memory


def peak_rss() -> int:
    """The most memory that this process has held, in bytes (resident; shared pages too); 0 where nobody says."""
    # Not getrusage: after an exec it still knows what the parent held.
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return 0
