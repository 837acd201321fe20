"""The folder of a run that is begun, or taken up again: whose it is, and whether it is the same run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import msgspec

from beam_jobs import storage
from beam_jobs.cli.detect_job import request_of
from beam_jobs.cli.detect_record import launched_versions
from beam_jobs.errors import UsageError
from beam_jobs.pipelines import DetectJob
from beam_jobs.runs.plan import Plan, Planner
from beam_jobs.runs.resume import Begun, differences
from beam_jobs.runs.since import Earlier, read_earlier

#: What of a job's identity is known only when its form is chosen and the detector is open.
KNOWN_LATER = frozenset(("form", "engine", "batch_pixels", "group_size", "resizer"))

#: What decides the results and has a flag of the same name.
_FLAGS = (
    *("input", "input_list", "input_format", "root", "limit", "since", "dedupe"),
    *("image_ids", "ground_truth", "iou_type"),
    *("model", "engine", "min_score", "max_detections", "tile", "tile_overlap"),
    *("part_size", "threads", "batch_pixels", "max_pixels", "max_bytes", "max_clip_frames"),
)
#: What people know it by: see `differences`.
_NAMES = {
    **{name: f"--{name}" for name in _FLAGS},
    **{f"frames.{name}": f"--{name}" for name in ("fps", "every", "keyframes_only")},
    "frames.start_s": "--start",
    "frames.end_s": "--end",
    "category_ids": "--categories",
    "fingerprint": "the content of the model",
    "form": "the form of the model",
    "annotation": "--annotate",
    "annotation.min_score": "--annotate_min_score",
    "annotation.max_boxes": "--annotate_max_boxes",
    "annotation.class_agnostic": "--class_agnostic",
    "annotation.frames": "--annotate_frames",
    "annotation.every_frame": "--annotate_every",
    "tracking": "--track",
    "tracking.high": "--track_score",
    "tracking.lost_s": "--track_lost_s",
}

#: What was asked for, and may differ in runs that are read as one.
_OF_ONE_RUN = frozenset(("ground_truth", "iou_type", "limit", "since"))


def check_same(
    options: argparse.Namespace, begun: Begun, job: DetectJob, leave_out: frozenset[str] = frozenset()
) -> None:
    """Refuses to go on with another job than the one that was begun: parts of two would be taken for one.

    Raises:
        UsageError: what differs.
    """
    then = {**begun.launch.request, **begun.launch.versions, **begun.plan.job}
    now = {**request_of(options), **launched_versions(), **msgspec.to_builtins(job.identity())}
    if differ := differences(then, now, leave_out, _NAMES):
        raise UsageError(
            f"--resume: {options.output} holds another run: {differ}. Give what it was begun with, or --overwrite to"
            " replace it."
        )


def earlier_run(options: argparse.Namespace, root: str) -> Earlier | None:
    """The run that `--since` names, if it does.

    Raises:
        UsageError: it is not finished, or is the one that is to be made.
    """
    if options.since is None:
        return None
    since = options.since if storage.is_remote(options.since) else os.path.abspath(options.since)
    if since == root:
        raise UsageError(f"--since {options.since} is --output too: name another folder for what has changed since.")
    return read_earlier(since)


def check_since(
    options: argparse.Namespace, earlier: Earlier, job: DetectJob, leave_out: frozenset[str] = frozenset()
) -> None:
    """Refuses another job than that of the run since which this one is made: the two are read as one table.

    Raises:
        UsageError: what differs.
    """
    then = {**_since(earlier.launch.request), **earlier.launch.versions, **earlier.plan.job}
    now = {**_since(request_of(options)), **launched_versions(), **msgspec.to_builtins(job.identity())}
    if differ := differences(then, now, leave_out, _NAMES):
        raise UsageError(
            f"--since: {options.since} was made by another job: {differ}. Give what it was made with, or leave --since"
            " out to do everything anew."
        )


def _since(request: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs that belong together were both asked for. A truth gives image ids as well."""
    kept = {name: value for name, value in request.items() if name not in _OF_ONE_RUN}
    return {**kept, "image_ids": request.get("image_ids") or request.get("ground_truth")}


def keep_others_out(stack: ExitStack, root: str, shown: str) -> None:
    """Keeps others from writing to the folder, made if need be, until the stack is closed.

    Args:
        shown: the folder as the user named it.

    Raises:
        UsageError: somebody writes to it, or it cannot be made.
    """
    try:
        free = stack.enter_context(storage.exclusive(root))
    except OSError as error:
        raise UsageError(f"--output {shown} cannot be written: {storage.reason(error)}.") from error
    if not free:
        raise UsageError(f"--output {shown}: another beam-detect is writing to it. Wait for it, or stop it.")


def write_plan(planner: Planner, root: str, job: DetectJob) -> Plan:
    """Writes the plan of a new run.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        return planner.write(root, job.part_size, job.identity())
    except OSError as error:
        raise UsageError(f"--output {root} cannot be written: {storage.reason(error)}.") from error
