"""Running a command, and what it takes: seconds and memory. What the reports of all benchmarks begin with."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from statistics import median

import psutil

from beam_jobs.runs import manifest as manifests

#: These would take the loop's default threads away from it, and are not the job's to inherit either.
THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)

#: Is called again and again with the id of a process that runs.
Watch = Callable[[int], None]


def call(words: Sequence[str], watch: Watch | None = None) -> float:
    """Runs this Python with `words`; returns the seconds it took. `watch(pid)` is called again and again meanwhile."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=said, stderr=said, env=environment)
        try:
            while watch is not None and process.poll() is None:
                watch(process.pid)
                time.sleep(0.1)
            status = process.wait()
        finally:
            process.kill()
        seconds = time.perf_counter() - start
        if status != 0:
            said.seek(0)
            raise SystemExit(f"benchmark: {' '.join(words)} ended with {status}:\n{said.read()[-2000:]}")
    return seconds


def tree_pss(pid: int) -> int:
    """The PSS, in bytes, of a process and of those that it started."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended while we looked
    except psutil.NoSuchProcess:
        pass
    return total


def spread(values: Iterable[float], digits: int) -> str:
    """The median, and the least and the greatest."""
    values = list(values)
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def heading() -> list[str]:
    """The machine, the day and the versions."""
    machine = manifests.machine()
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in manifests.versions().items())
    return [
        f"{date.today().isoformat()}, {machine['processor']}, {machine['cores']} cores, {memory:.0f} GiB,"
        f" {machine['system']}; load before: {os.getloadavg()[0]:.1f}.",
        f"beam-detect {manifests.program_version()}, {versions}.",
    ]


def say(line: str) -> None:
    """Tells whoever waits."""
    print(f"benchmark: {line}", file=sys.stderr, flush=True)
