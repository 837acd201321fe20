"""The evaluation: results to the shards of their images, each shard evaluated, the sums of all in one file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import apache_beam as beam

from beam_jobs import storage
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.evaluation.shards import Router
from beam_jobs.evaluation.work import UNKNOWN, Sums, empty_sums, evaluate_shard
from beam_jobs.formats.evaluated import SHARDS_FOLDER
from beam_jobs.formats.results import ResultSource

#: Where the sums of all shards are, below the evaluation's folder.
SUMS = f"{SHARDS_FOLDER}/sums.bin"

_TOGETHER = 16


@dataclass
class EvaluateShards(beam.PTransform):
    """Evaluates all shards below `root`, with the results of all sources; yields the path of the sums.

    Args:
        root: the evaluation's folder, with what `write_shards` wrote.
        sources: parts of the results, each read by one worker.
        shards: how many there are.
        categories: names by category id.
    """

    root: str
    sources: list[ResultSource]
    shards: int
    settings: EvaluationSettings
    categories: Mapping[int, str]

    def expand(self, pbegin: beam.pvalue.PBegin) -> beam.PCollection[str]:
        # A shard without results has truths all the same.
        shards = pbegin | "Shards" >> beam.Create([(shard, b"") for shard in range(self.shards)])
        results = (
            pbegin
            | "Sources" >> beam.Create(self.sources)  # ResultSource
            | "SpreadSources" >> beam.Reshuffle()  # ResultSource
            | "Route" >> beam.FlatMap(route, self.root).with_output_types(tuple[int, bytes])
        )
        return (
            (shards, results)
            | "WithEmptyShards" >> beam.Flatten()  # tuple[int, bytes]
            | "GatherShard" >> beam.GroupByKey()  # tuple[int, Iterable[bytes]]
            | "EvaluateShard" >> beam.Map(evaluate, self.root, self.settings, self.categories).with_output_types(bytes)
            | "MergeSums" >> beam.CombineGlobally(MergeSums(self.settings))  # bytes
            | "WriteSums" >> beam.Map(write_sums, self.root).with_output_types(str)
        )


def route(source: ResultSource, root: str) -> Iterator[tuple[int, bytes]]:
    """The results of a source by shard; and under `UNKNOWN` the number of those of no image of the truth."""
    results = source.read().results
    router = Router(root)
    yield from router.route(results)
    yield UNKNOWN, str(router.unknown(results)).encode()


def evaluate(
    shard: tuple[int, Iterable[bytes]], root: str, settings: EvaluationSettings, categories: Mapping[int, str]
) -> bytes:
    """The encoded sums of a shard, given its number and its results."""
    number, encoded = shard
    if number == UNKNOWN:
        counts = Counter(unknown_images=sum(map(int, encoded)))
        nothing = empty_sums(settings)
        return Sums(nothing.state, nothing.diagnostics, counts).to_bytes()
    return evaluate_shard(root, number, settings, categories, encoded).to_bytes()


class MergeSums(beam.CombineFn):
    """Merges encoded sums, equals with equals, so that of very many each is unpacked a few times only."""

    def __init__(self, settings: EvaluationSettings) -> None:
        self._settings = settings

    def create_accumulator(self) -> list[tuple[int, bytes]]:
        return []

    def add_input(self, accumulator: list[tuple[int, bytes]], element: bytes) -> list[tuple[int, bytes]]:
        accumulator.append((1, element))
        while len(accumulator) >= _TOGETHER and len({size for size, _ in accumulator[-_TOGETHER:]}) == 1:
            last = accumulator[-_TOGETHER:]
            accumulator[-_TOGETHER:] = [(last[0][0] * _TOGETHER, self._merged([data for _, data in last]))]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[list[tuple[int, bytes]]]) -> list[tuple[int, bytes]]:
        entries = [entry for accumulator in accumulators for entry in accumulator]
        # A few are left to `extract_output`: each merge unpacks and packs all that it merges.
        if len(entries) < _TOGETHER:
            return entries
        return [(sum(size for size, _ in entries), self._merged([data for _, data in entries]))]

    def extract_output(self, accumulator: list[tuple[int, bytes]]) -> bytes:
        if len(accumulator) == 1:
            return accumulator[0][1]
        return self._merged([data for _, data in accumulator])

    def _merged(self, encoded: list[bytes]) -> bytes:
        sums = [Sums.from_bytes(self._settings, data) for data in encoded]
        return Sums.merge(sums or [empty_sums(self._settings)]).to_bytes()


def write_sums(sums: bytes, root: str) -> str:
    """Writes the sums below `root`; returns their path."""
    storage.write_atomic(storage.join(root, SUMS), sums)
    return SUMS
