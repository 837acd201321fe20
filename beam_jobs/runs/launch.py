"""How a run was launched: what is known of it before its first part, and is not in its plan."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from beam_jobs import storage
from beam_jobs.runs import layout
from beam_jobs.runs.manifest import InputsRecord, ModelRecord


class Launch(msgspec.Struct, frozen=True):
    """What is known of a run before its first part, and not from its plan: its end may be elsewhere, or later.

    Args:
        request: what else than the job was asked for: inputs, ground truth; a run is resumed only by the same.
        versions: of what may change a byte of the results; likewise.
        job: `DetectJob.identity`.
        machine: what the launcher runs on.
        environment: what decides the threads and the memory of a detector process.
        stage_s: wall-clock seconds of the launcher's stages so far.
        submitted: when the parts were begun.
        taken_up: when the program was begun that goes on with the run; None the first time.
        max_failure_rate: a greater share of failed inputs makes it a failed run.
        evaluate: an evaluation is to follow, and is what makes the run a success.
        resumed: how often the run was taken up again.
        inputs_before: pictures and records that were done before it was taken up the last time.
    """

    command: list[str]
    request: dict[str, Any]
    versions: dict[str, str]
    job: dict[str, Any]
    model: ModelRecord
    inputs: InputsRecord
    machine: dict[str, str]
    environment: dict[str, str]
    stage_s: dict[str, float]
    started: datetime
    submitted: datetime
    max_failure_rate: float
    evaluate: bool
    resumed: int = 0
    inputs_before: int = 0
    taken_up: datetime | None = None

    def write(self, root: str) -> None:
        """Writes `_plan/launch.json`."""
        storage.write_atomic(storage.join(root, layout.LAUNCH), msgspec.json.encode(self))

    @staticmethod
    def read(root: str) -> Launch:
        """The launch of the run in `root`."""
        return msgspec.json.decode(storage.read_bytes(storage.join(root, layout.LAUNCH)), type=Launch)
