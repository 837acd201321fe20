"""Beyond average precision: confusion, calibration, best F1 and the costs of errors, from sums that merge.

A state holds 21 bytes a detection that is not ignored, at most 12 a truth, and 16 for each cell of the confusion matrix
that is not 0. What comes of it depends on the images alone, not on the order in which they were added.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.evaluation import errors_tide
from beam_jobs.evaluation.errors_tide import ErrorCosts
from beam_jobs.evaluation.matching import IGNORED, MISSED, Matches
from beam_jobs.evaluation.scores import Calibration, best_f1, calibration
from beam_jobs.formats.matches import ERRORS

#: Best F1 of each category; nulls for those without truths, `score` also for those without detections.
BEST_F1 = pa.schema(
    [
        pa.field("category_id", pa.int32(), False),
        pa.field("category", pa.string(), False),
        pa.field("truths", pa.int64(), False),
        pa.field("detections", pa.int64(), False),
        pa.field("f1", pa.float64(), True),
        pa.field("score", pa.float64(), True),
        pa.field("precision", pa.float64(), True),
        pa.field("recall", pa.float64(), True),
    ]
)

_WON = 16  # added to the code of a localisation error whose correction finds a truth
_RIGHT = 15  # the code of true positives


@dataclass(frozen=True, slots=True)
class DiagnosticsResult:
    """What people read.

    Args:
        category_ids: ascending, K.
        confusion: int64 [K + 1, K + 1], rows the truth's category, columns the detection's, the last is background.
        calibration: None if a score is outside 0 to 1.
        best_f1: rows of `BEST_F1`, by category id.
        errors: TIDE.
    """

    category_ids: tuple[int, ...]
    confusion: NDArray[np.int64]
    calibration: Calibration | None
    best_f1: pa.Table
    errors: ErrorCosts


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """Sums over images. Each image is added once, to one state.

    Args:
        category_ids: ascending, K.
        totals: int64 [3, K], truths that count, that are missed, and that no correction of an error would find.
        detections: parts of columns image_id int64, slot int32, score float64, code uint8; each image in one part.
        incoming: parts of columns slot int32, score float64: classification errors that would find a truth, in the
            category of the truth.
        confusion: parts of columns cell int64, count int64.
    """

    category_ids: tuple[int, ...]
    totals: NDArray[np.int64]
    detections: tuple[tuple[NDArray[Any], ...], ...]
    incoming: tuple[tuple[NDArray[Any], ...], ...]
    confusion: tuple[tuple[NDArray[Any], ...], ...]

    @staticmethod
    def empty(category_ids: tuple[int, ...]) -> Diagnostics:
        """No images."""
        return Diagnostics(category_ids, np.zeros((3, len(category_ids)), np.int64), (), (), ())

    @staticmethod
    def of(matches: Matches, category_ids: tuple[int, ...]) -> Diagnostics:
        """The images of `matches`, which were made with these categories."""
        found, truths = matches.found, matches.truths
        kinds = (matches.truth_outcome != IGNORED, matches.truth_outcome == MISSED, matches.truth_error >= 0)
        totals = np.array([np.bincount(truths.slot[kind], minlength=len(category_ids)) for kind in kinds], np.int64)
        kept = matches.outcome != IGNORED
        wins = matches.wins >= 0
        code = np.where(matches.error < 0, _RIGHT, matches.error)
        code = np.where(wins & (matches.error == errors_tide.LOCALISATION), code + _WON, code).astype(np.uint8)
        moved = wins & (matches.error == errors_tide.CLASSIFICATION)
        cell, count = np.unique(matches.confusion, return_counts=True)
        return Diagnostics(
            category_ids,
            totals,
            ((found.image_id[kept], found.slot[kept].astype(np.int32), found.score[kept], code[kept]),),
            ((truths.slot[matches.wins[moved]].astype(np.int32), found.score[moved]),),
            ((cell, count.astype(np.int64)),),
        )

    @staticmethod
    def merge(states: Iterable[Diagnostics]) -> Diagnostics:
        """The images of all; in any order.

        Raises:
            ValueError: no states, or of different categories.
        """
        every = list(states)
        if len({state.category_ids for state in every}) != 1:
            raise ValueError("states merge that have the same categories, and at least one")
        confusion = _columns([part for state in every for part in state.confusion], np.int64, np.int64)
        return Diagnostics(
            every[0].category_ids,
            np.sum([state.totals for state in every], axis=0),
            tuple(part for state in every for part in state.detections),
            tuple(part for state in every for part in state.incoming),
            (_summed(*confusion),),
        )

    def to_bytes(self) -> bytes:
        """As numpy's `.npz`, for `from_bytes`."""
        file = io.BytesIO()
        names = {"ids": np.array(self.category_ids, np.int64), "totals": self.totals}
        for name, columns in (
            ("detections", _columns(self.detections, np.int64, np.int32, np.float64, np.uint8)),
            ("incoming", _columns(self.incoming, np.int32, np.float64)),
            ("confusion", _columns(self.confusion, np.int64, np.int64)),
        ):
            names |= {f"{name}{index}": column for index, column in enumerate(columns)}
        np.savez(file, allow_pickle=False, **names)
        return file.getvalue()

    @staticmethod
    def from_bytes(data: bytes) -> Diagnostics:
        """The state of `to_bytes`."""
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            detections = tuple(file[f"detections{index}"] for index in range(4))
            incoming = tuple(file[f"incoming{index}"] for index in range(2))
            confusion = tuple(file[f"confusion{index}"] for index in range(2))
            return Diagnostics(tuple(file["ids"].tolist()), file["totals"], (detections,), (incoming,), (confusion,))

    def finish(self, categories: Mapping[int, str]) -> DiagnosticsResult:
        """The numbers.

        Args:
            categories: names by category id; what is not there is called by its number.
        """
        count = len(self.category_ids)
        image_id, slot, score, code = _columns(self.detections, np.int64, np.int32, np.float64, np.uint8)
        # Equal scores as in pycocotools, by image, in an image by rank.
        order = np.lexsort((image_id, -score, slot))
        del image_id
        slot, score, code = slot[order].astype(np.int64), score[order], code[order]
        right = code == _RIGHT
        won = code >= _WON
        kind = np.where(right, -1, code % _WON).astype(np.int8)
        bounds = np.searchsorted(slot, np.arange(count + 1))
        moved_slot, moved_score = _columns(self.incoming, np.int32, np.float64)
        moved = np.lexsort((-moved_score, moved_slot))
        moved_slot, moved_score = moved_slot[moved], moved_score[moved]
        moved_bounds = np.searchsorted(moved_slot, np.arange(count + 1))

        costs, rows = [], []
        for index, number in enumerate(self.category_ids):
            here = slice(bounds[index], bounds[index + 1])
            truths, missed, uncovered = self.totals[:, index].tolist()
            row = {"category_id": number, "category": categories.get(number, str(number)), "truths": truths}
            row["detections"] = here.stop - here.start
            if truths:
                best = best_f1(score[here], right[here], truths)
                row |= {"f1": best.f1, "score": best.score, "precision": best.precision, "recall": best.recall}
                incoming = moved_score[moved_bounds[index] : moved_bounds[index + 1]]
                costs.append(
                    errors_tide.category_costs(kind[here], won[here], score[here], incoming, truths, missed, uncovered)
                )
            rows.append(row)

        counts = np.bincount(kind[~right], minlength=len(ERRORS))
        counts[errors_tide.MISSED] = self.totals[2].sum()
        confusion = np.zeros((count + 1) ** 2, np.int64)
        cell, times = _columns(self.confusion, np.int64, np.int64)
        np.add.at(confusion, cell, times)
        return DiagnosticsResult(
            self.category_ids,
            confusion.reshape(count + 1, count + 1),
            calibration(slot, score, right, self.category_ids),
            pa.Table.from_pylist(rows, BEST_F1),
            errors_tide.errors_costs(np.array(costs), counts),
        )


def _columns(parts: Iterable[tuple[NDArray[Any], ...]], *kinds: type) -> tuple[NDArray[Any], ...]:
    every = list(parts)
    return tuple(
        np.concatenate([np.empty(0, kind), *(part[index] for part in every)]) for index, kind in enumerate(kinds)
    )


def _summed(cell: NDArray[Any], count: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    cells, place = np.unique(cell, return_inverse=True)
    total = np.zeros(len(cells), np.int64)
    np.add.at(total, place, count)
    return cells, total
