"""A detector process: opens the detector once, then does the groups that it is sent until its parent closes the line.

Run as `python -m beam_jobs.processes.child SOCKET PLACE`, two inherited descriptors. What it says, in order: `Ready` or
`Refused`; then for each group a `Reply`, or `Refused`. At which picture it is, its `Place` has.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from multiprocessing.connection import Connection

from beam_jobs import storage
from beam_jobs.detectors import open_detector
from beam_jobs.errors import JobError, UsageError
from beam_jobs.processes.messages import Ready, Refused, Setup
from beam_jobs.processes.parent import end_with_parent
from beam_jobs.processes.picture import PictureWorker
from beam_jobs.processes.place import Place
from beam_jobs.processes.settings import keep_pandas_out
from beam_jobs.processes.spent import peak_rss


def main(line: int, place_file: int) -> None:
    """Serves one parent; returns when it closes the line."""
    connection, place = Connection(line), Place(place_file)
    os.close(place_file)
    setup = connection.recv()
    end_with_parent()
    sys.path[:] = setup.search_path
    if setup.beam_args:
        storage.set_options(setup.beam_args)
    worker = _open(connection, setup)
    while worker is not None:
        try:
            group = connection.recv()
        except EOFError:
            return
        try:
            connection.send(worker.run(group, place.set))
        except (UsageError, JobError) as error:
            connection.send(Refused(str(error), isinstance(error, UsageError)))


def _open(connection: Connection, setup: Setup) -> PictureWorker | None:
    if setup.spec.kind != "factory":
        keep_pandas_out()
    start, before = time.perf_counter(), peak_rss()
    try:
        detector = open_detector(setup.spec)
    except (UsageError, JobError) as error:
        connection.send(Refused(str(error), isinstance(error, UsageError)))
        return None
    except Exception as error:
        connection.send(Refused(f"The detector {setup.spec.name} cannot be opened: {_describe(error)}", True))
        return None
    load_ms = (time.perf_counter() - start) * 1e3
    process = f"{platform.node()}:{os.getpid()}"
    worker = PictureWorker(detector, setup.spec, setup.settings, process, load_ms)
    connection.send(Ready(detector.info, load_ms, worker.shares_calls, peak_rss() - before))
    return worker


def _describe(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:500]}" if lines else type(error).__name__


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
