"""The end of a run: from what its launcher knew and what its parts hold to the manifest."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from beam_jobs import storage
from beam_jobs.errors import JobError
from beam_jobs.runs import layout
from beam_jobs.runs.finalise import finalise
from beam_jobs.runs.manifest import (
    MANIFEST_VERSION,
    InputsRecord,
    Manifest,
    ModelRecord,
    mark_success,
    program_version,
    versions,
)
from beam_jobs.runs.plan import Plan
from beam_jobs.runs.progress import remove_progress


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

    def write(self, root: str) -> None:
        """Writes `_plan/launch.json`."""
        storage.write_atomic(storage.join(root, layout.LAUNCH), msgspec.json.encode(self))

    @staticmethod
    def read(root: str) -> Launch:
        """The launch of the run in `root`."""
        return msgspec.json.decode(storage.read_bytes(storage.join(root, layout.LAUNCH)), type=Launch)


def complete(
    root: str,
    launch: Launch,
    *,
    cpu_s: dict[str, float] | None = None,
    model_mb: int | None = None,
    rss_mb: int | None = None,
) -> Manifest:
    """Writes what follows the parts: ids settled, COCO files, `run.json`. May be done again after it was interrupted.

    Args:
        cpu_s, model_mb, rss_mb: as in the manifest, where they are known.
    """
    start, now = time.monotonic(), datetime.now(UTC)
    plan = Plan.read(root)
    outcome = finalise(root, plan)
    counts = outcome.counts
    detect_s = (now - launch.submitted).total_seconds()
    ended = datetime.now(UTC)
    stage_s = {
        **launch.stage_s,
        "detect": round(detect_s, 3),
        "finalise": round(time.monotonic() - start, 3),
        "total": round((ended - launch.started).total_seconds(), 3),
    }
    rate = counts.failed / counts.inputs if counts.inputs else 0.0
    failed = rate > launch.max_failure_rate or (counts.failed and not counts.images)
    manifest = Manifest(
        version=MANIFEST_VERSION,
        status="failed" if failed else "evaluating" if launch.evaluate else "succeeded",
        program_version=program_version(),
        command=launch.command,
        job=launch.job,
        model=launch.model,
        inputs=launch.inputs,
        counts=counts,
        known_image_ids=outcome.known_image_ids,
        renamed=outcome.renamed,
        detector=msgspec.structs.replace(
            outcome.detector, environment=launch.environment, model_mb=model_mb, rss_mb=rss_mb
        ),
        stage_s=stage_s,
        work_s=outcome.work_s,
        pictures_per_s=round((counts.inputs - launch.inputs_before) / detect_s, 2) if detect_s else 0.0,
        started=launch.started.isoformat(timespec="seconds"),
        ended=ended.isoformat(timespec="seconds"),
        versions=versions(),
        machine=launch.machine,
        files=outcome.files,
        repeatable=not outcome.detector.shrunk_calls,
        cpu_s=cpu_s,
        resumed=launch.resumed,
    )
    manifest.write(root)
    remove_progress(root)
    return manifest


def complete_elsewhere(parts: int, root: str, due: int) -> str:
    """`complete` for the last step of a pipeline, from `_plan/launch.json`; returns the manifest's path.

    Args:
        parts: how many were committed.
        due: how many the pipeline was to commit.

    Raises:
        JobError: it is not all of them.
    """
    if parts != due:
        raise JobError(f"{parts} of {due} parts were committed: the run is not complete. Please report this.")
    launch = Launch.read(root)
    manifest = complete(root, launch)
    if manifest.status == "succeeded":
        mark_success(root)
    return layout.MANIFEST
