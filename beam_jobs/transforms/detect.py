"""The detect step: groups of work in, encoded rows out, through the detector processes of the worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.shared import Shared
from apache_beam.utils.timestamp import MIN_TIMESTAMP
from apache_beam.utils.windowed_value import WindowedValue

from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.processes.feed import Feeder, PartRows
from beam_jobs.processes.picture import PictureSettings
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.transforms.plan import Group


@dataclass(frozen=True)
class PoolSource:
    """The pool of detector processes of a worker: made at first use, then shared by all threads and pipelines there.

    Args:
        processes: detector processes a worker.
        handle: what makes it the same pool; give the same `PoolSource` to whatever shall share one.
    """

    spec: DetectorSpec
    settings: PictureSettings
    processes: int
    beam_args: tuple[str, ...]
    verbose: bool
    handle: Shared

    def acquire(self) -> DetectorPool:
        """The pool of this worker."""
        pool: DetectorPool = self.handle.acquire(self._make)
        return pool

    def _make(self) -> DetectorPool:
        return DetectorPool(self.spec, self.settings, self.processes, beam_args=self.beam_args, verbose=self.verbose)


@dataclass
class DetectObjects(beam.PTransform):
    """Detects on groups of pictures, and on the records of those that turn out to be TFRecord files.

    Args:
        source: the detector processes.
    """

    source: PoolSource

    def expand(self, groups: beam.PCollection[Group]) -> beam.PCollection[tuple[int, bytes]]:
        return groups | "Detect" >> beam.ParDo(_DetectFn(self.source))


class _DetectFn(beam.DoFn):
    def __init__(self, source: PoolSource) -> None:
        self._source = source
        self._groups = Metrics.counter("beam_detect", "groups_done")
        self._loads = Metrics.gauge("beam_detect", "detectors_loaded")

    def setup(self) -> None:
        self._pool = self._source.acquire()

    def start_bundle(self) -> None:
        settings = self._source.settings
        all_records = settings.input_format == "tfrecord"
        self._feeder = Feeder(self._pool, all_records=all_records, max_bytes=settings.max_bytes)

    def process(self, group: Group) -> Iterator[tuple[int, bytes]]:
        for rows in self._feeder.put(*group):
            yield self._counted(rows)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for rows in self._feeder.drain():
            yield WindowedValue(self._counted(rows), MIN_TIMESTAMP, [GlobalWindow()])

    def _counted(self, rows: PartRows) -> tuple[int, bytes]:
        self._groups.inc()
        self._loads.set(len(self._pool.loads))
        return rows.part, rows.rows
