"""Where things lie in a run's folder."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re

from beam_jobs.storage import display_name, is_remote

PLAN_FOLDER = "_plan"
PLAN = f"{PLAN_FOLDER}/plan.json"
#: Of the records that parts are committed.
PARTS_FOLDER = f"{PLAN_FOLDER}/parts"
#: Of runs that are finished elsewhere than where they were launched.
LAUNCH = f"{PLAN_FOLDER}/launch.json"
IMAGE_IDS = f"{PLAN_FOLDER}/image_ids.arrow"
COCO_DETECTIONS = "coco/detections.json"
#: Of runs that have such: what pycocotools evaluates as masks and as keypoints.
COCO_MASKS = "coco/detections_segm.json"
COCO_KEYPOINTS = "coco/detections_keypoints.json"
COCO_DATASET = "coco/dataset.json"
ANNOTATED_FOLDER = "annotated"
MANIFEST = "run.json"
LOG_FOLDER = "log"
#: Of a run that was made `--since` another.
SUPERSEDED = "superseded/part-00000.parquet"
SUCCESS = "_SUCCESS"
#: Where `--ground_truth` has its metrics.
EVALUATION_FOLDER = "evaluation"

#: Bytes of a name in a folder, and of an annotated picture's path below the run: what every usual file system holds.
_MAX_SEGMENT, _MAX_PATH = 255, 3072
#: Letters of an ending that is kept when a name is cut.
_MAX_SUFFIX = 10
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp")


_PART = re.compile(r"/part-(\d{5,})(?:_\d{5,})?(-[0-9a-f]+)?\.(?:parquet|json)$")


def plan_slice(number: int) -> str:
    """A file of the plan; each holds `PARTS_A_SLICE` parts."""
    return f"{PLAN_FOLDER}/inputs-{number:05d}.parquet"


def mark(root: str, attempt: str) -> str:
    """What the names of a part's files end in, by the start that writes them, so that no two write the same file.

    Only in buckets: a folder on a disk is locked, and its files have the same names in every run.
    """
    return f"-{attempt}" if attempt and is_remote(root) else ""


def part_record(part: int, mark: str = "") -> str:
    """The record that a part is committed."""
    return f"{PARTS_FOLDER}/part-{part:05d}{mark}.json"


def part_table(table: str, part: int, number: int = 0, mark: str = "") -> str:
    """A part's file of a table, or one of several. The list of annotated pictures is kept with the plan: it is for us.

    Names sort as the rows do.
    """
    folder = f"{PLAN_FOLDER}/annotated" if table == "annotated" else table
    return f"{folder}/part-{part:05d}{f'_{number:05d}' if number else ''}{mark}.parquet"


def part_of(path: str) -> int | None:
    """The part that a file is of, by its name; None for any other file."""
    found = _PART.search(path)
    return int(found[1]) if found else None


def mark_of(path: str) -> str:
    """The `mark` in the name of a part's file."""
    found = _PART.search(path)
    return (found[2] or "") if found else ""


def with_mark(path: str, mark: str) -> str:
    """The path of a part's file with another `mark`."""
    stem, dot, suffix = path.rpartition(".")
    return f"{stem.removesuffix(mark_of(path))}{mark}{dot}{suffix}"


def annotated_path(file_name: str, uri: str) -> str:
    """The annotated picture of a file: its own relative path.

    An undecodable name may read like another one's escapes (`caf%E9.png`): a digest of its bytes keeps them apart.
    """
    path = _below(file_name)
    if "%" in file_name and display_name(uri) != uri:
        path = _marked(path, "/".join(uri.split("/")[-file_name.count("/") - 1 :]))
    if len(path.encode()) > _MAX_PATH:
        path = _marked(path.replace("/", "~"), path)
    return f"{ANNOTATED_FOLDER}/{path}"


def annotated_clip_path(file_name: str, uri: str) -> str:
    """The annotated video of a clip: an MP4, whatever the clip is."""
    path = annotated_path(file_name, uri)
    return path if path.lower().endswith(".mp4") else f"{path}.mp4"


def annotated_record_path(container: str, record: int, name: str, format: str) -> str:
    """The annotated picture of a record, in a folder (`container`) at the path of its TFRecord file.

    Names of records repeat, and may be anything: the index makes the path unique, the name is there for people.
    """
    base = _below(name).rpartition("/")[2]
    if posixpath.splitext(base)[1].lower() not in _SUFFIXES:
        base += f".{format.lower()}"
    return f"{container}/{_fitting(f'{record:06d}-{base}')}"


def annotated_frame_path(clip: str, frame: int) -> str:
    """The annotated picture of a frame, beside the path of its clip (`clip`)."""
    folder, _, base = clip.rpartition("/")
    return f"{folder}/{_fitting(f'{base}#{frame:06d}.jpg')}"


def _below(name: str) -> str:
    """`name` as a path that stays below a folder: without scheme's slashes, a leading slash, `.`, `..` or NUL."""
    segments = [segment for segment in name.replace("\0", "%00").split("/") if segment not in ("", ".")]
    return "/".join("%2E%2E" if segment == ".." else _fitting(segment) for segment in segments) or "%2F"


def _fitting(segment: str) -> str:
    """The segment if a folder can hold such a long name. Escapes make a name longer, and records have no limit."""
    return segment if len(segment.encode()) <= _MAX_SEGMENT else _marked(segment, segment)


def _marked(path: str, told_apart_by: str) -> str:
    """`path` with a digest before its suffix, and a last segment that is cut to what a folder can hold."""
    folder, slash, base = path.rpartition("/")
    stem, suffix = posixpath.splitext(base)
    if len(suffix) > _MAX_SUFFIX:
        stem, suffix = base, ""
    digest = hashlib.blake2b(os.fsencode(told_apart_by), digest_size=6).hexdigest()
    ending = f"~{digest}{suffix}"
    kept = stem.encode()[: _MAX_SEGMENT - len(ending.encode())].decode(errors="ignore")
    return f"{folder}{slash}{kept}{ending}"
