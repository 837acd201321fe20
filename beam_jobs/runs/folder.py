"""The folder of a run: whether a new one may start in it, and how an old one is taken away."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Set

from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.formats.evaluated import EVALUATION_FILES, SHARDS_FOLDER
from beam_jobs.formats.tables import PUBLIC_TABLES
from beam_jobs.runs import layout, log, progress
from beam_jobs.runs.plan import PARTS_A_SLICE, Plan, read_part

#: Files of a plan that is not written to its end.
_SCRAP = re.compile(rf"(^|/)({layout.PLAN_FOLDER}/(inputs-\d+\.parquet|image_ids\.arrow)|{layout.SUPERSEDED})$")


def check_output(root: str, *, overwrite: bool, resume: bool = False) -> None:
    """Whether a run may be written to `root`, or go on there; nothing is changed yet.

    Raises:
        UsageError: it holds something and `overwrite` is not given, or what it holds is not a run.
    """
    if not storage.is_remote(root):
        _check_local(root)
    try:
        names = _names(root)
    except OSError as error:
        raise UsageError(f"--output {root} cannot be looked at: {storage.reason(error)}.") from error
    if not names:
        return
    planned = storage.exists(storage.join(root, layout.PLAN))
    if not planned and _scraps(root) is not None:
        return
    if overwrite:
        _old_plan(root)
    elif planned and resume:
        return
    elif planned:
        finished = storage.exists(storage.join(root, layout.MANIFEST))
        what = "a run" if finished else "an unfinished run"
        remedy = "name another folder, or give --overwrite to replace it"
        if not finished:
            remedy = "give --resume to go on with it, --overwrite to replace it, or name another folder"
        raise UsageError(f"--output {root} holds {what}: {remedy}.")
    else:
        raise UsageError(f"--output {root} is not empty, and what it holds is not a run: name another folder.")


def remove_run(root: str) -> None:
    """Takes away the run in `root`, finished or not, and nothing else: only the files that its plan leads to.

    The plan goes last, so that doing this again continues where it was stopped.
    """
    if not _names(root):
        return
    if not storage.exists(storage.join(root, layout.PLAN)) and (scraps := _scraps(root)) is not None:
        for path in scraps:
            _remove(path)
        return
    plan = _old_plan(root)
    folders = {"", layout.PLAN_FOLDER}
    for path in _owned(root, plan):
        _remove(storage.join(root, path))
        folders.add(path.rpartition("/")[0])
    for folder in folders:
        for name in _names(storage.join(root, folder) if folder else root):
            if name.startswith(storage.TEMP_PREFIX):  # what a killed writer left
                _remove(storage.join(root, folder, name) if folder else storage.join(root, name))
    _remove(storage.join(root, layout.PLAN))
    parents = {"/".join(folder.split("/")[:depth]) for folder in folders for depth in range(1, folder.count("/") + 2)}
    for folder in sorted(parents - {""}, key=len, reverse=True):
        with contextlib.suppress(OSError):  # it is not there, or somebody else's files are in it
            storage.remove_dir(storage.join(root, folder))


def remove_strays(root: str, listed: Set[str]) -> None:
    """Takes away tables and records of parts that are not `listed`: those of starts that lost the run to another."""
    for path in files_of_parts(root):
        if path not in listed:
            _remove(storage.join(root, path))


def files_of_parts(root: str) -> Iterator[str]:
    """What is there of the tables and records of parts, whosever: how many files a part has, only its rows say."""
    tables = [layout.part_table(table, 0).rpartition("/")[0] for table in (*PUBLIC_TABLES, "annotated")]
    for folder in (layout.PARTS_FOLDER, *tables):
        paths = (f"{folder}/{name}" for name in _names(storage.join(root, folder)))
        yield from (path for path in paths if layout.part_of(path) is not None)


def _scraps(root: str) -> list[str] | None:
    """The paths of all files in `root`, if a run that was stopped while it planned may have left them; else None."""
    if storage.is_remote(root):
        folders = (layout.PLAN_FOLDER, layout.SUPERSEDED.partition("/")[0])
        paths = [storage.join(root, folder, name) for folder in folders for name in _names(storage.join(root, folder))]
        return paths if set(_names(root)) <= set(folders) and all(map(_is_scrap, paths)) else None
    paths = []
    for folder, _, names in os.walk(root):
        for name in names:
            paths.append(os.path.join(folder, name))
            if not _is_scrap(os.path.relpath(paths[-1], root)):
                return None
    return paths


def _is_scrap(path: str) -> bool:
    return bool(_SCRAP.search(path)) or path.rpartition("/")[2].startswith(storage.TEMP_PREFIX)


def _check_local(root: str) -> None:
    where = os.path.realpath(root)
    if where in (os.path.sep, os.path.realpath(os.path.expanduser("~"))):
        raise UsageError(f"--output {root} is {where}: name a folder of its own for the run.")
    if os.path.lexists(root) and not os.path.isdir(root):
        raise UsageError(f"--output {root} is not a folder: name one, or a new one.")
    parent = where
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not os.path.isdir(parent):
        raise UsageError(f"--output {root} cannot be made: {parent} is a file.")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"--output {root} cannot be written: there is no permission to write to {parent}.")


def _names(folder: str) -> list[str]:
    try:
        return storage.list_dir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        try:
            storage.remove(path)
        except IsADirectoryError:  # a TFRecord file's, of which no picture was finished
            storage.remove_dir(path)


def _old_plan(root: str) -> Plan:
    try:
        return Plan.read(root)
    except FileNotFoundError:
        raise UsageError(
            f"--overwrite: {root} holds files but no run of beam-detect (there is no {layout.PLAN} in it). Nothing was"
            " deleted: name another folder, or empty it yourself."
        ) from None
    except UsageError as error:
        raise UsageError(f"--overwrite: {root}/{layout.PLAN} is not a plan of beam-detect: {error.__cause__}") from None


def _owned(root: str, plan: Plan) -> Iterator[str]:
    """Every path that the run may have written, relative to `root`, but for the plan itself."""
    yield from (layout.SUCCESS, layout.MANIFEST)
    yield from (f"{layout.LOG_FOLDER}/{name}" for name in log.names(root))
    yield from (layout.COCO_DETECTIONS, layout.COCO_MASKS, layout.COCO_KEYPOINTS, layout.COCO_DATASET)
    for part in range(len(plan.parts)):
        if plan.job.get("annotation"):
            yield from _annotated(root, part)
    for path in files_of_parts(root):
        if layout.part_of(path) in range(len(plan.parts)):
            yield path
    evaluation = layout.EVALUATION_FOLDER
    yield from (f"{evaluation}/{name}" for name in EVALUATION_FILES)
    shards = f"{evaluation}/{SHARDS_FOLDER}"
    yield from (f"{shards}/{name}" for name in _names(storage.join(root, shards)))
    yield from (f"{progress.FOLDER}/{name}" for name in progress.names(root))
    yield from map(layout.plan_slice, range(-(-len(plan.parts) // PARTS_A_SLICE)))
    yield from (layout.IMAGE_IDS, layout.LAUNCH, layout.SUPERSEDED)


def _annotated(root: str, part: int) -> Iterator[str]:
    """The annotated pictures of a part: one at each input's path, or a folder of them where it is a TFRecord file."""
    try:
        planned = read_part(root, part)
    except FileNotFoundError:  # removing was stopped after this slice of the plan
        return
    for one in planned:
        path = layout.annotated_path(one.key.file_name, one.key.uri)
        names = _names(storage.join(root, path))
        yield from (f"{path}/{n}" for n in names if n[:6].isdigit() or n.startswith(storage.TEMP_PREFIX))
        if not names:
            yield path
            yield layout.annotated_clip_path(one.key.file_name, one.key.uri)
