"""What a run says at its end, on standard output."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from beam_jobs import storage
from beam_jobs.cli.progress import duration
from beam_jobs.errors import JobError
from beam_jobs.formats.evaluated import EVALUATION_FILES
from beam_jobs.runs import layout
from beam_jobs.runs.manifest import Manifest, table_files
from beam_jobs.runs.parts import Counts, read_table
from beam_jobs.words import counted

#: Runs of up to so many pictures list what was found in each.
LISTED_PICTURES = 10


def say(text: str) -> None:
    """Prints `text`. That nobody reads it any more (`| head -1`) does not change how a run ends.

    Raises:
        JobError: it cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Python will try again when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise JobError(f"Standard output cannot be written: {storage.reason(error)}.") from error


def summary(root: str, manifest: Manifest) -> str:
    """The counts, the speed and where the outputs are."""
    counts = manifest.counts
    lines = [
        ("inputs", _inputs(manifest)),
        ("pictures", f"{counts.images:,}, {counts.images_with_detections:,} of them with detections"),
        ("detections", _detections(counts)),
        ("failures", _failures(root, counts.failures)),
    ]
    if counts.empty_boxes:
        lines.append(("empty boxes", f"{counts.empty_boxes:,} left out"))
    if counts.unnamed_category_ids:
        ids = ", ".join(counts.unnamed_category_ids)
        found = counted(sum(counts.unnamed_category_ids.values()), "detection")
        lines.append(("no class name", f"{found}, of class {'ids' if ',' in ids else 'id'} {ids}"))
    if manifest.known_image_ids is not None:
        given = (
            "--image_ids" if any(word.startswith("--image_ids") for word in manifest.command) else "the ground truth"
        )
        known = f"{manifest.known_image_ids:,} of {counted(counts.images, 'picture')}"
        lines.append(("image ids", f"{known} known to {given}"))
    if manifest.renamed:
        lines.append(("image ids", f"{len(manifest.renamed):,} settled by number, listed in {layout.MANIFEST}"))
    if not manifest.repeatable:
        calls = f"{manifest.detector.shrunk_calls:,} did not fit into memory and were made smaller"
        lines.append(
            ("calls", f"{calls}: another run may differ in the last bits; a smaller --batch_pixels prevents it")
        )
    lines += [
        ("speed", _speed(manifest)),
        ("model", f"{manifest.model.name}, {_loads(manifest)}"),
        ("outputs", root),
    ]
    report = f"{layout.EVALUATION_FOLDER}/{EVALUATION_FILES[-1]}"
    if any(file.path == report for file in manifest.files):
        lines.append(("evaluation", storage.join(root, report)))
    return "\n".join(f"{name:<13} {printable(text)}" for name, text in lines)


def submitted(options: argparse.Namespace, job: Sequence[tuple[str, str]]) -> str:
    """What is said of a job that was given to a runner.

    Args:
        job: what the runner has to say, as pairs of a name and a text.
    """
    lines = [*job, ("outputs", f"{options.output}: complete when it has {layout.MANIFEST}")]
    if options.no_wait and options.ground_truth:
        folder = storage.join(options.output, layout.EVALUATION_FOLDER)
        kind = "" if options.iou_type == "bbox" else f" --iou_type {options.iou_type}"
        command = (
            f"beam-detect evaluate --detections {options.output} --ground_truth {options.ground_truth}"
            f"{kind} --output {folder}"
        )
        lines.append(("evaluation", f"then: {command}"))
    return "\n".join(f"{name:<13} {printable(text)}" for name, text in lines)


def listing(root: str, manifest: Manifest, min_score: float) -> str:
    """A table of what was found, picture by picture, best first: picture, class, score, box in pixels."""
    names: list[str] = []
    for path in table_files(manifest.files, "images"):
        names += read_table(root, path)["file_name"].to_pylist()
    rows = [("picture", "class", "score", "box: xmin ymin xmax ymax")]
    weak = 0
    found: set[str] = set()
    for path in table_files(manifest.files, "detections"):
        for row in read_table(root, path).to_pylist():
            if row["score"] < min_score:
                weak += 1
                continue
            found.add(row["file_name"])
            box = " ".join(f"{row[side]:5.0f}" for side in ("xmin", "ymin", "xmax", "ymax"))
            rows.append((row["file_name"], row["category"], f"{row['score']:.2f}", box))
    rows += [(name, "-", "", "") for name in names if name not in found]
    for path in table_files(manifest.files, "failures"):
        rows += [
            (row["file_name"], f"! {row['code']}", "", row["message"]) for row in read_table(root, path).to_pylist()
        ]
    lines = _columns([rows[0], *sorted(rows[1:], key=lambda row: row[0])])
    if weak:
        lines.append(f"({weak} more with a score below {min_score:.2f} are in the tables)")
    return "\n".join(lines)


def printable(text: str) -> str:
    """`text` without what would move a terminal's cursor: names of files and classes may hold anything."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    shown = [tuple(map(printable, row)) for row in rows]
    widths = [max(len(row[i]) for row in shown) for i in range(len(shown[0]))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown]


def _inputs(manifest: Manifest) -> str:
    counts, inputs = manifest.counts, manifest.inputs
    words = [f"{counts.inputs:,}"]
    if counts.containers:
        kinds = (("TFRecord files", counts.tfrecord_files), ("clips", counts.clips), ("live streams", counts.streams))
        shown = ", ".join(f"{kind}: {number:,}" for kind, number in kinds if number)
        words.append(f"{counted(inputs.planned, 'file')}, of which {shown}")
    if counts.dropped_frames:
        words.append(f"{counted(counts.dropped_frames, 'frame')} dropped: they came while others were looked at")
    if counts.reopened_streams:
        words.append(f"streams broke off and were opened again {counted(counts.reopened_streams, 'time')}")
    if counts.sequential_clips:
        clips = counted(counts.sequential_clips, "clip")
        words.append(f"{clips} decoded in one go: which frames there are is not known before")
    if counts.clips_without_frames:
        clips = counted(counts.clips_without_frames, "clip has", "clips have")
        words.append(f"{clips} no frame of those that --start, --end, --fps, --every and --keyframes_only choose")
    for number, text in (
        (counts.deduplicated, "have the content of others, and were not detected on"),
        (inputs.repeated, "named twice or more, done once"),
        (inputs.hidden_skipped, "skipped: the name starts with a dot"),
        (inputs.folder_links_skipped, "skipped: link to a folder"),
        (inputs.special_files_skipped, "skipped: not a regular file"),
        (inputs.changed, "not what they were in the run before"),
        (inputs.unchanged, "left out: that run has them"),
        (inputs.gone, "of that run are gone"),
        (inputs.runs_skipped, "skipped: what an earlier run wrote"),
    ):
        if number:
            words.append(f"{number:,} {text}")
    return "; ".join(words)


def _detections(counts: Counts) -> str:
    shapes = [(counts.masks, "masks"), (counts.keypoints, "keypoints")]
    return ", ".join([f"{counts.detections:,}", *(f"{number:,} with {what}" for number, what in shapes if number)])


def _failures(root: str, failures: dict[str, int]) -> str:
    if not failures:
        return "none"
    codes = ", ".join(f"{code} {count:,}" for code, count in failures.items())
    return f"{sum(failures.values()):,} ({codes}), listed in {storage.join(root, 'failures')}"


def _speed(manifest: Manifest) -> str:
    stages = ("model_files", "plan", "dedupe", "model_form", "start", "model_open", "plan_write")
    before = sum(manifest.stage_s.get(stage, 0.0) for stage in stages)
    return (
        f"{manifest.pictures_per_s:.1f} pictures/s; {duration(manifest.stage_s['total'])} in all,"
        f" {duration(before)} of it before the first picture"
    )


def _loads(manifest: Manifest) -> str:
    detector = manifest.detector
    times = "once" if detector.loads == 1 else f"{detector.loads} times, once a process,"
    return f"loaded {times} in {detector.load_s:.1f} s" if detector.loads else "not used"


def outputs(root: str, manifest: Manifest) -> list[str]:
    """The outputs by name, for people who look at a run for the first time."""
    places = [
        ("images/", "one row a picture"),
        ("detections/", "one row a detection"),
        ("failures/", "one row an input that gave no result"),
        (layout.COCO_DETECTIONS, "COCO results"),
        *([(layout.COCO_MASKS, "the same as masks alone")] if manifest.counts.masks else []),
        *([(layout.COCO_KEYPOINTS, "the same as keypoints alone")] if manifest.counts.keypoints else []),
        (layout.COCO_DATASET, "COCO images and categories"),
        (layout.MANIFEST, "the manifest"),
    ]
    if manifest.counts.annotated:
        places.append((f"{layout.ANNOTATED_FOLDER}/", "pictures with boxes"))
    width = max(len(storage.join(root, place)) for place, _ in places)
    return [f"{storage.join(root, place):<{width}}  {text}" for place, text in places]
