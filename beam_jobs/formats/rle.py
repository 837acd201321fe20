"""Masks as COCO's compressed run lengths: {"size": [height, width], "counts": text}, down the columns.

Format: pycocotools' `maskApi.h` and `rleToString` of its maskApi.c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from beam_jobs.masks import Patch


def encode(patches: Sequence[Patch], width: int, height: int) -> list[str]:
    """The `counts` of masks in a picture of `width` x `height` pixels: those of `pycocotools.mask.encode`.

    Only the patches are looked at, so that a small object costs little in a large picture.
    """
    if not patches:
        return []
    lengths: list[dict[str, Any]] = [
        {"size": [height, width], "counts": run_lengths(patch, width, height)} for patch in patches
    ]
    return [found["counts"].decode("ascii") for found in coco_mask.frPyObjects(lengths, height, width)]


def run_lengths(patch: Patch, width: int, height: int) -> NDArray[np.int64]:
    """The lengths of runs without and with the object, in turns, down the columns of the whole picture.

    The first may be 0; their sum is that of the picture's pixels.
    """
    rows, columns = patch.pixels.shape
    # Each column between two empty pixels, so that a run starts and ends in it.
    framed = np.zeros((columns, rows + 2), bool)
    framed[:, 1:-1] = patch.pixels.T
    column, row = np.nonzero(framed[:, 1:] != framed[:, :-1])
    bounds = (patch.left + column) * height + patch.top + row
    # A run to the foot of one column goes on at the head of the next.
    meets = np.flatnonzero(bounds[1:] == bounds[:-1])
    bounds = np.delete(bounds, np.concatenate([meets, meets + 1]))
    ends = [width * height] if not len(bounds) or bounds[-1] < width * height else []
    bounds = np.concatenate([[0], bounds, ends]).astype(np.int64)
    return bounds[1:] - bounds[:-1]


def decode(mask: Mapping[str, Any]) -> Patch:
    """The mask of `size` and `counts`, cut to the box around its pixels."""
    pixels = coco_mask.decode({"size": mask["size"], "counts": mask["counts"].encode()}).astype(bool)
    rows, columns = (np.flatnonzero(pixels.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Patch(0, 0, np.zeros((0, 0), bool))
    top, left = int(rows[0]), int(columns[0])
    return Patch(left, top, pixels[top : rows[-1] + 1, left : columns[-1] + 1])
