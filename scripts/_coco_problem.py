"""Makes a COCO evaluation to be solved: a ground truth and results, of as many images as wanted, the same for a seed.

Like COCO's val2017 in what costs time: 80 categories of which one is in every third truth, 7.3 truths an image, their
sizes (41% small, 24% large), 1% of images without truths and 1% of truths crowds, polygons. Results are what a detector
gives that is asked for all it has: several boxes near most truths, some with another class, and noise; at most 100 an
image, 66 on average.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from beam_jobs.formats.tables import DETECTIONS

#: Ids with gaps, as COCO's.
CATEGORY_IDS = tuple(number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83))
SIZES = ((640, 480), (640, 427), (640, 480), (480, 640), (640, 360), (427, 640))

#: Images that are made at a time. More images begin with those that fewer are.
CHUNK = 500
MAX_TRUTHS, MAX_DETECTIONS = 60, 100
#: Logarithm of the square root of a truth's area, in pixels: mean and deviation.
LOG_SIDE = (3.74, 1.2)
#: Boxes and scores are multiples of these: exact as float32 of the run's tables and short in JSON. So few scores that
#: many are tied.
PIXEL, SCORE = 1 / 16, 1 / 4096

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some images: N of them, M truths and D detections, both by image; the detections of an image best first.

    Args:
        ids: int64 [N], ascending.
        sizes: int64 [N, 2], width and height.
        truth_image, found_image: int64 [M] and [D], rows of the images.
        truth_category, found_category: int64 [M] and [D], places in `CATEGORY_IDS`.
        truth_box, found_box: float64 [M, 4] and [D, 4], xmin, ymin, xmax, ymax.
        crowd: bool [M].
        score: float64 [D].
    """

    ids: Ints
    sizes: Ints
    truth_image: Ints
    truth_category: Ints
    truth_box: Floats
    crowd: NDArray[np.bool_]
    found_image: Ints
    found_category: Ints
    found_box: Floats
    score: Floats

    def first(self, images: int) -> Chunk:
        """The first images alone."""
        truths, found = self.truth_image < images, self.found_image < images
        return Chunk(
            self.ids[:images],
            self.sizes[:images],
            self.truth_image[truths],
            self.truth_category[truths],
            self.truth_box[truths],
            self.crowd[truths],
            self.found_image[found],
            self.found_category[found],
            self.found_box[found],
            self.score[found],
        )


def chunks(images: int, seed: int) -> Iterator[Chunk]:
    """All images, in the order of their ids."""
    for start in range(0, images, CHUNK):
        chunk = _chunk(np.random.default_rng((seed, start // CHUNK)), start)
        yield chunk.first(min(CHUNK, images - start))


def _chunk(random: np.random.Generator, start: int) -> Chunk:
    sizes = np.array(SIZES)[random.integers(len(SIZES), size=CHUNK)]
    counts = np.minimum(random.geometric(1 / 7.43, CHUNK), MAX_TRUTHS) * (random.random(CHUNK) >= 0.01)
    image = np.repeat(np.arange(CHUNK), counts)
    # An image shows three kinds of things at most.
    kinds = _categories(random, CHUNK * 3).reshape(CHUNK, 3)
    category = kinds[image, random.integers(3, size=len(image))]
    box = _boxes(random, sizes[image])
    crowd = random.random(len(image)) < 0.012

    near = np.repeat(np.arange(len(image)), np.where(crowd, 0, random.poisson(2.6, len(image))))
    astray = np.repeat(np.arange(len(image)), random.poisson(0.9, len(image)))
    noise = np.repeat(np.arange(CHUNK), random.poisson(43, CHUNK))
    spread = random.exponential(0.08, len(near))
    found_image = np.concatenate([image[near], image[astray], noise])
    found_category = np.concatenate([category[near], _categories(random, len(astray)), _categories(random, len(noise))])
    found_box = np.concatenate(
        [
            _moved(random, box[near], spread, sizes[image[near]]),
            _moved(random, box[astray], np.full(len(astray), 0.15), sizes[image[astray]]),
            _boxes(random, sizes[noise]),
        ]
    )
    score = np.concatenate(
        [
            random.beta(2, 1 + 12 * spread),
            random.beta(1, 5, len(astray)),
            random.beta(0.6, 9, len(noise)),
        ]
    )
    score = np.clip(np.round(score / SCORE), 1, 1 / SCORE) * SCORE
    order = np.lexsort((-score, found_image))
    order = order[_places(found_image[order]) < MAX_DETECTIONS]
    return Chunk(
        # Gaps in the ids, too.
        (start + np.arange(CHUNK)) * 3 + random.integers(1, 4, CHUNK),
        sizes,
        image,
        category,
        box,
        crowd,
        found_image[order],
        found_category[order],
        found_box[order],
        score[order],
    )


def _categories(random: np.random.Generator, count: int) -> Ints:
    weights = 1 / np.arange(2, len(CATEGORY_IDS) + 2)
    weights[0] = weights.sum() / 2
    return random.choice(len(CATEGORY_IDS), count, p=weights / weights.sum()).astype(np.int64)


def _boxes(random: np.random.Generator, sizes: Ints) -> Floats:
    """A box in each image of these sizes."""
    side = np.exp(random.normal(*LOG_SIDE, len(sizes)))
    stretch = np.exp(random.normal(0, 0.4, len(sizes)))
    wanted = np.column_stack([side * stretch, side / stretch]).clip(4, sizes)
    corner = random.random((len(sizes), 2)) * (sizes - wanted)
    return _rounded(np.column_stack([corner, corner + wanted]), sizes)


def _moved(random: np.random.Generator, boxes: Floats, spread: Floats, sizes: Ints) -> Floats:
    """Boxes whose sides are moved by so much of their length."""
    lengths = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return _rounded(boxes + random.normal(0, 1, boxes.shape) * spread[:, None] * lengths, sizes)


def _rounded(boxes: Floats, sizes: Ints) -> Floats:
    """Inside the image, and a pixel wide at least."""
    boxes = np.round(boxes / PIXEL) * PIXEL
    low = np.clip(boxes[:, :2], 0, sizes - 1)
    return np.column_stack([low, np.clip(boxes[:, 2:], low + 1, sizes)])


def _places(groups: Ints) -> Ints:
    """The place of each row among its neighbours of the same group."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def write(folder: Path, images: int, seed: int, *, parquet: bool = False) -> tuple[int, int]:
    """Writes `instances.json` and `results.json`, and with `parquet` `results.parquet`; returns truths, detections."""
    categories = [{"id": number, "name": _name(number), "supercategory": "thing"} for number in CATEGORY_IDS]
    truths = found = 0
    listed: list[dict[str, Any]] = []
    with (
        (folder / "instances.json").open("wb") as instances,
        (folder / "results.json").open("wb") as results,
        pq.ParquetWriter(folder / "results.parquet" if parquet else pa.BufferOutputStream(), DETECTIONS) as table,
    ):
        instances.write(b'{"info":{"description":"made up"},"licenses":[],"annotations":[')
        results.write(b"[")
        for chunk in chunks(images, seed):
            _append(instances, list(_truths(chunk, truths + 1)), first=not truths)
            _append(results, list(_results(chunk)), first=not found)
            if parquet:
                table.write_table(_table(chunk))
            listed += [
                {"id": number, "file_name": f"{number:012}.jpg", "width": width, "height": height}
                for number, (width, height) in zip(chunk.ids.tolist(), chunk.sizes.tolist(), strict=True)
            ]
            truths, found = truths + len(chunk.truth_image), found + len(chunk.found_image)
        results.write(b"]")
        instances.write(b'],"images":' + msgspec.json.encode(listed))
        instances.write(b',"categories":' + msgspec.json.encode(categories) + b"}")
    return truths, found


def _append(file: BinaryIO, entries: list[dict[str, Any]], *, first: bool) -> None:
    if entries:
        file.write((b"" if first else b",\n") + msgspec.json.encode(entries)[1:-1])


def _truths(chunk: Chunk, number: int) -> Iterator[dict[str, Any]]:
    """COCO's annotations, numbered from `number`."""
    columns = (chunk.truth_image, chunk.truth_category, _xywh(chunk.truth_box), chunk.crowd)
    for i, (image, category, box, crowd) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        shape, area = _crowd(box, *chunk.sizes[image].tolist()) if crowd else _octagon(box)
        yield {
            "id": number + i,
            "image_id": int(chunk.ids[image]),
            "category_id": CATEGORY_IDS[category],
            "bbox": box,
            "area": area,
            "iscrowd": int(crowd),
            "segmentation": shape,
        }


def _octagon(box: list[float]) -> tuple[list[list[float]], float]:
    """A polygon in a box, and its area."""
    x, y, w, h = box
    across = [x + w / 4, x + w * 3 / 4, x + w, x + w, x + w * 3 / 4, x + w / 4, x, x]
    down = [y, y, y + h / 4, y + h * 3 / 4, y + h, y + h, y + h * 3 / 4, y + h / 4]
    return [[value for point in zip(across, down, strict=True) for value in point]], w * h * 7 / 8


def _crowd(box: list[float], width: int, height: int) -> tuple[dict[str, Any], float]:
    """The pixels of a box as an uncompressed run-length encoding, which goes down the columns; and their number."""
    x, y, right, bottom = int(box[0]), int(box[1]), int(box[0] + box[2]), int(box[1] + box[3])
    w, h = max(1, right - x), max(1, bottom - y)
    counts = [x * height + y, *[h, height - h] * (w - 1), h]
    counts.append(width * height - sum(counts))
    return {"size": [height, width], "counts": counts}, float(w * h)


def _results(chunk: Chunk) -> Iterator[dict[str, Any]]:
    ids, categories = chunk.ids[chunk.found_image], np.array(CATEGORY_IDS)[chunk.found_category]
    columns = (ids, categories, _xywh(chunk.found_box), chunk.score)
    for image_id, category_id, box, score in zip(*(column.tolist() for column in columns), strict=True):
        yield {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def _table(chunk: Chunk) -> pa.Table:
    """The detections as a run has them."""
    ids, categories = chunk.ids[chunk.found_image], np.array(CATEGORY_IDS)[chunk.found_category]
    width, height = _xywh(chunk.found_box)[:, 2:].T
    columns = {
        "image_id": ids,
        "file_name": [f"{number:012}.jpg" for number in ids.tolist()],
        "frame": np.zeros(len(ids), np.int32),
        "rank": _places(chunk.found_image).astype(np.int32),
        "category_id": categories.astype(np.int32),
        "category": [_name(number) for number in categories.tolist()],
        "score": chunk.score.astype(np.float32),
        **{name: chunk.found_box[:, i].astype(np.float32) for i, name in enumerate(("xmin", "ymin", "xmax", "ymax"))},
        "area": (width * height).astype(np.float32),
    }
    nulls = {field.name: pa.nulls(len(ids), field.type) for field in DETECTIONS if field.nullable}
    return pa.table({**nulls, **columns}, schema=DETECTIONS)


def _xywh(boxes: Floats) -> Floats:
    return np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def _name(category_id: int) -> str:
    return f"class {category_id}"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files, and says what is in them."""
    parser = argparse.ArgumentParser(
        prog="make-coco-problem",
        description="Makes a COCO ground truth and results of the size of COCO's, or any other.",
    )
    parser.add_argument("output", type=Path, metavar="DIR", help="where to write instances.json and results.json")
    parser.add_argument("--images", type=int, default=5000, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another gives others (%(default)s)")
    parser.add_argument(
        "--parquet", action="store_true", help="also results.parquet, with the columns of a run's detections"
    )
    options = parser.parse_args(argv)
    options.output.mkdir(parents=True, exist_ok=True)
    truths, found = write(options.output, options.images, options.seed, parquet=options.parquet)
    print(f"{options.output}: {options.images:,} images, {truths:,} truths, {found:,} detections", file=sys.stderr)


if __name__ == "__main__":
    main()
