"""Whole jobs: a frozen description and a run's folder in, a pipeline out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import apache_beam as beam

    from beam_jobs.detectors.base import DetectorSpec
    from beam_jobs.evaluation.settings import EvaluationSettings
    from beam_jobs.formats.results import ResultSource
    from beam_jobs.processes.work import PictureSettings
    from beam_jobs.transforms.detect import PoolSource


@dataclass(frozen=True, slots=True)
class DetectJob:
    """What a run is asked to do, whatever it runs on.

    Args:
        part_size: inputs a part: what is committed as one.
        limit: only the first so many inputs of the plan.
        group_size: inputs that a detector process is given at a time, where that decides which pictures share a call;
            None where none do, and any number gives the same results.
        dedupe: inputs of the same content are detected once.
    """

    spec: DetectorSpec
    settings: PictureSettings
    part_size: int = 500
    limit: int | None = None
    group_size: int | None = None
    dedupe: bool = False

    def identity(self) -> dict[str, Any]:
        """What decides the results, as plain JSON: two runs with the same plan and identity give the same bytes."""
        settings = asdict(self.settings)
        selection = settings.pop("selection")
        tiling = settings.pop("tiling") or {"tile": None, "overlap": None}
        # Where the run lies has no influence on what it finds, and a limit shows in the plan.
        # Streams are never the same again, and their addresses may hold passwords.
        for name in ("output", "image_ids", "max_seconds", "max_memory", "streams", "stream_limits", "display"):
            del settings[name]
        if settings["annotation"] is not None:
            settings["annotation"]["frames"] = list(settings["annotation"]["frames"])  # as JSON gives it back
        if selection["category_ids"] is not None:
            selection["category_ids"] = sorted(selection["category_ids"])
        return {
            "model": self.spec.name,
            "fingerprint": self.spec.fingerprint,
            "categories": {str(i): name for i, name in sorted(self.spec.categories.items())},
            "engine": self.spec.engine,
            "threads": self.spec.threads,
            "form": self.spec.form,
            "part_size": self.part_size,
            "dedupe": self.dedupe,
            **({} if self.group_size is None else {"group_size": self.group_size, "resizer": str(self.spec.resizer)}),
            **selection,
            **settings,
            "tile": tiling["tile"],
            "tile_overlap": tiling["overlap"],
        }


def detect(
    pipeline: beam.Pipeline, root: str, source: PoolSource, parts: Sequence[int], group_size: int
) -> beam.PCollection[int]:
    """Adds to a pipeline the detection of some parts of the plan in `root`; yields the committed parts."""
    from beam_jobs.transforms.detect import DetectObjects
    from beam_jobs.transforms.plan import ReadPlan
    from beam_jobs.transforms.write import WriteParts

    return (
        pipeline
        | "ReadPlan" >> ReadPlan(root, parts, group_size)  # Group
        | "DetectObjects" >> DetectObjects(source)  # tuple[int, bytes]
        | "WriteParts" >> WriteParts(root, source.attempt, source.settings.tracking)  # int
    )


def detect_and_finish(
    pipeline: beam.Pipeline, root: str, source: PoolSource, parts: Sequence[int], group_size: int
) -> beam.PCollection[str]:
    """Adds to a pipeline the detection of all parts, and the end of the run after them; yields the manifest's path."""
    from beam_jobs.transforms.finish import AnnotateClips, FinishRun

    return (
        detect(pipeline, root, source, parts, group_size)
        | "AnnotateClips" >> AnnotateClips(root, source.attempt, source.beam_args)  # int
        | "FinishRun" >> FinishRun(root, len(parts), source.attempt)  # str
    )


def detect_in_order(
    pipeline: beam.Pipeline, root: str, source: PoolSource, parts: Sequence[int], group_size: int
) -> beam.PCollection[int]:
    """The same as `detect` in one process, for the local engine."""
    from beam_jobs.transforms.in_order import DetectInOrder

    return pipeline | "DetectInOrder" >> DetectInOrder(root, source, parts, group_size)  # int


def evaluate(
    pipeline: beam.Pipeline,
    root: str,
    sources: list[ResultSource],
    shards: int,
    groups: int,
    settings: EvaluationSettings,
    categories: Mapping[int, str],
) -> beam.PCollection[str]:
    """Adds to a pipeline the evaluation of all shards in `root`; yields the paths of its sums and finished groups."""
    from beam_jobs.transforms.evaluate import EvaluateShards

    return pipeline | "EvaluateShards" >> EvaluateShards(root, sources, shards, groups, settings, categories)  # str
