"""Bare loops side by side: as fast as a machine does one thing, and nothing else."""

import json
import os
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from beam_jobs.processes.settings import process_settings

#: Makes, in a process of its own, what does a picture, given its path.
Opener = Callable[..., Callable[[str], None]]


def measure(opener: Opener, given: Sequence[Any], listing: str, output: str, processes: int, threads: int) -> None:
    """Has some processes do the pictures of a list; writes the seconds from when all are ready to when all are done.

    Args:
        opener: a function of a module, which is called with what is `given`.
        listing: a file with one path a line.
        output: becomes JSON.
        threads: of each process.
    """
    os.environ.update(process_settings(threads))  # for the processes; the job's have them, too
    paths = Path(listing).read_text().splitlines()
    context = get_context("spawn")
    barrier = context.Barrier(processes + 1)
    shares = [(opener, given, paths[i::processes], barrier) for i in range(processes)]
    children = [context.Process(target=_share, args=share) for share in shares]
    for child in children:
        child.start()
    barrier.wait()
    start = time.perf_counter()
    barrier.wait()
    steady_s = time.perf_counter() - start
    for child in children:
        child.join()
    Path(output).write_text(json.dumps({"steady_s": steady_s, "found": []}))


def _share(opener: Opener, given: Sequence[Any], paths: Sequence[str], barrier: Any) -> None:
    run = opener(*given)
    run(paths[0])
    barrier.wait()
    for path in paths:
        run(path)
    barrier.wait()
