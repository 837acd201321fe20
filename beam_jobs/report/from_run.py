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
from beam_jobs.report.gallery import Candidate, Gallery, Marked
from beam_jobs.runs.manifest import Manifest, table_files
from beam_jobs.runs.parts import read_table

_BINS = 20
_BOX_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 11, 16, 21, 31, 51, 101, 201)
_STEPS = ("read", "decode", "infer", "annotate")
_EXAMPLES = 3
_MOST_PICTURES = 96
#: Boxes below this score are not drawn, and a picture shows at most so many.
_SHOWN_SCORE = 0.3
_SHOWN_BOXES = 40


def run_content(root: str, read: Callable[[str], bytes], *, title: str = "", budget: int | None = None) -> RunContent:
    """What `beam-detect report` shows of a run.

    Args:
        root: the folder of a finished run.
        read: the bytes of a picture by its `uri`; may raise `InputError` or `OSError`.
        budget: bytes of the pictures in the page; 0 for no gallery.

    Raises:
        UsageError: `root` is not a finished run.
    """
    manifest = Manifest.read(root)
    detections = _Detections()
    for table in _tables(root, manifest, "detections"):
        detections.add(table)
    boxes: NDArray[np.int64] = np.concatenate(
        [np.zeros(0, np.int64), *(table["num_detections"].to_numpy() for table in _tables(root, manifest, "images"))]
    )
    counts = manifest.counts
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
    gallery = () if budget == 0 else _gallery(root, manifest, read, budget)
    return RunContent(
        title or "What was found",
        manifest.model.name,
        facts,
        (
            ("pictures", counts.images),
            ("detections", counts.detections),
            ("classes found", len(detections.classes)),
            ("failures", counts.failed),
            ("inputs", counts.inputs),
            ("pictures with detections", counts.images_with_detections),
            ("boxes without area", counts.empty_boxes),
            ("detector processes", manifest.detector.processes),
        ),
        manifest.pictures_per_s,
        detections.rows(),
        Histogram(_EDGES, (Series("detections", tuple(detections.scores.tolist())),)),
        _boxes_per_picture(boxes),
        _failures(root, manifest),
        _steps(root, manifest),
        tuple((name.replace("_", " "), value) for name, value in manifest.stage_s.items()),
        gallery,
    )


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
    """Sums over the detections of a run, by class. The detections of a picture are all in one table."""

    classes: dict[int, _Class] = field(default_factory=dict)
    scores: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))

    def add(self, table: pa.Table) -> None:
        ids, scores = table["category_id"].to_numpy(), table["score"].to_numpy().astype(np.float64)
        images = table["image_id"].to_numpy()
        bins = np.clip((scores * _BINS).astype(np.int64), 0, _BINS - 1)
        self.scores += np.bincount(bins, minlength=_BINS)
        unique, first = np.unique(ids, return_index=True)
        for category_id, i in zip(unique.tolist(), first.tolist(), strict=True):
            chosen = ids == category_id
            entry = self.classes.setdefault(category_id, _Class(table["category"][i].as_py()))
            entry.detections += int(chosen.sum())
            entry.images += len(np.unique(images[chosen]))
            entry.score += float(scores[chosen].sum())
            entry.best = max(entry.best, float(scores[chosen].max()))
            entry.scores += np.bincount(bins[chosen], minlength=_BINS)

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
    rows = []
    for step in _STEPS:
        values = timings[f"{step}_ms"].to_numpy().astype(np.float64)
        if values.any():
            total, mean = float(values.sum()) / 1000, float(values.mean())
            rows.append(StepTimes(step, total, mean, *np.percentile(values, (50, 95, 100)).tolist()))
    return tuple(rows)


def _gallery(
    root: str, manifest: Manifest, read: Callable[[str], bytes], budget: int | None
) -> tuple[GalleryItem, ...]:
    """Pictures spread evenly over the run: what one would see by leafing through it."""
    total = manifest.counts.images
    wanted = set(np.linspace(0, total - 1, min(total, _MOST_PICTURES)).astype(int).tolist()) if total else set()
    candidates, position = [], 0
    for images, path in zip(_all(root, manifest, "images"), table_files(manifest.files, "detections"), strict=True):
        rows = [i for i in range(len(images)) if position + i in wanted]
        position += len(images)
        if rows:
            detections = read_table(root, path)
            candidates += [_candidate(image, detections) for image in images.take(rows).to_pylist()]
    made = Gallery(read) if budget is None else Gallery(read, budget=budget)
    return made.items(candidates)


def _all(root: str, manifest: Manifest, name: str) -> Iterator[pa.Table]:
    return (read_table(root, path) for path in table_files(manifest.files, name))


def _candidate(image: dict[str, object], detections: pa.Table) -> Candidate:
    same = pc.and_(pc.equal(detections["image_id"], image["image_id"]), pc.equal(detections["frame"], image["frame"]))
    rows = detections.filter(pc.and_(same, pc.greater_equal(detections["score"], _SHOWN_SCORE))).to_pylist()
    rows.sort(key=lambda row: row["rank"])
    boxes = tuple(
        Marked(
            (row["xmin"], row["ymin"], row["xmax"], row["ymax"]),
            f"{row['category']} {row['score']:.2f}",
            "class",
            row["category_id"],
        )
        for row in rows[:_SHOWN_BOXES]
    )
    found = Counter(row["category"] for row in rows)
    said = ", ".join(f"{n} × {name}" for name, n in found.most_common(4)) or f"nothing of a score from {_SHOWN_SCORE}"
    return Candidate("picture", str(image["uri"]), str(image["file_name"]), tuple(found), said, boxes)
