"""What flows: the key of an image, and its detections. Frozen, and validated where they are made."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Image ids are below this, so that JSON readers that hold numbers as doubles keep them exact.
MAX_IMAGE_ID = 2**53
#: A frame's id is its clip's digest, of 31 bits, and its number, which has this many.
FRAME_BITS = 22


def image_id_of(file_name: str, frame: int = 0, repetition: int = 0) -> int:
    """A stable image id below 2**53: BLAKE2b of the name and the frame; and of a number where the id is taken."""
    text = f"{file_name}\0{frame}" + (f"\0{repetition}" if repetition else "")
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 11


def frame_name(video: str, frame: int) -> str:
    """The name of a frame of a clip in tables and COCO files: `clip.mp4#000123`."""
    return f"{video}#{frame:06d}"


def frame_id_of(video: str, frame: int) -> int:
    """A stable image id of a frame: a 31-bit BLAKE2b of the clip's name, times 2**22, plus the frame's number."""
    digest = int.from_bytes(hashlib.blake2b(video.encode(), digest_size=4).digest(), "big") >> 1
    return (digest << FRAME_BITS) + frame


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Which image: a file, one record of a TFRecord file, or one frame of a clip.

    Args:
        image_id: 0 <= image_id < 2**53.
        uri: the path that is opened. Undecodable bytes of a local path are surrogate escapes, as in `os.fsdecode`.
        file_name: the name in the tables and in COCO files; valid UTF-8.
        record: the index of the record in its TFRecord file; None for a picture file.
        frame: of a clip, its rank in order of presentation; 0 for stills.
        video: the name of the frame's clip; None for stills.
        timestamp_s: the frame's presentation time in seconds; None for stills, and where nobody knows.

    Raises:
        ValueError: an id or an index out of range, or an empty name.
    """

    image_id: int
    uri: str
    file_name: str
    record: int | None = None
    frame: int = 0
    video: str | None = None
    timestamp_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.image_id < MAX_IMAGE_ID:
            raise ValueError(f"image_id must be in [0, 2**53), got {self.image_id}")
        if not self.uri or not self.file_name:
            raise ValueError(f"uri and file_name must not be empty, got {self.uri!r} and {self.file_name!r}")
        if self.frame < 0 or (self.record is not None and self.record < 0):
            raise ValueError(f"frame and record must not be negative, got {self.frame} and {self.record}")


@dataclass(frozen=True, slots=True, eq=False)
class BoxMasks:
    """The masks of N detections as Mask R-CNN gives them: a small grid over each box.

    Args:
        grids: float32 [N, rows, columns], 0 to 1: how sure the model is that the object is there. The corners of a grid
            are those of its frame.
        frames: float32 [N, 4], xmin, ymin, xmax, ymax in pixels of the upright image: the box before it was clipped.

    Raises:
        ValueError: a wrong dtype or shape.
    """

    grids: NDArray[np.float32]
    frames: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.frames)
        if self.grids.dtype != np.float32 or self.grids.ndim != 3 or len(self.grids) != n:
            raise ValueError(f"grids must be {_described(np.float32, (n, 'rows', 'columns'))}, got {_kind(self.grids)}")
        _check("frames", self.frames, np.float32, (n, 4))

    def __len__(self) -> int:
        return len(self.frames)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> BoxMasks:
        """The masks at `index` (positions or a mask), in that order."""
        return BoxMasks(self.grids[index], self.frames[index])


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The detections of one image, N of them, in any order.

    Args:
        boxes: float32 [N, 4], xmin, ymin, xmax, ymax in pixels of the upright image.
        scores: float32 [N].
        category_ids: int32 [N], the ids of the label map.
        masks: N masks, or None where the model has none.
        keypoints: float32 [N, K, 3], x, y in pixels of the upright image and score, in the model's order; all 0 where a
            detection lacks one. None where the model has none.

    Raises:
        ValueError: a wrong dtype or shape.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    masks: BoxMasks | None = None
    keypoints: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        _check("boxes", self.boxes, np.float32, (n, 4))
        _check("scores", self.scores, np.float32, (n,))
        _check("category_ids", self.category_ids, np.int32, (n,))
        if self.masks is not None and len(self.masks) != n:
            raise ValueError(f"masks must be {n}, one a detection, got {len(self.masks)}")
        if self.keypoints is not None:
            count = self.keypoints.shape[1] if self.keypoints.ndim == 3 else 0
            _check("keypoints", self.keypoints, np.float32, (n, count, 3))

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Detections:
        """The detections at `index` (positions or a mask), in that order."""
        return Detections(
            self.boxes[index],
            self.scores[index],
            self.category_ids[index],
            None if self.masks is None else self.masks.take(index),
            None if self.keypoints is None else self.keypoints[index],
        )


def _check(name: str, array: NDArray[Any], dtype: type, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{name} must be {_described(dtype, shape)}, got {_kind(array)}")


def _kind(array: NDArray[Any]) -> str:
    return _described(array.dtype, array.shape)


def _described(dtype: Any, shape: tuple[int | str, ...]) -> str:
    return f"{np.dtype(dtype).name} [{', '.join(map(str, shape))}]"
