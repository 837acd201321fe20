"""The detect step: groups of work in, encoded rows out, through the detector processes of the worker."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.processes.feed import Feeder, PartRows
from beam_jobs.processes.gpus import suitable_processes
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.samples import Sampler
from beam_jobs.processes.work import PictureSettings
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.progress import ProgressRecord
from beam_jobs.transforms.plan import Group

#: How often a worker writes down how far it is.
_TELL_SECONDS = 2.0


class SharedPool:
    """A pool that is made for the first of its users and closed by the last; for another first one it is made again.

    Args:
        make: gives the stack what is to be done when nobody needs the pool any more.
        grow_to: the pool has a process for each of its users, up to so many.
    """

    def __init__(self, make: Callable[[ExitStack], DetectorPool], grow_to: int = 0) -> None:
        self._make = make
        self._grow_to = grow_to
        self._pool: DetectorPool | None = None
        self._stack = ExitStack()
        self._users = 0
        self._lock = threading.Lock()

    def acquire(self) -> DetectorPool:
        """The pool, for one user more."""
        with self._lock:
            if self._pool is None:
                self._pool = self._make(self._stack)
            self._users += 1
            if self._grow_to:
                self._pool.grow(min(self._users, self._grow_to))
            return self._pool

    def release(self) -> None:
        """One user does not need it any more."""
        with self._lock:
            self._users -= 1
            if self._pool is not None and not self._users:
                self._stack.close()
                self._pool = None


@dataclass(frozen=True)
class PoolSource:
    """The pool of detector processes of a worker, shared by all threads and pipelines there.

    Args:
        processes: detector processes a worker; 0 for what suits it.
        handle: what makes it the same pool; give the same `PoolSource` to whatever shall share one.
        per_bundle: `processes` 0 is one for each bundle that the worker has at a time: where slots are shares of cores.
        tells: workers write down how far they are.
        attempt: of the start of the run; see `check_attempt`.
    """

    spec: DetectorSpec
    settings: PictureSettings
    processes: int
    beam_args: tuple[str, ...]
    verbose: bool
    handle: Shared
    per_bundle: bool = False
    tells: bool = False
    attempt: str = ""

    def shared(self) -> SharedPool:
        """The pool of this worker."""
        grow_to = suitable_processes() if self.per_bundle and not self.processes else 0
        pool: SharedPool = self.handle.acquire(lambda: SharedPool(self._make, grow_to))
        return pool

    def lend(self, pool: DetectorPool) -> None:
        """Makes `pool` that of this process. Whoever lends it is one of its users, and closes it."""
        lent: SharedPool = self.handle.acquire(lambda: SharedPool(lambda _: pool))
        lent.acquire()

    def _make(self, stack: ExitStack) -> DetectorPool:
        processes = self.processes or (1 if self.per_bundle else suitable_processes())
        log = RunLog()
        pool = DetectorPool(
            self.spec, self.settings, processes, beam_args=self.beam_args, verbose=self.verbose, log=log
        )
        if self.tells:
            log.open(self.settings.output)
            stack.callback(log.close)
            stack.enter_context(Sampler(pool, log, self.settings.output))
        stack.callback(pool.close)
        return pool


_RANGES = "ranges"


@dataclass
class DetectObjects(beam.PTransform):
    """Detects on groups of pictures, and on the records of those that turn out to be TFRecord files.

    The frames of clips are spread over the workers, range by range: a long clip is not the work of one.

    Args:
        source: the detector processes.
    """

    source: PoolSource

    def expand(self, groups: beam.PCollection[Group]) -> beam.PCollection[tuple[int, bytes]]:
        step = beam.ParDo(_DetectFn(self.source, gives_ranges=True))
        first = groups | "Detect" >> step.with_outputs(_RANGES, main="rows")
        # Without a type a tagged output's coder would not be known.
        frames = (
            first[_RANGES]
            | "TypeRanges" >> beam.Map(lambda group: group).with_output_types(Group)
            | "SpreadRanges" >> beam.Reshuffle()  # Group
            | "DetectFrames" >> beam.ParDo(_DetectFn(self.source))  # tuple[int, bytes]
        )
        return (first.rows, frames) | "Rows" >> beam.Flatten()


class _DetectFn(beam.DoFn):
    def __init__(self, source: PoolSource, *, gives_ranges: bool = False) -> None:
        self._source = source
        self._gives_ranges = gives_ranges
        self._groups = Metrics.counter("beam_detect", "groups_done")
        self._loads = Metrics.gauge("beam_detect", "detectors_loaded")

    def setup(self) -> None:
        self._shared = self._source.shared()
        self._pool = self._shared.acquire()
        self._told = time.monotonic()

    def start_bundle(self) -> None:
        self._feeder = Feeder.of(self._pool, self._source.settings, gives_ranges=self._gives_ranges)

    def process(self, group: Group) -> Iterator[tuple[int, bytes] | TaggedOutput]:
        for rows in self._feeder.put(*group):
            yield self._counted(rows)
        for ranges in self._ranges():
            yield TaggedOutput(_RANGES, ranges)

    def finish_bundle(self) -> Iterator[WindowedValue | TaggedOutput]:
        for rows in self._feeder.drain():
            yield WindowedValue(self._counted(rows), MIN_TIMESTAMP, [GlobalWindow()])
        for ranges in self._ranges():
            yield TaggedOutput(_RANGES, WindowedValue(ranges, MIN_TIMESTAMP, [GlobalWindow()]))
        self._tell()

    def _ranges(self) -> Iterator[Group]:
        """The frames of clips that others are to do."""
        return ((part, (work,)) for part, work in self._feeder.take_ranges())

    def teardown(self) -> None:
        self._shared.release()

    def _counted(self, rows: PartRows) -> tuple[int, bytes]:
        self._groups.inc()
        self._loads.set(len(self._pool.loads))
        if time.monotonic() - self._told > _TELL_SECONDS:
            self._tell()
        return rows.part, rows.rows

    def _tell(self) -> None:
        """Writes down how far this worker is."""
        if self._source.tells:
            self._told = time.monotonic()
            tally = self._pool.tally
            record = ProgressRecord(tally.pictures, tally.tfrecord_files, dict(tally.failures), tally.clips)
            record.write(self._source.settings.output, f"{platform.node()}-{os.getpid()}")
