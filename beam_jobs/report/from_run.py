"""What the page of a run shows, out of the run's folder: its manifest and its tables, a file at a time."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs.report.content import (
    FailureRow,
    FoundCategory,
    GalleryItem,
    Histogram,
    RunContent,
    Series,
    StepTimes,
)
from beam_jobs.report.found_pictures import found_picture
from beam_jobs.report.from_clips import clips_content
from beam_jobs.report.gallery import Gallery
from beam_jobs.runs.manifest import Manifest, table_files
from beam_jobs.runs.parts import read_table, read_tables
from beam_jobs.words import counted

_BINS = 20
_BOX_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51, 101, 201)
_STEPS = ("read", "decode", "infer", "annotate")
_EXAMPLES = 3
_MOST_PICTURES = 96
#: The least score of what is counted and drawn, as on annotated pictures.
DEFAULT_MIN_SCORE = 0.3
#: What the launcher does in a stage of `run.json`.
_STAGES = {
    "model_files": "find the model",
    "plan": "find the inputs",
    "dedupe": "find copies",
    "model_form": "choose a form",
    "start": "start Beam",
    "model_open": "open the model",
    "plan_write": "write the plan",
    "detect": "detect",
    "annotate": "draw on clips",
    "finalise": "write COCO files",
}


def run_content(
    root: str,
    read: Callable[[str], bytes],
    *,
    title: str = "",
    min_score: float = DEFAULT_MIN_SCORE,
    budget: int | None = None,
    folder: str = "",
) -> RunContent:
    """What `beam-detect report` shows of a run.

    Args:
        root: the folder of a finished run.
        read: the bytes of a picture by its `uri`; may raise `InputError` or `OSError`.
        min_score: the least score of what is counted and drawn.
        budget: bytes of the pictures in the page; 0 for no gallery.
        folder: the run's as the page links to it; empty for no links.

    Raises:
        UsageError: `root` is not a finished run.
    """
    manifest = Manifest.read(root)
    detections = _Detections(min_score)
    pairs = zip(_all(root, manifest, "images"), _all(root, manifest, "detections"), strict=True)
    boxes: NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *(detections.add(*pair) for pair in pairs)])
    counts = manifest.counts
    found = sum(entry.detections for entry in detections.classes.values())
    facts = (
        ("Model", f"{manifest.model.name} ({manifest.model.engine})"),
        ("Fingerprint", manifest.model.fingerprint),
        ("Command", " ".join(manifest.command)),
        ("Program", f"beam-detect {manifest.program_version}"),
        ("Started", manifest.started),
        ("Ended", manifest.ended),
        *manifest.versions.items(),
        *manifest.machine.items(),
    )
    gallery = () if budget == 0 else _gallery(root, manifest, read, min_score, budget)
    stages = [(_STAGES.get(name, name), value) for name, value in manifest.stage_s.items() if name != "total"]
    total_s = manifest.stage_s.get("total")
    if total_s is not None and "other" not in manifest.stage_s:  # as runs of earlier versions
        stages.append(("other", max(total_s - sum(value for _, value in stages), 0.0)))
    return RunContent(
        title or "What was found",
        manifest.model.name,
        facts,
        (
            ("pictures", counts.images),
            ("detections", found),
            ("classes found", len(detections.classes)),
            ("failures", counts.failed),
            ("inputs", counts.inputs),
            ("pictures with detections", int((boxes > 0).sum())),
            (f"detections of a score below {min_score:g}", counts.detections - found),
            ("boxes without area", counts.empty_boxes),
            ("detector processes", manifest.detector.processes),
            *_of_videos(manifest),
        ),
        manifest.pictures_per_s,
        detections.rows(),
        Histogram(_EDGES, (Series("detections", tuple(detections.scores.tolist())),)),
        _boxes_per_picture(boxes),
        _failures(root, manifest),
        min_score,
        counts.detections - found,
        _steps(root, manifest),
        _steps_note(manifest),
        tuple(stages),
        total_s,
        gallery,
        clips=clips_content(root, manifest, min_score, budget, folder),
    )


def _of_videos(manifest: Manifest) -> list[tuple[str, int]]:
    counts = manifest.counts
    shown = [
        ("clips", counts.clips),
        ("clips without a frame that was asked for", counts.clips_without_frames),
        ("live streams", counts.streams),
        ("frames dropped", counts.dropped_frames),
    ]
    return [(name, number) for name, number in shown if number]


_EDGES = tuple(i / _BINS for i in range(_BINS + 1))


@dataclass(slots=True)
class _Class:
    """Sums over the detections of a class."""

    name: str
    detections: int = 0
    images: int = 0
    score: float = 0.0
    best: float = 0.0
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))


@dataclass(slots=True)
class _Detections:
    """Sums over the detections of a run, by class: of those of `min_score` or more, but for the scores of all."""

    min_score: float
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    _all: dict[int, _Class] = field(default_factory=dict)

    def add(self, pictures: pa.Table, table: pa.Table) -> NDArray[np.int64]:
        """Takes a part; gives the number of detections that count in each of its pictures."""
        ids, scores = table["category_id"].to_numpy(), table["score"].to_numpy()
        images = table["image_id"].to_numpy()
        sure = scores >= np.float32(self.min_score)
        scores = scores.astype(np.float64)
        bins = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
        self.scores += np.bincount(bins, minlength=_BINS)
        unique, first = np.unique(ids, return_index=True)
        for category_id, i in zip(unique.tolist(), first.tolist(), strict=True):
            of_class = ids == category_id
            entry = self._all.setdefault(category_id, _Class(table["category"][i].as_py()))
            entry.scores += np.bincount(bins[of_class], minlength=_BINS)
            chosen = of_class & sure
            if chosen.any():
                entry.detections += int(chosen.sum())
                entry.images += len(np.unique(images[chosen]))
                entry.score += float(scores[chosen].sum())
                entry.best = max(entry.best, float(scores[chosen].max()))
        of_all = pictures["image_id"].to_numpy()
        order = np.argsort(of_all)
        place = order[np.searchsorted(of_all, images[sure], sorter=order)]
        return np.bincount(place, minlength=len(of_all))

    @property
    def classes(self) -> dict[int, _Class]:
        """Those that were found."""
        return {number: entry for number, entry in self._all.items() if entry.detections}

    def rows(self) -> tuple[FoundCategory, ...]:
        return tuple(
            FoundCategory(
                category_id,
                entry.name,
                entry.detections,
                entry.images,
                entry.score / entry.detections,
                entry.best,
                tuple(entry.scores.tolist()),
            )
            for category_id, entry in sorted(self.classes.items())
        )


def _tables(root: str, manifest: Manifest, name: str) -> Iterator[pa.Table]:
    for path in table_files(manifest.files, name):
        if path.endswith(".parquet"):
            table = read_table(root, path)
            if len(table):
                yield table


def _boxes_per_picture(boxes: NDArray[np.int64]) -> Histogram:
    last = next((i for i, edge in enumerate(_BOX_EDGES) if edge > max(boxes, default=0)), len(_BOX_EDGES))
    edges = (
        *map(float, _BOX_EDGES[: max(last, 1)]),
        float("inf") if last == len(_BOX_EDGES) else float(_BOX_EDGES[last]),
    )
    counts = [int(((boxes >= low) & (boxes < high)).sum()) for low, high in pairwise(edges)]
    return Histogram(edges, (Series("pictures", tuple(counts)),))


def _failures(root: str, manifest: Manifest) -> tuple[FailureRow, ...]:
    counts: Counter[tuple[str, str]] = Counter()
    messages: dict[tuple[str, str], str] = {}
    examples: dict[tuple[str, str], list[str]] = defaultdict(list)
    for table in _tables(root, manifest, "failures"):
        for row in table.select(["code", "stage", "message", "file_name"]).to_pylist():
            key = (row["code"], row["stage"])
            counts[key] += 1
            messages.setdefault(key, row["message"])
            if len(examples[key]) < _EXAMPLES:
                examples[key].append(row["file_name"])
    ordered = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(FailureRow(*key, n, messages[key], tuple(examples[key])) for key, n in ordered)


def _steps(root: str, manifest: Manifest) -> tuple[StepTimes, ...]:
    tables = list(_tables(root, manifest, "timings"))
    if not tables:
        return ()
    timings = pa.concat_tables(tables)
    columns = {step: timings[f"{step}_ms"].to_numpy().astype(np.float64) for step in _STEPS}
    columns["all"] = np.sum(list(columns.values()), axis=0)
    return tuple(
        StepTimes(
            step,
            float(values.sum()) / 1000,
            float(values.mean()),
            *np.percentile(values, (50, 95, 100)).tolist(),
        )
        for step, values in columns.items()
        if values.any()
    )


def _steps_note(manifest: Manifest) -> str:
    detector = manifest.detector
    of = counted(detector.processes, "detector process", "detector processes")
    opened = f" Before, opening the detector took each {detector.load_s:.1f} s." if detector.loads else ""
    return f"Time of {of} together; while one detects, it reads the next files.{opened}"


def _gallery(
    root: str, manifest: Manifest, read: Callable[[str], bytes], min_score: float, budget: int | None
) -> tuple[GalleryItem, ...]:
    """Pictures spread evenly over the run: what one would see by leafing through it."""
    total = sum(images["video"].null_count for images in _all(root, manifest, "images"))
    wanted = np.unique(np.linspace(0, total - 1, min(total, _MOST_PICTURES)).astype(int))
    candidates, position = [], 0
    for images, path in zip(_all(root, manifest, "images"), table_files(manifest.files, "detections"), strict=True):
        pictures = images.filter(pc.is_null(images["video"]))  # frames are shown with their clips
        rows = wanted[(wanted >= position) & (wanted < position + len(pictures))] - position
        position += len(pictures)
        if len(rows):
            detections = read_table(root, path)
            candidates += [found_picture(image, detections, min_score) for image in pictures.take(rows).to_pylist()]
    made = Gallery(read) if budget is None else Gallery(read, budget=budget)
    return made.items(candidates)


def _all(root: str, manifest: Manifest, name: str) -> Iterator[pa.Table]:
    return read_tables(root, table_files(manifest.files, name))
