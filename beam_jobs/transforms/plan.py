"""From parts of the plan to groups of work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import apache_beam as beam

from beam_jobs.processes.work import Work
from beam_jobs.runs.plan import PlannedInput, read_part

#: A group ends before it has more than this many bytes of files: it is what one worker may be left with at the end,
#: some seconds of decoding. Smaller ones would read little ahead.
GROUP_BYTES = 32 << 20

#: A part's number and a few of its inputs.
Group = tuple[int, tuple[Work, ...]]


@dataclass
class ReadPlan(beam.PTransform):
    """The inputs of some parts of a plan, in groups, spread over the workers.

    Args:
        root: the run's folder.
        parts: the parts to do.
        group_size: inputs a group, at most; of those with the same content, one counts. Pictures share calls of the
            detector within one, if they do at all.
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
    """The inputs of a part, in groups of `group_size` or of `GROUP_BYTES`, those with most bytes first.

    So large files share no group, and are not what a worker begins when the others are done. Of inputs with the same
    content, one counts.
    """
    for group in sorted(_groups(planned, group_size), key=lambda group: -group.bytes):
        yield tuple(group.works)


@dataclass
class _Gathered:
    works: list[Work] = field(default_factory=list)
    bytes: int = 0


def _groups(planned: Iterable[PlannedInput], group_size: int) -> Iterator[_Gathered]:
    group = _Gathered()
    # One for each content; those that have the same follow each other.
    for _, same in groupby(planned, key=lambda one: one.first):
        first, *twins = same
        size = first.size or 0
        if group.works and (len(group.works) == group_size or group.bytes + size > GROUP_BYTES):
            yield group
            group = _Gathered()
        group.works.append(replace(_work(first), twins=tuple(map(_work, twins))))
        group.bytes += size
    if group.works:
        yield group


def _work(planned: PlannedInput) -> Work:
    return Work(planned.key, planned.input)
