"""What a run of `beam-detect detect` was: its manifest, why it failed, and what it would have been."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from beam_jobs import matching, storage
from beam_jobs.cli.redaction import redacted
from beam_jobs.cli.summary import LISTED_PICTURES
from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.pipelines import DetectJob
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.settings import process_settings
from beam_jobs.runs.finalise import Outcome
from beam_jobs.runs.manifest import (
    MANIFEST_VERSION,
    DetectorRecord,
    InputsRecord,
    Manifest,
    ModelRecord,
    machine,
    program_version,
    versions,
)
from beam_jobs.runs.plan import Plan, Planner


def manifest_of(
    options: argparse.Namespace,
    job: DetectJob,
    info: DetectorInfo,
    matches: matching.Matches,
    plan: Plan,
    outcome: Outcome,
    stage_s: Mapping[str, float],
    started: datetime,
    command: Sequence[str],
) -> Manifest:
    """The manifest of a run that came to `outcome`."""
    counts = outcome.counts
    rate = counts.failed / counts.inputs if counts.inputs else 0.0
    failed = rate > options.max_failure_rate or (counts.failed and not counts.images)
    return Manifest(
        version=MANIFEST_VERSION,
        status="failed" if failed else "succeeded",
        program_version=program_version(),
        command=[storage.display_name(word) for word in redacted(command)],
        job=job.identity(),
        model=ModelRecord(job.spec.name, job.spec.fingerprint, info.engine, dict(info.details)),
        inputs=InputsRecord(
            planned=plan.inputs,
            parts=len(plan.parts),
            repeated=plan.repeated_inputs,
            hidden_skipped=matches.hidden_skipped,
            folder_links_skipped=matches.dir_links_skipped,
            special_files_skipped=matches.special_skipped,
        ),
        counts=counts,
        known_image_ids=outcome.known_image_ids,
        renamed=outcome.renamed,
        detector=outcome.detector,
        stage_s=dict(stage_s),
        work_s=outcome.work_s,
        pictures_per_s=round(counts.inputs / stage_s["detect"], 2) if stage_s["detect"] else 0.0,
        started=started.isoformat(timespec="seconds"),
        ended=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=versions(),
        machine=machine(),
        files=outcome.files,
        repeatable=not outcome.detector.shrunk_calls,
    )


def detector_record(record: DetectorRecord, spec: DetectorSpec, pool: DetectorPool | None) -> DetectorRecord:
    """With what only the pool knows, and the timings table does not."""
    record = msgspec.structs.replace(record, environment=process_settings(spec.threads))
    if pool is None or not pool.loads:
        return record
    model_mb = round(sum(load.bytes for load in pool.loads) / len(pool.loads) / 1e6)
    return msgspec.structs.replace(record, model_mb=model_mb, rss_mb=round(pool.peak_rss / 1e6))


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
    skipped = matches.hidden_skipped + matches.dir_links_skipped + matches.special_skipped
    identity = {name: value for name, value in job.identity().items() if name not in ("categories", "fingerprint")}
    settings = {"output": options.output, "detector processes": processes, **identity}
    return "\n".join(
        (
            f"plan: {planner.inputs:,} inputs, {planner.bytes / 1e6:,.1f} MB, {skipped:,} skipped,"
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
