"""Makes large pictures with small objects: mosaics of a COCO data set's images at their own size, with their truths.

python _mosaic.py INSTANCES IMAGES OUTPUT: OUTPUT gets images/ and instances.json. The same for a seed and a Pillow.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

GREY = (114, 114, 114)


def rows(sizes: Sequence[tuple[int, int]], width: int, height: int) -> Iterator[tuple[int, int, int]]:
    """Places images, (width, height) each, in rows from the top left: the position of one, and where it is, x and y.

    One that does not fit is left out; so is all that comes when the picture is full.
    """
    x = y = deepest = 0
    for i, (w, h) in enumerate(sizes):
        if x + w > width:
            x, y, deepest = 0, y + deepest, 0
        if w > width or y + h > height:
            continue
        yield i, x, y
        x, deepest = x + w, max(deepest, h)


def write(truth: dict[str, Any], images: Path, output: Path, pictures: int, size: tuple[int, int], seed: int) -> None:
    """Writes the pictures, each of the images in another order, and their truths: boxes, areas and crowds."""
    random = np.random.default_rng(seed)
    listed = sorted(truth["images"], key=lambda image: image["id"])
    annotations = defaultdict(list)
    for one in truth["annotations"]:
        annotations[one["image_id"]].append(one)
    made: list[dict[str, Any]] = []
    truths: list[dict[str, Any]] = []
    (output / "images").mkdir(parents=True, exist_ok=True)
    for number in range(1, pictures + 1):
        order = [listed[i] for i in random.permutation(len(listed))]
        picture = Image.new("RGB", size, GREY)
        for i, x, y in rows([(image["width"], image["height"]) for image in order], *size):
            with Image.open(images / order[i]["file_name"]) as image:
                picture.paste(image.convert("RGB"), (x, y))
            for one in annotations[order[i]["id"]]:
                left, top, w, h = one["bbox"]
                kept = {name: one[name] for name in ("category_id", "area", "iscrowd")}
                box = [left + x, top + y, w, h]
                truths.append({"id": len(truths) + 1, "image_id": number, "bbox": box, **kept})
        name = f"mosaic-{number:03}.jpg"
        picture.save(output / "images" / name, quality=95)
        made.append({"id": number, "file_name": name, "width": size[0], "height": size[1]})
    result = {"images": made, "annotations": truths, "categories": truth["categories"]}
    (output / "instances.json").write_text(json.dumps(result))


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the files, and says how many objects are in them."""
    parser = argparse.ArgumentParser(prog="_mosaic.py", description="Makes large pictures with small objects.")
    parser.add_argument("instances", type=Path, metavar="INSTANCES", help="COCO's annotations")
    parser.add_argument("images", type=Path, metavar="IMAGES", help="the folder of their images")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="folder to write")
    parser.add_argument("--pictures", type=int, default=10, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--width", type=int, default=4000, metavar="N", help="of each, in pixels (%(default)s)")
    parser.add_argument("--height", type=int, default=3000, metavar="N", help="of each, in pixels (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="another gives others (%(default)s)")
    options = parser.parse_args(argv)
    truth = json.loads(options.instances.read_text())
    size = (options.width, options.height)
    write(truth, options.images, options.output, options.pictures, size, options.seed)
    made = json.loads((options.output / "instances.json").read_text())
    print(f"{options.output}: {len(made['images'])} pictures, {len(made['annotations']):,} objects", file=sys.stderr)


if __name__ == "__main__":
    main()
