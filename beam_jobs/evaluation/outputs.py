"""What an evaluation writes: `metrics.json`, tables by class and of curves, the matches of all shards in one file."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from beam_jobs import storage
from beam_jobs.evaluation.diagnostics import DiagnosticsResult
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.formats.evaluated import EVALUATION_FILES, METRICS, SHARDS_FOLDER
from beam_jobs.formats.matches import MATCHES

#: All files of an evaluation but for `metrics.json`.
FILES = EVALUATION_FILES[1:]
PER_CATEGORY, PER_CATEGORY_CSV, CURVES, MATCHES_FILE, REPORT = FILES
METRICS_VERSION = 1


class Metrics(msgspec.Struct, frozen=True):
    """The whole of `metrics.json`.

    Args:
        metrics: by COCO's names; -1 where nothing counts.
        counts: images, truths, detections, and what was left out.
        errors: AP lost to each kind of error (TIDE), in AP.
        unseen_images: names of images of the truth that the results do not have, the first few.
        unknown_images: names of images of the results that the truth does not have, the first few.
        files: the files of the evaluation, by name.
    """

    version: int
    metrics: dict[str, float]
    iou_type: str
    settings: dict[str, Any]
    engine: str
    detections: str
    ground_truth: str
    counts: dict[str, int]
    errors: dict[str, float]
    unseen_images: list[str]
    unknown_images: list[str]
    warnings: list[str]
    versions: dict[str, str]
    files: list[str]

    @staticmethod
    def read(root: str) -> Metrics:
        """The metrics of an evaluation."""
        return msgspec.json.decode(storage.read_bytes(storage.join(root, METRICS)), type=Metrics)

    def write(self, root: str) -> None:
        """Writes `metrics.json`, which is the last file of an evaluation."""
        data = msgspec.json.format(msgspec.json.encode(self), indent=1)
        storage.write_atomic(storage.join(root, METRICS), data + b"\n")


def describe(settings: EvaluationSettings, categories: Mapping[int, str]) -> dict[str, Any]:
    """The settings as plain JSON."""
    return {
        "iou_thresholds": list(settings.iou_thresholds),
        "area_ranges": [{"label": a.label, "low": a.low, "high": a.high} for a in settings.area_ranges],
        "max_detections": list(settings.max_detections),
        "categories": {str(i): categories[i] for i in settings.category_ids},
    }


def errors(diagnostics: DiagnosticsResult) -> dict[str, float]:
    """What each kind of error costs, in AP at IoU 0.5."""
    return dict(diagnostics.errors.delta_ap)


def remove_shards(root: str) -> None:
    """Takes away what the shards needed."""
    folder = storage.join(root, SHARDS_FOLDER)
    try:
        names = storage.list_dir(folder)
    except FileNotFoundError:
        return
    for name in names:
        storage.remove(storage.join(folder, name))
    with contextlib.suppress(OSError):
        storage.remove_dir(folder)


def write_parquet(root: str, path: str, table: pa.Table) -> None:
    """Writes a table below `root`."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    storage.write_atomic(storage.join(root, path), sink.getvalue())


def write_per_category(root: str, table: pa.Table) -> None:
    """Writes the table by class, as Parquet and as CSV for people."""
    write_parquet(root, PER_CATEGORY, table)
    sink = io.BytesIO()
    pyarrow.csv.write_csv(table, sink)
    storage.write_atomic(storage.join(root, PER_CATEGORY_CSV), sink.getvalue())


def join_matches(root: str, paths: Iterable[str]) -> int:
    """Joins the matches of all shards, in their order, into one file; returns its rows. One shard is in memory."""
    rows = 0
    with (
        storage.atomic_writer(storage.join(root, MATCHES_FILE)) as out,
        pq.ParquetWriter(out, MATCHES, compression="zstd") as writer,
    ):
        for path in paths:
            # In this thread: see `runs.parts.read_table`.
            options = pa.ipc.IpcReadOptions(use_threads=False)
            with pa.ipc.open_stream(storage.read_bytes(storage.join(root, path)), options=options) as stream:
                table = stream.read_all()
            if table.num_rows:
                writer.write_table(table.cast(MATCHES))
            rows += table.num_rows
    return rows
