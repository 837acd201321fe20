"""The pictures of the benchmark: made of a few photographs, so that it needs no data set."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from beam_jobs.cli.demo import PHOTOGRAPHS

#: Sizes that are common in COCO: the longer side has 640 pixels.
SIZES = ((640, 480), (640, 427), (640, 480), (480, 640), (640, 360), (427, 640))
#: About the bytes of COCO's own files.
JPEG_QUALITY = 92


def make_pictures(folder: Path, count: int, seed: int) -> list[Path]:
    """`count` JPEGs of COCO's sizes in `folder`: scikit-image's photographs, each cropped, lit and turned differently.

    The same `seed` gives the same pictures, and more of them begin with those that fewer are.
    """
    photographs = _photographs()

    def make(i: int) -> Path:
        path = folder / f"{i:06}.jpg"
        variation(photographs[i % len(photographs)], np.random.default_rng((seed, i))).save(path, quality=JPEG_QUALITY)
        return path

    # Pillow works outside of Python's lock.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(make, range(count)))


def make_clip(path: Path, count: int) -> Path:
    """A clip of `count` frames of 640×360, 30 a second, in H.264: slow pans over the photographs, 5 seconds each."""
    photographs = _photographs()
    width, height, scene = 640, 360, 150
    with av.open(path, "w") as clip:
        stream = clip.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(count):
            photograph = photographs[i // scene % len(photographs)]
            scale = 0.7 * min(photograph.width / width, photograph.height / height)
            done = (i % scene) / scene
            left = done * (photograph.width - width * scale)
            top = done * (photograph.height - height * scale)
            box = (left, top, left + width * scale, top + height * scale)
            picture = photograph.resize((width, height), Image.Resampling.BILINEAR, box)
            clip.mux(stream.encode(av.VideoFrame.from_image(picture)))
        clip.mux(stream.encode())
    return path


def frames_of(clip: Path, folder: Path) -> list[Path]:
    """The frames of a clip as JPEGs."""
    paths = []
    with av.open(clip) as container:
        for i, frame in enumerate(container.decode(video=0)):
            paths.append(folder / f"{i:06}.jpg")
            frame.to_image().save(paths[-1], quality=JPEG_QUALITY)
    return paths


def _photographs() -> list[Image.Image]:
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("benchmark: the pictures are made of scikit-image's photographs: pip install scikit-image.")
    return [Image.open(Path(found.origin).parent / "data" / name).convert("RGB") for name in PHOTOGRAPHS]


def variation(photograph: Image.Image, random: np.random.Generator) -> Image.Image:
    """A part of 70% or more of the largest crop of the right shape, perhaps mirrored, lighter or darker."""
    width, height = SIZES[random.integers(len(SIZES))]
    scale = min(photograph.width / width, photograph.height / height) * random.uniform(0.7, 1)
    left = random.uniform(0, photograph.width - width * scale)
    top = random.uniform(0, photograph.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    picture = photograph.resize((width, height), Image.Resampling.BICUBIC, box)
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return ImageEnhance.Brightness(picture).enhance(random.uniform(0.7, 1.3))


def write_list(path: Path, pictures: Iterable[Path]) -> Path:
    """A list of pictures as a file; returns `path`."""
    path.write_text("".join(f"{picture}\n" for picture in pictures))
    return path
