"""What flows: the key of an image, and its detections. Frozen, and validated where they are made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Image ids are below this, so that JSON readers that hold numbers as doubles keep them exact.
MAX_IMAGE_ID = 2**53


def image_id_of(file_name: str, frame: int = 0, repetition: int = 0) -> int:
    """A stable image id below 2**53: BLAKE2b of the name and the frame; and of a number where the id is taken."""
    text = f"{file_name}\0{frame}" + (f"\0{repetition}" if repetition else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Which image: a file, or one record of a TFRecord file.

    Args:
        image_id: 0 <= image_id < 2**53.
        uri: the path that is opened. Undecodable bytes of a local path are surrogate escapes, as in `os.fsdecode`.
        file_name: the name in the tables and in COCO files; valid UTF-8.
        record: the index of the record in its TFRecord file; None for a picture file.
        frame: 0 for stills.

    Raises:
        ValueError: an id or an index out of range, or an empty name.
    """

    image_id: int
    uri: str
    file_name: str
    record: int | None = None
    frame: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.image_id < MAX_IMAGE_ID:
            raise ValueError(f"image_id must be in [0, 2**53), got {self.image_id}")
        if not self.uri or not self.file_name:
            raise ValueError(f"uri and file_name must not be empty, got {self.uri!r} and {self.file_name!r}")
        if self.frame < 0 or (self.record is not None and self.record < 0):
            raise ValueError(f"frame and record must not be negative, got {self.frame} and {self.record}")


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one image, N of them, in any order.

    Args:
        boxes: float32 [N, 4], xmin, ymin, xmax, ymax in pixels of the upright image.
        scores: float32 [N].
        category_ids: int32 [N], the ids of the label map.

    Raises:
        ValueError: a wrong dtype or shape.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    category_ids: NDArray[np.int32]

    def __post_init__(self) -> None:
        n = len(self.scores)
        for name, array, dtype, shape in (
            ("boxes", self.boxes, np.float32, (n, 4)),
            ("scores", self.scores, np.float32, (n,)),
            ("category_ids", self.category_ids, np.int32, (n,)),
        ):
            if array.dtype != dtype or array.shape != shape:
                raise ValueError(
                    f"{name} must be {np.dtype(dtype).name} {list(shape)}, got {array.dtype.name} {list(array.shape)}"
                )

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        """The detections at `index` (positions or a mask), in that order."""
        return Detections(self.boxes[index], self.scores[index], self.category_ids[index])
