"""The evaluation: results to the shards of their images, each shard evaluated; then by category to the numbers.

What adds up over shards goes through one combiner. Rows of detections do not get fewer by being combined, so they are
gathered by group of categories, and what a group comes to is small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam

from beam_jobs import storage
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.shards import Router
from beam_jobs.evaluation.work import UNKNOWN, Sums, evaluate_shard, write_finished
from beam_jobs.formats.evaluated import SHARDS_FOLDER
from beam_jobs.formats.results import ResultSource

#: Where the sums of all shards are, below the evaluation's folder.
SUMS = f"{SHARDS_FOLDER}/sums.json"

_ROWS = "rows"


@dataclass
class EvaluateShards(beam.PTransform):
    """Evaluates all shards below `root`, with the results of all sources; yields the paths of sums and of groups.

    Args:
        root: the evaluation's folder, with what `write_shards` wrote.
        sources: parts of the results, each read by one worker.
        shards: how many there are.
        groups: of categories, see `groups.number_of_groups`.
        categories: names by category id.
    """

    root: str
    sources: list[ResultSource]
    shards: int
    groups: int
    settings: EvaluationSettings
    categories: Mapping[int, str]

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[str]:
        # A shard without results has truths all the same.
        shards = pbegin | "Shards" >> beam.Create([(shard, b"") for shard in range(self.shards)])
        results = (
            pbegin
            | "Sources" >> beam.Create(self.sources)  # ResultSource
            | "SpreadSources" >> beam.Reshuffle()  # ResultSource
            | "Route" >> beam.ParDo(_RouteFn(self.root)).with_output_types(tuple[int, bytes])
        )
        evaluated = (
            (shards, results)
            | "WithEmptyShards" >> beam.Flatten()  # tuple[int, bytes]
            | "GatherShard" >> beam.GroupByKey()  # tuple[int, Iterable[bytes]]
            | "EvaluateShard"
            >> beam.ParDo(_EvaluateFn(self.root, self.groups, self.settings, self.categories)).with_outputs(
                _ROWS, main="sums"
            )
        )
        sums = (
            evaluated["sums"]
            | "MergeSums" >> beam.CombineGlobally(MergeSums())  # Sums
            | "WriteSums" >> beam.Map(write_sums, self.root).with_output_types(str)
        )
        finished = (
            evaluated[_ROWS]  # tuple[int, bytes]
            | "GatherGroup" >> beam.GroupByKey()  # tuple[int, Iterable[bytes]]
            | "FinishGroup" >> beam.Map(finish, self.root, self.groups, self.settings).with_output_types(str)
        )
        return (sums, finished) | "Paths" >> beam.Flatten()


class _RouteFn(beam.DoFn):
    """The results of a source by shard; and under `UNKNOWN` the number of those of no image of the truth."""

    def __init__(self, root: str) -> None:
        self._root = root

    def setup(self) -> None:
        # Of all images, so that it is read once a worker, not once a source.
        self._router = Router(self._root)

    def process(self, source: ResultSource) -> Iterator[tuple[int, bytes]]:
        results = source.read().results
        yield from self._router.route(results)
        yield UNKNOWN, str(self._router.unknown(results)).encode()


@dataclass
class _EvaluateFn(beam.DoFn):
    """A shard's number and its results to its sums, and by group to the encoded rows of its detections."""

    root: str
    groups: int
    settings: EvaluationSettings
    categories: Mapping[int, str]

    def process(self, element: tuple[int, Iterable[bytes]]) -> Iterator[Sums | beam.pvalue.TaggedOutput]:
        shard, encoded = element
        if shard == UNKNOWN:
            yield Sums(Counter(unknown_images=sum(map(int, encoded))))
            return
        sums, scored = evaluate_shard(self.root, shard, self.settings, self.categories, encoded)
        yield sums
        for group, part in enumerate(scored.split(self.groups)):
            yield beam.pvalue.TaggedOutput(_ROWS, (group, part.to_bytes()))


def finish(group: tuple[int, Iterable[bytes]], root: str, groups: int, settings: EvaluationSettings) -> str:
    """Writes the numbers of a group, given its number and the rows of all shards; returns their path."""
    number, encoded = group
    return write_finished(root, settings, number, groups, encoded)


class MergeSums(beam.CombineFn):
    """Adds sums up."""

    def create_accumulator(self) -> Sums:
        return Sums()

    def add_input(self, accumulator: Sums, element: Sums) -> Sums:
        return Sums.merge([accumulator, element])

    def merge_accumulators(self, accumulators: Iterable[Sums]) -> Sums:
        return Sums.merge(accumulators)

    def extract_output(self, accumulator: Sums) -> Sums:
        return accumulator


def write_sums(sums: Sums, root: str) -> str:
    """Writes the sums below `root`; returns their path."""
    storage.write_atomic(storage.join(root, SUMS), sums.to_bytes())
    return SUMS
