"""Made pictures with structure in them, for checking a model where no picture of the job's is at hand."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import Picture

#: Heights and widths, and how many shapes lie about.
_SIZES = ((480, 640), (427, 640))
_SHAPES = 12


def scenes() -> list[Picture]:
    """Two pictures, uint8 [height, width, 3]: ellipses and boxes with texture on a shaded ground; always the same."""
    return [_scene(np.random.default_rng(seed), *size) for seed, size in enumerate(_SIZES)]


def _scene(random: np.random.Generator, height: int, width: int) -> Picture:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    ground = random.uniform(40, 200, 3) + np.multiply.outer(y / height, random.uniform(-60, 60, 3))
    for _ in range(_SHAPES):
        centre_y, centre_x = random.uniform(0, height), random.uniform(0, width)
        half_y, half_x = random.uniform(12, height / 3), random.uniform(12, width / 3)
        across, along = np.abs(y - centre_y) / half_y, np.abs(x - centre_x) / half_x
        inside = across**2 + along**2 < 1 if random.random() < 0.5 else np.maximum(across, along) < 1
        ground[inside] = _texture(random, y, x)[inside]
    noisy: NDArray[np.float64] = ground + random.normal(0, 6, ground.shape)
    return noisy.clip(0, 255).astype(np.uint8)


def _texture(random: np.random.Generator, y: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float64]:
    waves = np.sin(y / random.uniform(2, 30)) * np.sin(x / random.uniform(2, 30))
    texture: NDArray[np.float64] = random.uniform(0, 255, 3) + np.multiply.outer(waves, random.uniform(-50, 50, 3))
    return texture
