"""What a page takes from the matches of an evaluation, a row group at a time: they may be of millions of pictures."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.evaluation.settings import AreaRange
from beam_jobs.report.content import GalleryKind, Histogram, Series

_BINS = 20
_EDGES = tuple(i / _BINS for i in range(_BINS + 1))
_OUTCOMES = {"TP": "true positives", "FP": "false positives", "ignored": "ignored"}
_COLUMNS = ["image_id", "kind", "category_id", "detection", "truth_id", "score", "outcome", "iou", "area", "iscrowd"]

#: Category, how much one wants to see it, image, and number: of the detection, of what was missed that of the truth.
_Rows = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class Pick:
    """Something to look at: a detection by its number in the image, or, for `missed`, a truth by its id."""

    kind: GalleryKind
    image_id: int
    number: int


@dataclass(frozen=True, slots=True)
class MatchSums:
    """What was seen in all matches.

    Args:
        score_bins: None without detections, or where a score is outside 0 to 1.
        truths: of each area range, the truths that count.
        picks: the most confident false positives, the largest missed truths, the best hits, in this order.
    """

    score_bins: Histogram | None
    truths: tuple[int, ...]
    picks: tuple[Pick, ...]


def sum_matches(path: str, areas: Sequence[AreaRange], picks: int) -> MatchSums:
    """Looks through `matches.parquet`.

    Args:
        areas: the first is the one over all sizes.
        picks: of each kind.
    """
    counts = np.zeros((len(_OUTCOMES), _BINS), np.int64)
    truths = np.zeros(len(areas), np.int64)
    is_share = True
    best: dict[GalleryKind, _Rows] = {}
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        for group in range(parquet.num_row_groups):
            # In this thread, as for the tables of a run: see `runs.parts`.
            table = parquet.read_row_group(group, columns=_COLUMNS, use_threads=False)
            score, area = table["score"].to_numpy(), table["area"].to_numpy()
            found = _is(table, "kind", "detection")
            outcomes = {name: _is(table, "outcome", name) for name in (*_OUTCOMES, "missed")}
            for row, name in enumerate(_OUTCOMES):
                some = score[found & outcomes[name]]
                is_share &= bool(np.all((some >= 0) & (some <= 1)))
                counts[row] += np.bincount(np.clip(some * _BINS, 0, _BINS - 1).astype(np.int64), minlength=_BINS)
            truths += _truths_by_area(table, area, ~found, outcomes["ignored"], areas)
            wanted: tuple[tuple[GalleryKind, NDArray[np.bool_], NDArray[np.float64], str], ...] = (
                ("false_positive", found & outcomes["FP"], score, "detection"),
                ("missed", ~found & outcomes["missed"] & ~table["iscrowd"].to_numpy(), area, "truth_id"),
                ("hit", found & outcomes["TP"], score * table["iou"].to_numpy(), "detection"),
            )
            for kind, chosen, key, number in wanted:
                rows = _rows(table, np.flatnonzero(chosen), key, number)
                if kind in best:
                    rows = tuple(np.concatenate(pair) for pair in zip(best[kind], rows, strict=True))  # type: ignore[assignment]
                best[kind] = _spread(rows, picks)
    series = tuple(Series(label, tuple(row)) for label, row in zip(_OUTCOMES.values(), counts.tolist(), strict=True))
    made = [
        Pick(kind, image_id, number)
        for kind, rows in best.items()
        for image_id, number in zip(rows[2].tolist(), rows[3].tolist(), strict=True)
    ]
    return MatchSums(
        Histogram(_EDGES, series) if is_share and counts.any() else None, tuple(truths.tolist()), tuple(made)
    )


def rows_of(path: str, image_ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
    """All rows of some images of `matches.parquet`, by image."""
    wanted = pa.array(sorted(image_ids), pa.int64())
    rows: dict[int, list[dict[str, Any]]] = {number: [] for number in image_ids}
    with storage.open_read(path) as file:
        parquet = pq.ParquetFile(file, pre_buffer=False)
        for group in range(parquet.num_row_groups):
            chosen = pc.is_in(
                parquet.read_row_group(group, columns=["image_id"], use_threads=False)["image_id"], value_set=wanted
            )
            if pc.any(chosen).as_py():
                for row in parquet.read_row_group(group, use_threads=False).filter(chosen).to_pylist():
                    rows[row["image_id"]].append(row)
    return rows


def _is(table: pa.Table, column: str, value: str) -> NDArray[np.bool_]:
    return np.asarray(pc.equal(table[column], value))


def _truths_by_area(
    table: pa.Table,
    area: NDArray[np.float64],
    is_truth: NDArray[np.bool_],
    ignored: NDArray[np.bool_],
    areas: Sequence[AreaRange],
) -> list[int]:
    """Outcomes are of the first range: what it ignores may still count in one that is not within it."""
    crowd = table["iscrowd"].to_numpy()
    counts = []
    for one in areas:
        within = areas[0].low <= one.low and one.high <= areas[0].high
        out = ignored if within else crowd
        counts.append(int(np.count_nonzero(is_truth & ~out & (area >= one.low) & (area <= one.high))))
    return counts


def _rows(table: pa.Table, chosen: NDArray[np.int64], key: NDArray[np.float64], number: str) -> _Rows:
    taken = table.select(["category_id", "image_id", number]).take(pa.array(chosen))
    category, image_id, numbers = (column.to_numpy().astype(np.int64) for column in taken.columns)
    return category, key[chosen], image_id, numbers


def _spread(rows: _Rows, most: int) -> _Rows:
    """The first of each class, by how much one wants to see them, then the second of each, …: at most so many.

    What is left out of some rows is also left out of those and others, so that rows may come piece by piece.
    """
    category, key, image_id, number = rows
    order = np.lexsort((number, image_id, -key, category))
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order)) - np.searchsorted(category[order], category[order])
    best = np.lexsort((number, image_id, -key, turn))[:most]
    return category[best], key[best], image_id[best], number[best]
