"""The end of a run, for a job whose launcher may be gone by then."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import apache_beam as beam

from beam_jobs.processes.clips import Drawing, annotate_clips
from beam_jobs.runs import layout
from beam_jobs.runs.completion import complete_elsewhere
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.parts import PartRecord
from beam_jobs.runs.plan import Plan
from beam_jobs.storage import display_name


@dataclass
class AnnotateClips(beam.PTransform):
    """Writes the annotated videos of the clips in committed parts, if the job draws any. Yields the parts.

    Args:
        root: the run's folder.
        attempt: of the start that has committed them.
        beam_args: options of the file systems.
    """

    root: str
    attempt: str
    beam_args: tuple[str, ...]

    def expand(self, parts: beam.PCollection[int]) -> beam.PCollection[int]:
        draw = beam.Map(_annotated, self.root, self.attempt, self.beam_args)
        return parts | "Annotate" >> draw.with_output_types(int)


def _annotated(part: int, root: str, attempt: str, beam_args: tuple[str, ...]) -> int:
    if drawing := Drawing.of(Plan.read(root).job):
        record = PartRecord.read(root, layout.part_record(part, layout.mark(root, attempt)))
        # Not in this process: a clip that kills whoever draws it must not cost the worker.
        if notes := annotate_clips(root, [record], drawing, 1, beam_args):
            with closing(RunLog()) as log:
                log.open(root)
                for note in notes:
                    log.warning("annotate", note.code, note.message, input=display_name(note.uri), part=part)
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
