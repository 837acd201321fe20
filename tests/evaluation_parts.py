"""An evaluation in parts, in memory: images in shards, categories in groups, few rows at once."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.evaluation import errors_tide
from beam_jobs.evaluation.diagnostics import DiagnosticsResult, diagnose
from beam_jobs.evaluation.finished import Finished
from beam_jobs.evaluation.groups import finish_group, group_settings
from beam_jobs.evaluation.matching import MatchSettings
from beam_jobs.evaluation.scored import DIAGNOSTIC_TOTALS, Scored, row_type, sort_keys
from beam_jobs.evaluation.settings import EvaluationSettings
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


def hot_category(settings: EvaluationSettings, shards: int, rows_each: int) -> Iterator[bytes]:
    """Shards of one category: random scores, a tenth of the detections right, the others on nothing."""
    for shard in range(shards):
        chance = np.random.default_rng(shard)
        rows = np.zeros(rows_each, row_type(settings))
        right = chance.random(rows_each) < 0.1
        rows["shard"], rows["score"], rows["level"] = shard, chance.random(rows_each), chance.integers(0, 3, rows_each)
        rows["code"] = np.where(right, errors_tide.RIGHT, errors_tide.BACKGROUND)
        bits = len(settings.area_ranges) * len(settings.iou_thresholds)
        flags = np.repeat([[True], [True]], bits, axis=0), np.repeat([[False], [True]], bits, axis=0)
        found, missed = (np.packbits(both.reshape(-1)) for both in flags)
        rows["flags"] = np.where(right[:, None], found, missed)
        totals = np.full((len(settings.area_ranges) + DIAGNOSTIC_TOTALS, 1), rows_each // 8)
        yield Scored(rows[np.lexsort(sort_keys(rows)[::-1])], totals).to_bytes()


def finish_hot_category(shards: int, rows_each: int, at_once: int) -> int:
    """Finishes such a category; the most memory that this process ever held, in bytes."""
    settings = EvaluationSettings.of("bbox", (1,))
    finished = finish_group(settings, hot_category(settings, shards, rows_each), at_once)
    assert finished.detections.tolist() == [shards * rows_each]
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))
