"""Pictures for tests: rectangles of colour on black, and their encoded forms."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(width: int, height: int, *boxes: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> np.ndarray:
    """uint8 [height, width, 3], black but for the boxes: (xmin, ymin, xmax, ymax), colour."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for (xmin, ymin, xmax, ymax), colour in boxes:
        pixels[ymin:ymax, xmin:xmax] = colour
    return pixels


def encode(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


def write_pictures(folder: Path, count: int, *, width: int = 40) -> list[str]:
    """PNGs in `folder` with one red and one green box each, at places that differ; returns their names, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for i in range(count):
        name = f"picture-{i:04d}.png"
        red = ((i % 7, i % 5, i % 7 + 10, i % 5 + 8), RED)
        green = ((20, 10 + i % 3, 32, 28), GREEN)
        (folder / name).write_bytes(encode(picture(width, 30, red, green)))
        names.append(name)
    return names
