"""The pictures of the page of two runs: those that changed most, as A has them and as B has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_jobs.evaluation.matching import MatchSettings, match_batch, matches_table
from beam_jobs.evaluation.settings import EvaluationSettings
from beam_jobs.formats.evaluated import GroundTruth
from beam_jobs.formats.image_join import Joined
from beam_jobs.report.content import GalleryItem, GalleryKind
from beam_jobs.report.evaluation_gallery import marked
from beam_jobs.report.gallery import Candidate, Gallery, Marked
from beam_jobs.report.pictures import pictures_of, run_manifest
from beam_jobs.report.shapes import shapes_of

#: In each direction.
PICKS = 12


@dataclass(frozen=True, slots=True)
class ComparedSide:
    """Results of one side.

    Args:
        source: as the user named it.
        results: rows of `RESULTS` with the truth's image ids, of the classes that are compared.
        joined: which of its images is which of the truth.
    """

    source: str
    results: pa.Table
    joined: Joined


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """An image to show: whether B is better or worse, and what is said of it."""

    image_id: int
    kind: GalleryKind
    caption: str


def compare_gallery(
    changed: Sequence[ChangedImage],
    truth: GroundTruth,
    sides: tuple[ComparedSide, ComparedSide],
    settings: EvaluationSettings,
    *,
    iou_threshold: float,
    min_score: float,
    images: str = "",
) -> tuple[GalleryItem, ...] | None:
    """The pictures of images, twice each: with what A and what B has right, wrong and missed.

    Args:
        iou_threshold, min_score: from which on a detection is right, and from which score on it is shown.
        images: the folder of the truth's pictures, empty if nobody named one.

    Returns:
        None if nothing says where the pictures are.
    """
    runs = [(side.source, run_manifest(side.source), side.joined) for side in sides]
    if not images and not any(manifest for _, manifest, _ in runs):
        return None
    wanted = pa.array(sorted({one.image_id for one in changed}), pa.int64())
    pictures = pictures_of(wanted.to_pylist(), truth.images, runs, images)
    shown, objects = (
        table.filter(pc.is_in(table["image_id"], value_set=wanted)) for table in (truth.images, truth.objects)
    )
    drawn = [_drawn(side, shown, objects, truth.categories, settings, iou_threshold, min_score) for side in sides]
    candidates = []
    for one in changed:
        a, b = (side.get(one.image_id, []) for side in drawn)
        classes = tuple(dict.fromkeys(truth.categories[box.category_id] for box in (*a, *b)))
        name = _name(shown, one.image_id)
        candidates.append(Candidate(one.kind, str(one.image_id), name, classes, one.caption, tuple(a), tuple(b)))
    return Gallery(lambda source: pictures.read(int(source))).items(candidates)


def _drawn(
    side: ComparedSide,
    images: pa.Table,
    objects: pa.Table,
    names: Mapping[int, str],
    settings: EvaluationSettings,
    iou_threshold: float,
    min_score: float,
) -> dict[int, list[Marked]]:
    """By image, first what is wrong, then what is missed, then what is right."""
    wanted = pc.is_in(side.results["image_id"], value_set=images["image_id"].combine_chunks())
    results = side.results.filter(wanted)
    matches = match_batch(images, objects, results, settings, MatchSettings(iou_threshold=iou_threshold))
    table = matches_table(matches, images, objects, results, settings, names)
    shapes = shapes_of(settings.iou_type, images["image_id"].to_pylist(), objects, [results])
    found: dict[int, list[Marked]] = {}
    ordered = sorted(table.to_pylist(), key=lambda row: (_ORDER.get(row["outcome"], 0), -(row["score"] or 0)))
    for row in ordered:
        role = _role(row, min_score)
        if role:
            found.setdefault(row["image_id"], []).append(replace(marked(row, shapes, names), role=role))
    return found


_ORDER = {"FP": 0, "missed": 1, "found": 1, "TP": 2}


def _role(row: Mapping[str, Any], min_score: float) -> Any:
    """How a match is drawn; None where it is not: a truth that was found is where its detection is."""
    sure = row["score"] is not None and row["score"] >= min_score
    match row["outcome"]:
        case "TP":
            return "right" if sure else None
        case "FP":
            return "detection" if sure else None
        case "missed":
            return "truth"
        case "found":
            return None if sure else "truth"
    return None


def _name(images: pa.Table, image_id: int) -> str:
    name: str = images.filter(pc.equal(images["image_id"], image_id))["file_name"][0].as_py()
    return name
