"""The end of a run, for a job whose launcher may be gone by then."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import apache_beam as beam

from beam_jobs.processes.clips import Drawing, annotate_here
from beam_jobs.runs import layout
from beam_jobs.runs.completion import complete_elsewhere
from beam_jobs.runs.parts import PartRecord
from beam_jobs.runs.plan import Plan

_LOGGER = logging.getLogger(__name__)


@dataclass
class AnnotateClips(beam.PTransform):
    """Writes the annotated videos of the clips in committed parts, if the job draws any. Yields the parts.

    Args:
        root: the run's folder.
        attempt: of the start that has committed them.
    """

    root: str
    attempt: str

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[int]:
        return parts | "Annotate" >> beam.Map(_annotated, self.root, self.attempt).with_output_types(int)


def _annotated(part: int, root: str, attempt: str) -> int:
    if drawing := Drawing.of(Plan.read(root).job):
        record = PartRecord.read(root, layout.part_record(part, layout.mark(root, attempt)))
        for note in annotate_here(root, record, drawing):
            _LOGGER.warning("%s", note)
    return part


@dataclass
class FinishRun(beam.PTransform):
    """When all parts are committed: writes the COCO files and the manifest, in one worker. Yields the manifest's path.

    Args:
        root: the run's folder, with `_plan/launch.json`.
        due: how many parts there are to commit.
        attempt: of the start that ends so.
    """

    root: str
    due: int
    attempt: str

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[str]:
        return (
            parts
            | "CountParts" >> beam.combiners.Count.Globally()  # int
            | "Complete" >> beam.Map(complete_elsewhere, self.root, self.due, self.attempt).with_output_types(str)
        )
