"""Real runs of the program, for the faults of `_chaos_faults`: started, watched, gone on with, and compared.

The program is forked from this process, which has imported it already: two seconds of CPU less for each run.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

from beam_jobs import storage
from beam_jobs.cli.main import main
from beam_jobs.runs import layout
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from beam_jobs.storage import objects
from scripts._chaos_detector import COUNT, SECONDS

#: A run that takes longer than this hangs.
MAX_SECONDS = 120.0
#: Marks the processes of a trial.
TRIAL = "BEAM_DETECT_CHAOS_TRIAL"
#: What differs from run to run: times, and what names those who did the work.
_UNPROMISED = ("timings/", "_plan/parts/", "_plan/launch.json", "run.json", "log/")


class BrokenError(Exception):
    """The program did not keep its promise."""


@dataclass
class Running:
    """A run of the program that was started.

    Args:
        said: the file with what it wrote to standard error.
    """

    pid: int
    said: Path
    begun: float = field(default_factory=time.monotonic)
    status: int | None = None

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def wait(self, seconds: float = MAX_SECONDS) -> int:
        """Waits for its end.

        Raises:
            BrokenError: it does not come.
        """
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.kill()
                raise BrokenError(f"did not end within {seconds:g} s")
            time.sleep(0.01)
        return status

    def sleep(self, seconds: float) -> bool:
        """Waits for so long, or until it has ended; returns whether it still runs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.poll() is None:
            time.sleep(0.005)
        return self.poll() is None

    def signal(self, number: int) -> None:
        """Sends it a signal, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it, and waits."""
        self.signal(signal.SIGKILL)
        while self.poll() is None:
            time.sleep(0.01)

    def detectors(self) -> list[psutil.Process]:
        """Its detector processes."""
        with suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.pid).children()
            return sorted(children, key=lambda child: int(child.pid))
        return []

    @property
    def text(self) -> str:
        """What it said."""
        return self.said.read_text(errors="replace").strip()


@dataclass
class Trial:
    """One run that meets a fault, and goes on until it is done.

    Args:
        folder: of the trial's own.
        rng: of its seed.
        seconds: what a run without faults takes.
        output: the run's folder.
        place: its number among the trials of the fault, as a share below 1: to meet every moment once.
    """

    folder: Path
    inputs: str
    output: str
    rng: random.Random
    seconds: float
    place: float
    pause: float
    words: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    runs: int = 0
    spent: float = 0.0

    def start(self, *more: str, output: str | None = None, prepare: Callable[[], None] | None = None) -> Running:
        """Starts the program. `prepare` is called in its process before it begins."""
        self.runs += 1
        said = self.folder / f"said-{self.runs}"
        words = ["detect", f"--input={self.inputs}", f"--output={output or self.output}", *self.words, *more]
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return Running(pid, said)
        status = 99
        try:
            os.setsid()
            descriptor = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            for number in (1, 2):
                os.dup2(descriptor, number)
            os.environ.update(self.environment)
            objects.forget_clients()
            os.environ[TRIAL] = str(self.folder)
            if prepare is not None:
                prepare()
            status = main(words)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)

    def ended(self, running: Running, *statuses: int, seconds: float = MAX_SECONDS) -> int:
        """Waits for the end of a run, which has one of these exit statuses; killed ones have no say.

        Raises:
            BrokenError: it has another one, or leaves processes behind.
        """
        status = running.wait(seconds)
        self.spent += time.monotonic() - running.begun
        if status not in statuses:
            raise BrokenError(f"ended with {status}, not one of {statuses}: {running.text[-300:]}")
        if "Traceback" in running.text:
            raise BrokenError(f"showed a traceback: {running.text[-300:]}")
        deadline = time.monotonic() + 5
        while (left := list(_processes(str(self.folder)))) and time.monotonic() < deadline:
            time.sleep(0.05)
        if left:
            for process in left:
                process.kill()
            raise BrokenError(f"left {len(left)} processes behind")
        return status

    def resume(self, tries: int = 3) -> None:
        """Goes on with the run until it is done.

        Raises:
            BrokenError: that does not help.
        """
        for _ in range(tries):
            if self.ended(self.start("--resume"), 0, 3) == 0:
                return
        raise BrokenError(f"is not done after {tries} times --resume")

    def detected(self) -> int:
        """How many pictures were given to the detector so far."""
        count = Path(self.environment[COUNT])
        return count.stat().st_size if count.exists() else 0

    def check(self, clean: Mapping[str, str]) -> None:
        """Compares the run with one that met no fault.

        Raises:
            BrokenError: a byte is different, or a file is there that the manifest does not know.
        """
        self.check_whole()
        found = contents(self.output)
        wrong = sorted(path for path in {*clean, *found} if clean.get(path) != found.get(path))
        if wrong:
            raise BrokenError(f"{len(wrong)} files differ, as {wrong[0]}")

    def check_whole(self) -> None:
        """Whether it is a whole run, with nothing beside it.

        Raises:
            BrokenError: it is not.
        """
        if problems := list(check_run(self.output)):
            raise BrokenError(f"beam-detect check: {problems[0]}")
        manifest = Manifest.read(self.output)
        listed = {file.path for file in manifest.files} | {layout.MANIFEST, layout.SUCCESS}
        for file in manifest.files:
            if file.path.startswith("_plan/annotated/"):
                with storage.open_read(storage.join(self.output, file.path)) as stream:
                    listed.update(pq.read_table(stream)["path"].to_pylist())
        strangers = sorted(path for path in _paths(self.output) - listed if not path.startswith("log/"))
        if strangers:
            raise BrokenError(f"{strangers[0]} is left behind")


def environment_of(folder: Path, seconds: float) -> dict[str, str]:
    """What the processes of a trial need to know."""
    (folder / "tmp").mkdir()
    return {COUNT: str(folder / "count"), SECONDS: str(seconds), "TMPDIR": str(folder / "tmp")}


def contents(root: str) -> dict[str, str]:
    """sha256 by path of all that is promised to be the same in every run."""
    paths = sorted(path for path in _paths(root) if not path.startswith(_UNPROMISED))
    digests = {path: hashlib.sha256(storage.read_bytes(storage.join(root, path))).hexdigest() for path in paths}
    # In a bucket, names of tables tell who wrote them.
    return {layout.with_mark(path, ""): digest for path, digest in digests.items()}


def _paths(root: str) -> set[str]:
    if storage.is_remote(root):
        return {found.path[len(root) + 1 :] for found in storage.walk_remote(root)}
    return {str(path.relative_to(root)) for path in Path(root).rglob("*") if path.is_file()}


def _processes(trial: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(TRIAL) == trial and process.status() != psutil.STATUS_ZOMBIE:
                yield process
