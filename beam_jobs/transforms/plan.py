"""From parts of the plan to groups of work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import apache_beam as beam

from beam_jobs.processes.picture import Work
from beam_jobs.runs.plan import PlannedInput, read_part

#: A part's number and a few of its inputs.
Group = tuple[int, tuple[Work, ...]]


@dataclass
class ReadPlan(beam.PTransform):
    """The inputs of some parts of a plan, in groups, spread over the workers.

    Args:
        root: the run's folder.
        parts: the parts to do.
        group_size: inputs a group; of those with the same content, one counts. Pictures share calls of the detector
            within one, if they do at all.
    """

    root: str
    parts: Sequence[int]
    group_size: int

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[Group]:
        return (
            pbegin
            | "Parts" >> beam.Create(self.parts, reshuffle=False)  # int
            | "SpreadParts" >> beam.Reshuffle()  # int
            | "Groups" >> beam.FlatMap(groups_of_part, self.root, self.group_size).with_output_types(Group)
            | "SpreadGroups" >> beam.Reshuffle()  # Group
        )


def groups_of_part(part: int, root: str, group_size: int) -> Iterator[Group]:
    """The groups of a part."""
    return ((part, group) for group in groups_of(read_part(root, part), group_size))


def groups_of(planned: Iterable[PlannedInput], group_size: int) -> Iterator[tuple[Work, ...]]:
    """The inputs of a part, `group_size` at a time; of those with the same content, one counts."""
    works = _works(planned)
    while group := tuple(islice(works, group_size)):
        yield group


def _works(planned: Iterable[PlannedInput]) -> Iterator[Work]:
    """One for each content; those that have the same follow each other."""
    for _, same in groupby(planned, key=lambda one: one.first):
        work, *twins = (Work(one.key, one.input) for one in same)
        yield replace(work, twins=tuple(twins))
