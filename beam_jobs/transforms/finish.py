"""The end of a run, for a job whose launcher may be gone by then."""

from __future__ import annotations

from dataclasses import dataclass

import apache_beam as beam

from beam_jobs.runs.completion import complete_elsewhere


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
