"""From the rows of groups to committed parts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_jobs.runs.log import RunLog
from beam_jobs.runs.parts import commit_part
from beam_jobs.runs.plan import read_part
from beam_jobs.tracking.tracker import Tracking

NAMESPACE, WRITE_CPU = "beam_detect", "write_cpu_us"


@dataclass
class WriteParts(beam.PTransform):
    """Gathers the rows of each part, writes its tables and commits it. Yields the numbers of the parts.

    Args:
        root: the run's folder.
        attempt: of the start that the parts are written for.
        tracking: how the objects of clips are tracked; None for not at all.
    """

    root: str
    attempt: str
    tracking: Tracking | None = None

    def expand(self, rows: beam.PCollection[tuple[int, bytes]]) -> beam.PCollection[int]:
        return (
            rows
            | "GatherPart" >> beam.GroupByKey()  # tuple[int, Iterable[bytes]]
            | "CommitPart" >> beam.ParDo(_CommitPart(self.root, self.attempt, self.tracking)).with_output_types(int)
        )


class _CommitPart(beam.DoFn):
    def __init__(self, root: str, attempt: str, tracking: Tracking | None) -> None:
        self._root = root
        self._attempt = attempt
        self._tracking = tracking
        self._log: RunLog | None = None
        self._cpu_us = Metrics.counter(NAMESPACE, WRITE_CPU)

    def setup(self) -> None:
        self._log = RunLog()
        self._log.open(self._root)

    def finish_bundle(self) -> None:
        assert self._log is not None
        self._log.flush()

    def teardown(self) -> None:
        if self._log is not None:
            self._log.close()

    def process(self, rows: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        start = time.thread_time()
        part, encoded = rows
        assert self._log is not None
        planned = read_part(self._root, part)
        commit_part(self._root, part, planned, encoded, self._log, self._attempt, self._tracking)
        self._cpu_us.inc(int((time.thread_time() - start) * 1e6))
        yield part
