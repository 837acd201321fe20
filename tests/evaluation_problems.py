"""Evaluations to be solved: small, random, and full of what evaluations trip over."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pycocotools import mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from beam_jobs.evaluation.settings import COCO_IOU_THRESHOLDS, AreaRange, EvaluationSettings
from beam_jobs.formats.evaluated import RESULTS, TRUTH_IMAGES, TRUTH_OBJECTS, IouType

WIDTH, HEIGHT = 200, 150
IMAGE_IDS = [0, 1, 2, 3, 7, 42, 99, 1000, 123456, 581929, 2**31, 2**40, 2**53 - 1]
CATEGORY_IDS = [0, 1, 2, 3, 17, 90, 4000, 2**31 - 1]


@dataclass(frozen=True)
class Problem:
    """COCO's JSON (`dataset`, `found`) and the same as tables of the contract.

    `ordinary`: pycocotools reads the JSON as it is, and rightly.
    """

    settings: EvaluationSettings
    dataset: dict[str, Any]
    found: list[dict[str, Any]]
    ordinary: bool = True

    @property
    def images(self) -> pa.Table:
        names = ("id", "file_name", "width", "height")
        columns = [[image.get(name, 0) for image in self.dataset["images"]] for name in names]
        return pa.table(columns, schema=TRUTH_IMAGES)

    @property
    def objects(self) -> pa.Table:
        rows = [
            {
                **_common(truth),
                "truth_id": truth["id"],
                "area": truth["area"],
                "iscrowd": bool(truth["iscrowd"]),
                "num_keypoints": truth.get("num_keypoints", 0),
            }
            for truth in self.dataset["annotations"]
        ]
        return pa.Table.from_pylist(rows, schema=TRUTH_OBJECTS)

    @property
    def results(self) -> pa.Table:
        numbers: dict[int, int] = {}
        rows = []
        for result in self.found:
            number = numbers[result["image_id"]] = numbers.get(result["image_id"], -1) + 1
            rows.append({**_common(result), "detection": number, "score": result["score"]})
        return pa.Table.from_pylist(rows, schema=RESULTS)


def _common(row: dict[str, Any]) -> dict[str, Any]:
    box = row.get("bbox", [np.nan] * 4)
    return {
        "image_id": row["image_id"],
        "category_id": row["category_id"],
        **dict(zip(("x", "y", "width", "height"), box, strict=True)),
        "segmentation": json.dumps(row["segmentation"]).encode() if "segmentation" in row else None,
        "keypoints": row.get("keypoints"),
    }


def plain(problem: Problem) -> COCOeval:
    """pycocotools as its users call it."""
    with contextlib.redirect_stdout(io.StringIO()):
        truths = COCO()
        truths.dataset = copy.deepcopy(problem.dataset)
        truths.createIndex()
        evaluation = COCOeval(truths, truths.loadRes(copy.deepcopy(problem.found)), problem.settings.iou_type)
        evaluation.params.catIds = list(problem.settings.category_ids)
        evaluation.params.iouThrs = np.array(problem.settings.iou_thresholds)
        evaluation.params.maxDets = list(problem.settings.max_detections)
        evaluation.params.areaRng = [[area.low, area.high] for area in problem.settings.area_ranges]
        evaluation.params.areaRngLbl = [area.label for area in problem.settings.area_ranges]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def dataset_of(
    image_ids: Sequence[int], category_ids: Sequence[int], truths: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """A COCO data set of pictures of 200×150."""
    return {
        "info": {},
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in sorted(image_ids)],
        "categories": [{"id": n, "name": f"class {n}"} for n in category_ids],
        "annotations": list(truths),
    }


def truth(number: int, image: int, category: int, box: Sequence[float], crowd: int = 0, **more: Any) -> dict[str, Any]:
    """A COCO annotation."""
    own = {"id": number, "image_id": image, "category_id": category, "bbox": [float(side) for side in box]}
    return {**own, "area": float(box[2] * box[3]), "iscrowd": crowd, **more}


def result(image: int, category: int, score: float, **more: Any) -> dict[str, Any]:
    """A COCO result."""
    return {"image_id": image, "category_id": category, "score": score, **more}


def random_problem(seed: int, iou_type: IouType, most_images: int = 6) -> Problem:
    """Random truths and results, with ties, crowds, gaps, duplicates and boundary cases more often than in life."""
    return _Maker(random.Random(f"{seed} {iou_type}"), iou_type, seed % 7 == 0).problem(most_images)


class _Maker:
    def __init__(self, chance: random.Random, iou_type: IouType, many: bool) -> None:
        self.chance = chance
        self.iou_type = iou_type
        self.many = many
        self.grid = chance.random() < 0.5
        self.score_choice = chance.choice([None, [0.5], [0.1, 0.5, 0.9], [0.0, -0.0, 1.0], [1e-300, -3.0, 7e300]])
        # What the results of a file carry beside the score.
        self.with_box = iou_type == "bbox" or chance.random() < 0.3

    def problem(self, most_images: int) -> Problem:
        chance = self.chance
        images = chance.sample(IMAGE_IDS, chance.randint(1, most_images))
        categories = chance.sample(CATEGORY_IDS, chance.randint(1, 2 if self.iou_type == "keypoints" else 4))
        truths: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        number = chance.choice([1, 1, 500, 0])
        ordinary = number > 0
        for image in images:
            for _ in range(0 if chance.random() < 0.2 else chance.randint(0, 7)):
                one = self.truth(number, image, chance.choice(categories))
                number += chance.randint(1, 3)
                truths.append(one)
                for _ in range(chance.choice([0, 1, 1, 2, 3])):
                    category = one["category_id"] if chance.random() < 0.8 else chance.choice(categories)
                    found.append(self.result(image, category, self.near(one["bbox"]), one))
            extra = chance.choice([99, 100, 101, 130, 250]) if self.many else chance.choice([0, 0, 2, 6])
            found += [self.result(image, chance.choice(categories), self.box(), None) for _ in range(extra)]
        chance.shuffle(found)
        if chance.random() < 0.05:
            found = []
        settings = self.settings(categories)
        dataset = dataset_of(images, categories, truths)
        return Problem(settings, dataset, found, ordinary and bool(found))

    def settings(self, categories: Sequence[int]) -> EvaluationSettings:
        chance = self.chance
        settings = EvaluationSettings.of(self.iou_type, tuple(sorted(categories)))
        if chance.random() < 0.5:
            return settings
        if chance.random() < 0.4:
            thresholds = [(0.5,), (0.75,), (0.5, 0.75, 0.9), (0.3, 0.5, 1.0), (0.1, 0.15, 0.2, 0.55), (1e-9, 0.05)]
            settings = replace(settings, iou_thresholds=chance.choice(thresholds))
        if chance.random() < 0.4:
            few = [(20,), (1,), (5, 20), (100,)]
            many = [(1, 10, 100), (1, 2, 3), (10, 20, 300), (5, 50, 100), (3,), (1, 2, 3, 4)]
            settings = replace(settings, max_detections=chance.choice(few if self.iou_type == "keypoints" else many))
        if chance.random() < 0.4:
            bounds = [(0, 1e10), (0, 400), (400, 2500), (2500, 1e10)][: chance.randint(1, 4)]
            labels = ("all", "small", "medium", "huge")
            ranges = tuple(AreaRange(label, *pair) for label, pair in zip(labels, bounds, strict=False))
            settings = replace(settings, area_ranges=ranges)
        if chance.random() < 0.4:
            some = tuple(sorted(chance.sample(categories, chance.randint(1, len(categories)))))
            settings = replace(settings, category_ids=some)
        return settings

    def box(self) -> list[float]:
        chance, kind = self.chance, self.chance.random()
        if kind < 0.05:
            return [float(chance.randint(0, 50)), float(chance.randint(0, 50)), 0.0, chance.choice([0.0, 20.0])]
        if kind < 0.2:  # areas at and next to a bound
            side = chance.choice([32.0, 96.0, 32.000001, 31.999999])
            return [float(chance.randint(0, 60)), float(chance.randint(0, 40)), side, side]
        box = [chance.uniform(0, 100), chance.uniform(0, 80), chance.uniform(1, 100), chance.uniform(1, 70)]
        if self.grid:
            box = [round(side / 10) * 10.0 for side in box]
            box[2:] = [max(side, 10.0) for side in box[2:]]
        return box

    def near(self, box: list[float]) -> list[float]:
        chance = self.chance
        if chance.random() < 0.3:
            return list(box)
        if self.grid:
            return [box[0] + chance.choice([-10, 0, 0, 10]), box[1] + chance.choice([0, 0, 10]), *box[2:]]
        spread = chance.choice([0.02, 0.1, 0.3])
        x, y = (box[axis] + chance.gauss(0, spread) * box[axis + 2] for axis in (0, 1))
        return [x, y, *(side * (1 + abs(chance.gauss(0, spread))) for side in box[2:])]

    def truth(self, number: int, image: int, category: int) -> dict[str, Any]:
        chance, box = self.chance, self.box()
        one = truth(number, image, category, box, int(chance.random() < 0.2))
        if chance.random() < 0.2:
            one["area"] = chance.choice([1024.0, 9216.0, 1023.999, 1024.001, 0.0, 1e10, 2e10])
        if self.iou_type == "segm":
            kinds = ["counts", "text"] if one["iscrowd"] else ["polygons", "polygons", "counts", "text"]
            one["segmentation"] = self.mask(box, chance.choice(kinds))
        elif self.iou_type == "keypoints":
            one["keypoints"] = self.keypoints(box)
            one["num_keypoints"] = sum(visible > 0 for visible in one["keypoints"][2::3])
            if chance.random() < 0.2:
                one["num_keypoints"] = chance.choice([0, 5])
        return one

    def result(self, image: int, category: int, box: list[float], of: dict[str, Any] | None) -> dict[str, Any]:
        chance = self.chance
        score = chance.choice(self.score_choice) if self.score_choice else chance.random()
        one = result(image, category, score)
        if self.with_box:
            one["bbox"] = box
        if self.iou_type == "segm" and not (self.with_box and chance.random() < 0.2):
            if of and chance.random() < 0.3:
                one["segmentation"] = compressed(of["segmentation"])
            else:
                kind = chance.choice(["polygons", "counts", "text"]) if self.with_box else "text"
                one["segmentation"] = self.mask(box, kind)
        elif self.iou_type == "keypoints":
            points = self.keypoints(box)
            if of and chance.random() < 0.8:
                spread = chance.choice([0, 1, 5])
                points = [at if place % 3 == 2 else at + spread * chance.gauss(0, 1)
                          for place, at in enumerate(of["keypoints"])]  # fmt: skip
            one["keypoints"] = points
        return one

    def mask(self, box: list[float], kind: str) -> Any:
        x, y, width, height = box[0], box[1], max(box[2], 1.0), max(box[3], 1.0)
        polygons = [[x, y, x + width, y, x + width * 0.8, y + height, x, y + height * 0.9]]
        if self.chance.random() < 0.3:
            polygons.append([x, y, x + width / 2, y, x + width / 2, y + height / 2])
        if kind == "polygons":
            return polygons
        pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
        left, top = int(max(x, 0)), int(max(y, 0))
        pixels[top : int(y + height) + 1, left : int(x + width) + 1] = 1
        if self.chance.random() < 0.3:
            pixels[top + 2 : top + 5] = 0
        return compressed(pixels) if kind == "text" else uncompressed(pixels)

    def keypoints(self, box: list[float]) -> list[float]:
        chance, points = self.chance, list[float]()
        flags = chance.choice([[2], [0], [0, 1, 2], [0, 1, 2]])
        for _ in range(17):
            flag = chance.choice(flags)
            x, y = chance.uniform(box[0], box[0] + box[2]), chance.uniform(box[1], box[1] + box[3])
            points += [x, y, float(flag)] if flag or chance.random() < 0.3 else [0.0, 0.0, 0.0]
        return points


def compressed(shape: Any) -> dict[str, Any]:
    """COCO's compressed RLE of pixels, polygons or uncompressed RLE."""
    if isinstance(shape, np.ndarray):
        code = mask.encode(np.asfortranarray(shape))
    elif isinstance(shape, list):
        code = mask.merge(mask.frPyObjects(shape, HEIGHT, WIDTH))
    elif isinstance(shape["counts"], list):
        code = mask.frPyObjects(shape, HEIGHT, WIDTH)
    else:
        return {**shape}
    return {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}


def uncompressed(pixels: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed RLE: lengths of runs down the columns, the first of zeros."""
    flat = np.concatenate([[0], pixels.ravel("F"), [2]])
    ends = np.flatnonzero(np.diff(flat.astype(np.int64)))
    counts = np.diff(np.concatenate([[0], ends])).tolist()
    return {"size": [HEIGHT, WIDTH], "counts": counts}


def adversarial() -> dict[str, Problem]:
    """Problems with one difficulty each, by what that is."""
    box, other = [10.0, 10.0, 50.0, 50.0], [100.0, 20.0, 40.0, 40.0]
    truths = [truth(1, 1, 1, box), truth(2, 1, 1, other), truth(3, 2, 2, box)]
    found = [result(1, 1, 0.9, bbox=box), result(1, 1, 0.8, bbox=other), result(2, 2, 0.7, bbox=box)]
    base = EvaluationSettings.of("bbox", (1, 2))
    inf = float("inf")

    def problem(
        truths: Sequence[dict[str, Any]],
        found: Sequence[dict[str, Any]],
        settings: EvaluationSettings = base,
        ordinary: bool = True,
    ) -> Problem:
        return Problem(settings, dataset_of([1, 2, 9], [1, 2], truths), list(found), ordinary)

    def with_box(*sides: float) -> list[dict[str, Any]]:
        return [*found, result(1, 1, 0.95, bbox=list(sides))]

    points = [float(at) for place in range(17) for at in (10 + place, 20 + 2 * place, 2)]
    person = truth(1, 1, 1, [10, 20, 40, 40], keypoints=points, num_keypoints=17)
    pose = result(1, 1, 0.5, keypoints=[at + 0.5 for at in points])
    half = [at if place % 3 != 2 else (2.0 if place < 6 else 0.0) for place, at in enumerate(points)]
    away = [at if place < 3 else at + 1e6 for place, at in enumerate(points)]
    poses = EvaluationSettings.of("keypoints", (1, 2))
    shape = [[10.0, 10.0, 60.0, 10.0, 60.0, 60.0, 10.0, 60.0]]
    masks = EvaluationSettings.of("segm", (1, 2))
    cut = [truth(1, 1, 1, box, segmentation=shape)]
    rows = [result(1, 1, 0.5, bbox=[x * 0.25, 0.0, 30.0, 30.0]) for x in range(300)]
    return {
        "plain": problem(truths, found),
        "a truth numbered 0": problem([truth(0, 1, 1, box), truth(1, 1, 1, other)], found, ordinary=False),
        "a negative truth id": problem([truth(-4, 1, 1, box), truth(-3, 1, 1, other)], found, ordinary=False),
        "no results": problem(truths, [], ordinary=False),
        "no truths": problem([], found),
        "nothing at all": problem([], [], ordinary=False),
        "no images": Problem(base, dataset_of([], [1, 2], []), [], ordinary=False),
        "all truths crowds": problem([truth(n, 1, 1, b, 1) for n, b in ((1, box), (2, other))], found),
        "infinite scores": problem(truths, [*found, *(result(1, 1, s, bbox=box) for s in (inf, -inf))]),
        "zeros of both signs": problem(truths, [result(i, 1, s, bbox=box) for i in (1, 2) for s in (-0.0, 0.0)]),
        "a box of NaN": problem(truths, with_box(float("nan"), 1, 2, 3)),
        "an infinite box": problem(truths, with_box(0, 0, inf, 3)),
        "a negative width": problem(truths, with_box(60, 60, -50, -50)),
        "300 tied results": problem(truths, rows),
        "300 tied results, all counted": problem(truths, rows, replace(base, max_detections=(1, 10, 300))),
        "65 thresholds": problem(truths, found, replace(base, iou_thresholds=tuple(np.linspace(0.01, 0.99, 65)))),
        "an unknown category wanted": problem(truths, found, replace(base, category_ids=(1, 99))),
        "areas with a hole": problem(
            truths, found, replace(base, area_ranges=(AreaRange("all", 0, 1), AreaRange("small", 2500, 2501)))
        ),
        "COCO's thresholds and other areas": problem(
            truths, found, replace(base, iou_thresholds=COCO_IOU_THRESHOLDS[:9], area_ranges=base.area_ranges[:2])
        ),
        "similarity of exactly 0.5": problem(
            [{**person, "keypoints": half}], [{**pose, "keypoints": away}], poses
        ),
        "a pose of another area by its box": problem(
            [person],
            [{**pose, "bbox": [0, 0, 3, 3]}, {**pose, "score": 0.6, "keypoints": away, "bbox": [0, 0, 200, 200]}],
            poses,
        ),
        "a person without area": problem([{**person, "area": 0.0}], [pose, {**pose, "keypoints": points}], poses),
        "a crowd without keypoints": problem(
            [truth(1, 1, 1, [10, 20, 40, 40], 1, num_keypoints=0), {**person, "id": 2}], [pose], poses, ordinary=False
        ),
        "no poses": problem([person], [], poses, ordinary=False),
        "masks given as boxes": problem(cut, found, masks),
        "a mask of another size": problem(
            cut, [result(1, 1, 0.5, segmentation={**mask_text(np.ones((20, 20), np.uint8)), "size": [20, 20]})], masks
        ),
        "polygons without a box": problem(cut, [result(1, 1, 0.5, segmentation=shape)], masks, ordinary=False),
        "counts without a box": problem(
            cut, [result(1, 1, 0.5, segmentation={"size": [150, 200], "counts": [0, 30000]})], masks, ordinary=False
        ),
        "an empty mask": problem(
            cut, [result(1, 1, 0.5, segmentation=compressed(np.zeros((HEIGHT, WIDTH), np.uint8)))], masks
        ),
        "no masks": problem(cut, [], masks, ordinary=False),
    }  # fmt: skip


def mask_text(pixels: np.ndarray) -> dict[str, Any]:
    """COCO's compressed RLE of pixels of any size."""
    return {"size": list(pixels.shape), "counts": mask.encode(np.asfortranarray(pixels))["counts"].decode()}
