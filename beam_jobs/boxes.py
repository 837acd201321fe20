"""Box arithmetic. Boxes are float32 [N, 4] xmin, ymin, xmax, ymax in pixels unless a name says otherwise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float32]


def from_normalised_yxyx(boxes: NDArray[np.float32], width: int, height: int) -> Boxes:
    """Pixels from the Object Detection API's boxes: float32 [N, 4] ymin, xmin, ymax, xmax as shares of the picture."""
    scale = np.array([width, height, width, height], np.float32)
    return np.ascontiguousarray(boxes[:, [1, 0, 3, 2]] * scale)


def clip(boxes: Boxes, width: int, height: int) -> Boxes:
    """`boxes` cut to the picture: x in [0, width], y in [0, height]. NaN stays NaN."""
    limit = np.array([width, height, width, height], np.float32)
    return np.clip(boxes, np.float32(0), limit)


def is_empty(boxes: Boxes) -> NDArray[np.bool_]:
    """bool [N]: boxes without area, NaN and infinite ones among them."""
    positive = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    return ~(positive & np.isfinite(boxes).all(axis=1))


def area(boxes: Boxes) -> NDArray[np.float32]:
    """float32 [N], square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
