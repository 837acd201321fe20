"""What the launcher notes in the log of a run: how it began and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from beam_jobs.cli import interrupt
from beam_jobs.cli.redaction import redacted
from beam_jobs.errors import UsageError
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.manifest import Manifest
from beam_jobs.words import counted

Exit = Callable[[type[BaseException] | None, BaseException | None, TracebackType | None], None]


def began(log: RunLog, launch: Launch, processes: int, done: int) -> None:
    """Notes what is to be done, with what.

    Args:
        done: the parts that are committed already.
    """
    code = "resumed" if launch.resumed else "started"
    inputs = launch.inputs
    words = f"{counted(inputs.planned, 'input')} in {counted(inputs.parts, 'part')}"
    if launch.resumed:
        words += f", {done} of them committed before"
    log.info(
        "launch",
        code,
        f"{words}; {launch.model.name} in {counted(processes, 'process', 'processes')}.",
        program=launch.versions.get("beam-detect"),
        machine=launch.machine,
        stage_s=launch.stage_s,
    )


def finished(log: RunLog, manifest: Manifest) -> None:
    """Notes what the run came to."""
    counts = manifest.counts
    log.info(
        "launch",
        "finished",
        f"{manifest.status}: {counted(counts.images, 'picture')}, {counted(counts.failed, 'failure')},"
        f" {counted(counts.detections, 'detection')}.",
        stage_s=manifest.stage_s,
        work_s=manifest.work_s,
        cpu_s=manifest.cpu_s,
    )


def end_of(log: RunLog) -> Exit:
    """For an ExitStack: notes what ended the program early, if anything did, and closes the log."""

    def leave(kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        stopped = interrupt.received()
        if stopped is not None:
            log.warning("launch", "stopped", f"Stopped by {stopped}.")
        elif error is not None:
            code = "refused" if isinstance(error, UsageError) else "incomplete"
            log.error("launch", code, " ".join(redacted((str(error) or type(error).__name__).split())))
        log.close()

    return leave
