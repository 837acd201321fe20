"""The clips of a run, and the rows of their frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.runs import layout
from beam_jobs.runs.parts import FileRecord, PartRecord, read_table
from beam_jobs.runs.plan import read_part

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip of which frames were looked at.

    Args:
        root: the run's folder.
        part: the part that it is in, whole.
        uri: the path that is opened.
        video: its name in the tables.
        annotated: the path of its annotated video, relative to the run's folder.
    """

    root: str
    part: int
    uri: str
    video: str
    annotated: str


@dataclass(frozen=True, slots=True, eq=False)
class ClipRows:
    """What was found in the frames of a clip.

    Args:
        width, height: of its first frame that was looked at, in pixels.
        frames: int32 [N], the numbers of those that were looked at, ascending.
        first, count: int [N], where the detections of each begin, and how many there are.
        detections: those of the part.
    """

    width: int
    height: int
    frames: NDArray[np.int32]
    first: NDArray[np.int64]
    count: NDArray[np.int32]
    detections: pa.Table

    @staticmethod
    def read(clip: Clip) -> ClipRows:
        """From the committed tables of the clip's part."""
        images = read_table(clip.root, layout.part_table("images", clip.part))
        counts = images["num_detections"].to_numpy()
        firsts = np.cumsum(counts) - counts
        rows = np.flatnonzero([video == clip.video for video in images["video"].to_pylist()])
        frames = images["frame"].to_numpy()
        rows = rows[np.argsort(frames[rows], kind="stable")]
        width, height = (images[side][int(rows[0])].as_py() for side in ("width", "height"))
        detections = read_table(clip.root, layout.part_table("detections", clip.part))
        return ClipRows(width, height, frames[rows], firsts[rows], counts[rows], detections)

    def found(self, frame: int, *, held: bool) -> pa.Table:
        """The detections of a frame; none if it was not looked at.

        Args:
            held: of such a frame, those of the last before it that was.
        """
        at = int(np.searchsorted(self.frames, frame, "right")) - 1
        if at < 0 or (self.frames[at] != frame and not held):
            return self.detections.slice(0, 0)
        return self.detections.slice(int(self.first[at]), int(self.count[at]))


def clips_of(root: str, part: int) -> Iterator[Clip]:
    """The clips of a committed part, in the order of the plan."""
    counts = PartRecord.read(root, part).counts
    if not counts.clips + counts.streams:
        return
    videos = set(read_table(root, layout.part_table("images", part))["video"].to_pylist()) - {None}
    for one in read_part(root, part) if videos else ():
        name, uri = one.key.file_name, one.key.uri
        if name in videos:
            yield Clip(root, part, uri, name, layout.annotated_clip_path(name, uri))


def annotated_clips(root: str, parts: int) -> Iterator[FileRecord]:
    """The annotated videos of a run that are there."""
    for part in range(parts):
        for clip in clips_of(root, part):
            if storage.exists(storage.join(root, clip.annotated)):
                yield _record(root, clip.annotated)


def _record(root: str, path: str) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    with storage.open_read(storage.join(root, path)) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(path, None, size, digest.hexdigest())
