"""Detection in one process: part after part, each committed as soon as it is complete, while the next one is at work.

Beam's in-memory runner ends a step before it begins with what comes after a shuffle: it would keep all rows until then,
commit all parts at the end, and leave the detector processes idle meanwhile. So nothing is shuffled here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.processes.feed import Feeder, PartRows
from beam_jobs.runs.parts import commit_part
from beam_jobs.runs.plan import PlannedInput, read_part
from beam_jobs.transforms.detect import PoolSource
from beam_jobs.transforms.plan import groups_of
from beam_jobs.transforms.write import NAMESPACE, WRITE_CPU


@dataclass
class DetectInOrder(beam.PTransform):
    """Detects on parts of a plan, and commits them. Yields their numbers.

    For a runner that has one worker, in this process.

    Args:
        root: the run's folder.
        source: the detector processes.
        parts: the parts to do, in this order.
        group_size: see `ReadPlan`.
    """

    root: str
    source: PoolSource
    parts: Sequence[int]
    group_size: int

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[int]:
        commit = beam.ParDo(_DetectAndCommit(self.root, self.source, self.group_size)).with_output_types(int)
        return pbegin | "Parts" >> beam.Create(self.parts, reshuffle=False) | "DetectAndCommit" >> commit  # int


@dataclass(slots=True)
class _Part:
    """A part at work: its inputs, and the encoded rows that have come back."""

    planned: Sequence[PlannedInput]
    rows: list[bytes] = field(default_factory=list)


class _DetectAndCommit(beam.DoFn):
    def __init__(self, root: str, source: PoolSource, group_size: int) -> None:
        self._root = root
        self._source = source
        self._group_size = group_size
        self._write_cpu_us = Metrics.counter(NAMESPACE, WRITE_CPU)

    def setup(self) -> None:
        self._shared = self._source.shared()
        self._pool = self._shared.acquire()

    def start_bundle(self) -> None:
        self._feeder = Feeder.of(self._pool, self._source.settings)
        self._parts: dict[int, _Part] = {}

    def process(self, part: int) -> Iterator[int]:
        planned = read_part(self._root, part)
        self._parts[part] = _Part(planned)
        for group in groups_of(planned, self._group_size):
            yield from self._gather(self._feeder.put(part, group), put=part)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for part in self._gather(self._feeder.drain()):
            yield WindowedValue(part, MIN_TIMESTAMP, [GlobalWindow()])

    def teardown(self) -> None:
        self._shared.release()

    def _gather(self, some: Iterable[PartRows], put: int | None = None) -> Iterator[int]:
        """Takes rows; commits the parts that they complete, but not the one of which groups are being `put`."""
        for of_part, rows in some:
            self._parts[of_part].rows.append(rows)
            yield from self._commit_complete(put)
        yield from self._commit_complete(put)

    def _commit_complete(self, put: int | None) -> Iterator[int]:
        for part in list(self._parts):
            if part != put and not self._feeder.holds(part):
                yield self._commit(part)

    def _commit(self, part: int) -> int:
        start = time.thread_time()
        done = self._parts.pop(part)
        source, log = self._source, self._pool.log
        commit_part(self._root, part, done.planned, done.rows, log, source.attempt, source.settings.tracking)
        self._write_cpu_us.inc(int((time.thread_time() - start) * 1e6))
        return part
