"""The clips of a run, and the rows of their frames."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

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
        record: the path of the record of the part that it is in, whole.
        uri: the path that is opened.
        video: its name in the tables.
        annotated: the path of its annotated video, relative to the run's folder.
    """

    root: str
    record: str
    uri: str
    video: str
    annotated: str


class ClipRows:
    """What was found in the frames of a clip, by the committed tables of its part; one file is held at a time.

    Attributes:
        width, height: of its first frame that was looked at, in pixels.
        frames: int64 [N], the numbers of those that were looked at, ascending.
    """

    def __init__(self, clip: Clip) -> None:
        self._root = clip.root
        record = PartRecord.read(clip.root, clip.record)
        self._files = [file.path for file in record.files_of("detections")]
        #: File, first detection in it and number of detections, of each frame.
        places = []
        sizes = []
        for number, file in enumerate(record.files_of("images")):
            images = read_table(clip.root, file.path)
            counts = images["num_detections"].to_numpy().astype(np.int64)
            rows = np.flatnonzero([video == clip.video for video in images["video"].to_pylist()])
            frames = images["frame"].to_numpy()[rows]
            firsts = (np.cumsum(counts) - counts)[rows]
            places.append(np.stack([frames, np.full(len(rows), number), firsts, counts[rows]], axis=1))
            sizes += [(images["width"][row].as_py(), images["height"][row].as_py()) for row in rows[:1].tolist()]
        all_places = np.concatenate(places)
        self._places = all_places[np.argsort(all_places[:, 0], kind="stable")]
        self.width, self.height = sizes[0]
        self.frames = self._places[:, 0]
        self._held: tuple[int, pa.Table] | None = None

    def found(self, frame: int, *, held: bool) -> pa.Table:
        """The detections of a frame; none if it was not looked at.

        Args:
            held: of such a frame, those of the last before it that was.
        """
        at = int(np.searchsorted(self.frames, frame, "right")) - 1
        if at < 0 or (self.frames[at] != frame and not held):
            return self._table(0).slice(0, 0)
        _, file, first, count = self._places[at].tolist()
        return self._table(file).slice(first, count)

    def _table(self, file: int) -> pa.Table:
        if self._held is None or self._held[0] != file:
            self._held = (file, read_table(self._root, self._files[file]))
        return self._held[1]


def clips_of(root: str, record: PartRecord) -> Iterator[Clip]:
    """The clips of a committed part, in the order of the plan."""
    if not record.counts.clips + record.counts.streams:
        return
    tables = (read_table(root, file.path) for file in record.files_of("images"))
    videos = {video for table in tables for video in table["video"].to_pylist()} - {None}
    for one in read_part(root, record.part) if videos else ():
        name, uri = one.key.file_name, one.key.uri
        if name in videos:
            yield Clip(root, record.path, uri, name, layout.annotated_clip_path(name, uri))


def annotated_clips(root: str, records: Iterable[PartRecord]) -> Iterator[FileRecord]:
    """The annotated videos of some parts that are there."""
    for record in records:
        for clip in clips_of(root, record):
            if storage.exists(storage.join(root, clip.annotated)):
                yield _record(root, clip.annotated)


def _record(root: str, path: str) -> FileRecord:
    digest, size = hashlib.sha256(), 0
    with storage.open_read(storage.join(root, path)) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(path, None, size, digest.hexdigest())
