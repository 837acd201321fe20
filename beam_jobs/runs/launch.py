"""How a run was launched: what is known of it before its first part, and is not in its plan."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

import msgspec

from beam_jobs import storage
from beam_jobs.errors import JobError
from beam_jobs.runs import layout
from beam_jobs.runs.documents import read_document
from beam_jobs.runs.plan import Plan
from beam_jobs.runs.records import InputsRecord, ModelRecord

_TAKEN = "Another beam-detect has begun in {}: this one stops, and leaves it to the other."


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
        attempt: tells this start from others that write to the same folder; the one that is written here goes on.
        attempts: the starts that the run has had, this one last: parts are theirs.
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
    attempt: str = ""
    attempts: list[str] = []

    def write(self, root: str) -> None:
        """Writes `_plan/launch.json`."""
        storage.write_atomic(storage.join(root, layout.LAUNCH), msgspec.json.encode(self))

    def begin(self, root: str, plan: Plan) -> Launch:
        """Writes `_plan/launch.json` for a start of its own, which is returned: from now on other ones are to stop.

        Args:
            plan: what is in the folder, unless somebody else has just begun there.

        Raises:
            JobError: somebody has.
        """
        attempt = secrets.token_hex(4)
        begun = msgspec.structs.replace(self, attempt=attempt, attempts=[*self.attempts, attempt])
        begun.write(root)
        if msgspec.json.encode(Plan.read(root)) != msgspec.json.encode(plan):
            raise JobError(_TAKEN.format(storage.display_name(root)))
        return begun

    @staticmethod
    def read(root: str) -> Launch:
        """The launch of the run in `root`. Raises as `read_document` does."""
        return read_document(root, layout.LAUNCH, Launch)


def check_attempt(root: str, attempt: str) -> None:
    """Whether the run in `root` is still this start's. Before anything is committed: locks are local, stores have none.

    Args:
        attempt: of the launch; empty where nobody asked.

    Raises:
        JobError: another start has taken it over, or the run was deleted.
    """
    if not attempt:
        return
    shown = storage.display_name(root)
    try:
        now = Launch.read(root).attempt
    except FileNotFoundError as error:
        raise JobError(f"{shown} is not the run's folder any more: somebody has deleted {layout.LAUNCH}.") from error
    if now != attempt:
        raise JobError(_TAKEN.format(shown))
