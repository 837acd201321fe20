"""What a run of `beam-detect detect` is: how it was launched, why it failed, and what it would have been."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from beam_jobs import matching, storage
from beam_jobs.cli.detect_job import request_of
from beam_jobs.cli.redaction import redacted
from beam_jobs.cli.summary import LISTED_PICTURES
from beam_jobs.detectors.base import DetectorInfo
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.settings import process_settings
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.manifest import Manifest, machine, program_version, versions
from beam_jobs.runs.plan import Plan, Planner
from beam_jobs.runs.records import InputsRecord, ModelRecord
from beam_jobs.words import counted


def launch_of(
    options: argparse.Namespace,
    job: DetectJob,
    info: DetectorInfo,
    matches: matching.Matches,
    plan: Plan,
    stage_s: Mapping[str, float],
    started: datetime,
    command: Sequence[str],
    *,
    evaluate: bool,
    since: Mapping[str, int],
) -> Launch:
    """What is known of a run whose parts are about to be begun.

    Args:
        since: how many inputs are what they were in the run before, and how many are not; empty without one.
    """
    return Launch(
        command=[storage.display_name(word) for word in redacted(command)],
        request=request_of(options),
        versions=launched_versions(),
        job=job.identity(),
        model=ModelRecord(job.spec.name, job.spec.fingerprint, info.engine, dict(info.details)),
        inputs=InputsRecord(
            planned=plan.inputs,
            parts=len(plan.parts),
            repeated=plan.repeated_inputs,
            hidden_skipped=matches.hidden_skipped,
            folder_links_skipped=matches.dir_links_skipped,
            special_files_skipped=matches.special_skipped,
            runs_skipped=len(matches.runs_skipped),
            changed=since.get("changed", 0),
            gone=since.get("gone", 0),
            unchanged=since.get("same", 0),
        ),
        machine=machine(),
        environment=process_settings(job.spec.threads),
        stage_s=dict(stage_s),
        started=started,
        submitted=datetime.now(UTC),
        max_failure_rate=options.max_failure_rate,
        evaluate=evaluate,
    )


def launched_versions() -> dict[str, str]:
    """The versions that a run is begun with, and resumed by."""
    return {"beam-detect": program_version(), **versions()}


def why_failed(options: argparse.Namespace, manifest: Manifest) -> str:
    """Why a run whose manifest says `failed` did, for people."""
    counts = manifest.counts
    where = f"{storage.join(options.output, 'failures')} says why"
    if not counts.images:
        return f"no input gave a result; {where}."
    return (
        f"{counts.failed / counts.inputs:.1%} of the inputs failed, more than --max_failure_rate"
        f" {options.max_failure_rate:g}; {where}."
    )


def dry_run(
    options: argparse.Namespace,
    job: DetectJob,
    planner: Planner,
    matches: matching.Matches,
    info: DetectorInfo,
    processes: int,
) -> str:
    """What `--dry_run` shows: the plan, the model, the settings."""
    first = [f"  {planned.key.file_name}" for planned, _ in zip(planner, range(LISTED_PICTURES), strict=False)]
    if planner.inputs > len(first):
        first.append(f"  … and {planner.inputs - len(first):,} more")
    skipped = (matches.hidden_skipped, matches.dir_links_skipped, matches.special_skipped, len(matches.runs_skipped))
    identity = {name: value for name, value in job.identity().items() if name not in ("categories", "fingerprint")}
    settings = {"output": options.output, "detector processes": processes or "as many as suit a worker", **identity}
    return "\n".join(
        (
            f"plan: {counted(planner.inputs, 'input')}, {planner.bytes / 1e6:,.1f} MB, {sum(skipped):,} skipped,"
            f" {planner.repeated_inputs:,} repeated"
            + (f", {planner.twins:,} with a content that others have as well" if planner.twins else ""),
            *first,
            f"model: {job.spec.name}, sha256 {job.spec.fingerprint}",
            *(f"  {name}: {value}" for name, value in {"engine": info.engine, **info.details}.items()),
            f"  classes: {len(job.spec.categories)}",
            "settings:",
            *(f"  {name}: {'-' if value is None else value}" for name, value in settings.items()),
            "Nothing was written.",
        )
    )
