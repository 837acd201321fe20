"""An evaluation in parts, in memory: images in shards, categories in groups, few rows at once."""

from __future__ import annotations

import random
from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.evaluation.diagnostics import DiagnosticsResult, diagnose
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.groups import finish_group, group_settings
from beam_jobs.evaluation.matching import MatchSettings
from beam_jobs.evaluation.work import score_images
from tests.evaluation_problems import Problem


class Parts:
    """A problem whose images lie in random shards, in the order of their ids."""

    def __init__(
        self, problem: Problem, chance: random.Random, shards: int = 1, matching: MatchSettings | None = None
    ) -> None:
        self.problem, self.chance = problem, chance
        self.shards, self.confusion = [], Counter[int]()
        ids = problem.images["image_id"].to_pylist()
        bounds = [0, *sorted(chance.randint(0, len(ids)) for _ in range(shards - 1)), len(ids)]
        for shard in range(shards):
            some = pa.array(ids[bounds[shard] : bounds[shard + 1]], pa.int64())
            wanted = pa.array(problem.settings.category_ids, pa.int32())
            images, objects, results = (
                table.filter(pc.is_in(table["image_id"], some)).combine_chunks()
                for table in (problem.images, problem.objects, problem.results)
            )
            objects, results = (rows.filter(pc.is_in(rows["category_id"], wanted)) for rows in (objects, results))
            matches, scored = score_images(shard, images, objects, results, problem.settings, matching)
            self.confusion.update(matches.confusion.tolist())
            self.shards.append(scored)

    def finish(self, groups: int = 1, at_once: int = 1 << 20) -> Finished:
        """The numbers of all groups, whose shards come in random order."""
        settings = self.problem.settings
        split = [scored.split(groups) for scored in self.shards]
        encoded = [[scored.to_bytes() for scored in parts] for parts in zip(*split, strict=True)]
        finished = []
        for group, parts in enumerate(encoded):
            own = group_settings(settings, group, groups)
            self.chance.shuffle(parts)
            finished.append(Finished.from_bytes(own, finish_group(own, iter(parts), at_once).to_bytes()))
        self.chance.shuffle(finished)
        return Finished.concat(settings, finished)

    def diagnose(self, finished: Finished) -> DiagnosticsResult:
        """What people read of it."""
        names = {category["id"]: category["name"] for category in self.problem.dataset["categories"]}
        return diagnose(finished, self.confusion, names)


def whole(problem: Problem, matching: MatchSettings | None = None) -> tuple[Finished, DiagnosticsResult]:
    """The problem in one part."""
    parts = Parts(problem, random.Random(0), matching=matching)
    finished = parts.finish()
    return finished, parts.diagnose(finished)
