"""Tracks in the tables of a part: `track_id` of its detections, and the table `tracks`. A clip is in one part whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats.found_rows import found_in
from beam_jobs.formats.tables import TRACKS
from beam_jobs.records import Detections
from beam_jobs.tracking.tracker import Frame, Tracking, track

#: The step of a clip of which one frame was seen, in seconds: any would do.
_ANY_STEP = 1 / 30


@dataclass(frozen=True, slots=True, eq=False)
class PartTracks:
    """The tracks of a part.

    Args:
        ids: int32 [D], by detection; 0 where one has no track.
        table: rows of `tracks`, by clip and id.
    """

    ids: NDArray[np.int32]
    table: pa.Table


def tracks_of(
    images: pa.Table, detections: Callable[[int, int], pa.Table], settings: Tracking, together: int
) -> PartTracks:
    """The tracks of the clips of a part.

    Args:
        images: all rows of the part, in its order. Those that are not of a clip have no track.
        detections: those of the images begin <= row < end.
        together: so many images are asked for at a time.
    """
    counts = images["num_detections"].to_numpy()
    firsts = np.cumsum(counts) - counts
    track_ids = np.zeros(int(counts.sum()), np.int32)
    rows: list[tuple[object, ...]] = []
    found = _Found(detections, counts, together)
    for video, at in _clips(images):
        numbers, times = images["frame"].to_numpy()[at], _times(images["timestamp_s"].take(pa.array(at)))
        frames = (
            Frame(number, time, found.of(row))
            for number, time, row in zip(numbers.tolist(), times.tolist(), at.tolist(), strict=True)
        )
        ids, tracks = track(frames, usual_step(times), settings)
        for row, of_frame in zip(at.tolist(), ids, strict=True):
            track_ids[firsts[row] : firsts[row] + counts[row]] = of_frame
        rows += [
            (
                video,
                one.track_id,
                one.category_id,
                found.names[one.category_id],
                one.first_frame,
                one.last_frame,
                one.first_s,
                one.last_s,
                one.length,
                one.mean_score,
            )
            for one in tracks
        ]
    columns = zip(*rows, strict=True) if rows else [()] * len(TRACKS)
    table = pa.table([pa.array(each, f.type) for each, f in zip(columns, TRACKS, strict=True)], TRACKS)
    return PartTracks(track_ids, table)


def with_track_ids(detections: pa.Table, ids: NDArray[np.int32]) -> pa.Table:
    """`detections` with the column `track_id` filled in; 0 where one has no track."""
    position = detections.schema.get_field_index("track_id")
    return detections.set_column(position, detections.schema.field(position), pa.array(ids, mask=ids == 0))


class _Found:
    """What was found in each image of a part; some images are read at a time."""

    def __init__(self, detections: Callable[[int, int], pa.Table], counts: NDArray[np.int32], together: int) -> None:
        self._detections = detections
        self._counts = counts
        self._together = together
        self._begin = -1
        #: Of the categories, by id.
        self.names: dict[int, str] = {}

    def of(self, row: int) -> Detections:
        begin = row - row % self._together
        if begin != self._begin:
            table = self._detections(begin, min(begin + self._together, len(self._counts)))
            self._begin, self._found = begin, found_in(table)
            counts = self._counts[begin : begin + self._together]
            self._firsts = np.cumsum(counts) - counts
            self.names.update(zip(table["category_id"].to_pylist(), table["category"].to_pylist(), strict=True))
        first = int(self._firsts[row - begin])
        return self._found.take(np.arange(first, first + int(self._counts[row])))


def usual_step(times: NDArray[np.float64]) -> float:
    """The median of the times between frames, in seconds; `times` in order."""
    steps = np.diff(times)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else _ANY_STEP


def _times(times: pa.ChunkedArray) -> NDArray[np.float64]:
    """Times in seconds; one that is not known is that of the frame before."""
    seconds = times.to_numpy()
    last = np.maximum.accumulate(np.where(np.isnan(seconds), -np.inf, seconds))
    return np.where(np.isinf(last), 0.0, last)


def _clips(images: pa.Table) -> Iterator[tuple[str, NDArray[np.intp]]]:
    """Each clip, by name, and its rows in `images` in the order of its frames."""
    videos = images["video"].to_pylist()
    frames = images["frame"].to_numpy()
    rows: dict[str, list[int]] = {}
    for row, video in enumerate(videos):
        if video is not None:
            rows.setdefault(video, []).append(row)
    for video in sorted(rows, key=str.encode):
        at = np.array(rows[video])
        yield video, at[np.argsort(frames[at], kind="stable")]
