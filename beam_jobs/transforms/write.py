"""From the rows of groups to committed parts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import apache_beam as beam
from apache_beam.metrics import Metrics

from beam_jobs.runs.parts import commit_part
from beam_jobs.runs.plan import read_part
from beam_jobs.tracking.tracker import Tracking

NAMESPACE, WRITE_CPU = "beam_detect", "write_cpu_us"


@dataclass
class WriteParts(beam.PTransform):
    """Gathers the rows of each part, writes its tables and commits it. Yields the numbers of the parts.

    Args:
        root: the run's folder.
        tracking: how the objects of clips are tracked; None for not at all.
    """

    root: str
    tracking: Tracking | None = None

    def expand(self, rows: beam.PCollection[tuple[int, bytes]]) -> beam.PCollection[int]:
        return (
            rows
            | "GatherPart" >> beam.GroupByKey()  # tuple[int, Iterable[bytes]]
            | "CommitPart" >> beam.ParDo(_CommitPart(self.root, self.tracking)).with_output_types(int)
        )


class _CommitPart(beam.DoFn):
    def __init__(self, root: str, tracking: Tracking | None) -> None:
        self._root = root
        self._tracking = tracking
        self._cpu_us = Metrics.counter(NAMESPACE, WRITE_CPU)

    def process(self, rows: tuple[int, Iterable[bytes]]) -> Iterator[int]:
        start = time.thread_time()
        part, encoded = rows
        commit_part(self._root, part, read_part(self._root, part), encoded, self._tracking)
        self._cpu_us.inc(int((time.thread_time() - start) * 1e6))
        yield part
