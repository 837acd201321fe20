"""Where things lie in a run's folder."""

from __future__ import annotations

import posixpath

PLAN_FOLDER = "_plan"
PLAN = f"{PLAN_FOLDER}/plan.json"
IMAGE_IDS = f"{PLAN_FOLDER}/image_ids.arrow"
COCO_DETECTIONS = "coco/detections.json"
COCO_DATASET = "coco/dataset.json"
ANNOTATED_FOLDER = "annotated"
MANIFEST = "run.json"
SUCCESS = "_SUCCESS"


def plan_slice(number: int) -> str:
    """A file of the plan; each holds `PARTS_A_SLICE` parts."""
    return f"{PLAN_FOLDER}/inputs-{number:05d}.parquet"


def part_record(part: int) -> str:
    """The record that a part is committed."""
    return f"{PLAN_FOLDER}/parts/part-{part:05d}.json"


def part_table(table: str, part: int) -> str:
    """A part's file of a table. The list of annotated pictures is kept with the plan: it is for us."""
    folder = f"{PLAN_FOLDER}/annotated" if table == "annotated" else table
    return f"{folder}/part-{part:05d}.parquet"


def annotated_path(file_name: str) -> str:
    """The annotated picture of a file: its own relative path."""
    return f"{ANNOTATED_FOLDER}/{_below(file_name)}"


def annotated_record_path(container: str, record: int, name: str, format: str) -> str:
    """The annotated picture of a record, in a folder (`container`) at the path of its TFRecord file.

    Names of records repeat, and may be anything: the index makes the path unique, the name is there for people.
    """
    base = _below(name).rpartition("/")[2][-150:]
    suffix = "" if posixpath.splitext(base)[1] else f".{format.lower()}"
    return f"{container}/{record:06d}-{base}{suffix}"


def _below(name: str) -> str:
    """`name` as a path that stays below a folder: without scheme's slashes, a leading slash, `.`, `..` or NUL."""
    segments = [segment for segment in name.replace("\0", "%00").split("/") if segment not in ("", ".")]
    return "/".join("%2E%2E" if segment == ".." else segment for segment in segments) or "%2F"
