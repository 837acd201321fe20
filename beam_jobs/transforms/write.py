"""From the rows of groups to committed parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import apache_beam as beam

from beam_jobs.runs.parts import commit_part
from beam_jobs.runs.plan import read_part


@dataclass
class WriteParts(beam.PTransform):
    """Gathers the rows of each part, writes its tables and commits it. Yields the numbers of the parts.

    Args:
        root: the run's folder.
    """

    root: str

    def expand(self, rows: beam.PCollection[tuple[int, bytes]]) -> beam.PCollection[int]:
        return (
            rows
            | "GatherPart" >> beam.GroupByKey()  # tuple[int, Iterable[bytes]]
            | "CommitPart" >> beam.Map(write_part, self.root).with_output_types(int)
        )


def write_part(rows: tuple[int, Iterable[bytes]], root: str) -> int:
    """Commits a part, given its number and its encoded rows; returns the number."""
    part, encoded = rows
    commit_part(root, part, read_part(root, part), encoded)
    return part
