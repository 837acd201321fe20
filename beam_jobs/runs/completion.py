"""The end of a run: from what its launcher knew and what its parts hold to the manifest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from beam_jobs.errors import JobError
from beam_jobs.runs import layout
from beam_jobs.runs.finalise import finalise
from beam_jobs.runs.folder import remove_strays
from beam_jobs.runs.launch import Launch, check_attempt
from beam_jobs.runs.manifest import (
    MANIFEST_VERSION,
    Manifest,
    mark_success,
    program_version,
    versions,
)
from beam_jobs.runs.plan import Plan
from beam_jobs.runs.progress import remove_progress
from beam_jobs.runs.resume import sweep
from beam_jobs.runs.since import rows_that_stand


class Clock(Protocol):
    """What the launcher measured: seconds of its stages, `detect` among them, and of all so far."""

    seconds: dict[str, float]

    @property
    def total(self) -> float: ...


def added_up(stage_s: Mapping[str, float], total: float) -> dict[str, float]:
    """The seconds of stages, with those between them as `other`, and the `total` to which they add up."""
    stages = {name: round(seconds, 3) for name, seconds in stage_s.items() if name not in ("other", "total")}
    # By another's clock, or one that was set meanwhile, all may seem to be less than its parts.
    total = max(round(total, 3), round(sum(stages.values()), 3))
    return {**stages, "other": round(total - sum(stages.values()), 3), "total": total}


def complete(
    root: str,
    launch: Launch,
    *,
    clock: Clock | None = None,
    cpu_s: dict[str, float] | None = None,
    model_mb: int | None = None,
    rss_mb: int | None = None,
) -> Manifest:
    """Writes what follows the parts: ids settled, COCO files, `run.json`. May be done again after it was interrupted.

    Args:
        clock: where the launcher is here to measure its stages; else they are taken from the time of day.
        cpu_s, model_mb, rss_mb: as in the manifest, where they are known.
    """
    start, submitted = time.monotonic(), datetime.now(UTC)
    plan = Plan.read(root)
    outcome = finalise(root, plan, launch.attempt, rows_that_stand(root, launch))
    counts = outcome.counts
    ended = datetime.now(UTC)
    if clock is None:
        detect_s = max(0.0, (submitted - launch.submitted).total_seconds())
        stage_s, total = {**launch.stage_s, "detect": detect_s}, ended - (launch.taken_up or launch.started)
        total_s = total.total_seconds()
    else:
        detect_s, stage_s, total_s = clock.seconds["detect"], clock.seconds, clock.total
    stage_s = added_up({**stage_s, "finalise": time.monotonic() - start}, total_s)
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
        annotated_clips=outcome.annotated_clips,
    )
    check_attempt(root, launch.attempt)
    remove_strays(root, {file.path for file in outcome.files})
    manifest.write(root)
    remove_progress(root)
    return manifest


def complete_elsewhere(parts: int, root: str, due: int, attempt: str) -> str:
    """`complete` for the last step of a pipeline, from `_plan/launch.json`; returns the manifest's path.

    Args:
        parts: how many were committed.
        due: how many the pipeline was to commit.
        attempt: of the start that the pipeline is of.

    Raises:
        JobError: it is not all of them.
    """
    if parts != due:
        raise JobError(f"{parts} of {due} parts were committed: the run is not complete. Please report this.")
    check_attempt(root, attempt)
    launch = Launch.read(root)
    sweep(root)  # nobody here knows whether a detector process was lost
    manifest = complete(root, launch)
    if manifest.status == "succeeded":
        mark_success(root)
    return layout.MANIFEST
