"""Tracks in the tables of a part: `track_id` of its detections, and the table `tracks`. A clip is in one part whole."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs.formats.found_rows import found_in
from beam_jobs.formats.tables import TRACKS
from beam_jobs.tracking.tracker import Frame, Tracking, track

#: The step of a clip of which one frame was seen, in seconds: any would do.
_ANY_STEP = 1 / 30


def with_tracks(images: pa.Table, detections: pa.Table, settings: Tracking) -> tuple[pa.Table, pa.Table]:
    """`detections` with the column `track_id` filled in, and rows of `tracks`, by clip and id.

    Args:
        images, detections: all rows of a part, in its order. Those that are not of a clip have no track.
    """
    counts = images["num_detections"].to_numpy()
    firsts = np.cumsum(counts) - counts
    found = found_in(detections)
    track_ids = np.zeros(len(detections), np.int32)
    rows: list[tuple[object, ...]] = []
    names: dict[int, str] = dict(
        zip(detections["category_id"].to_pylist(), detections["category"].to_pylist(), strict=True)
    )
    for video, at in _clips(images):
        numbers, times = images["frame"].to_numpy()[at], _times(images["timestamp_s"].take(pa.array(at)))
        where = [np.arange(firsts[i], firsts[i] + counts[i]) for i in at.tolist()]
        frames = (
            Frame(number, time, found.take(rows_of_it))
            for number, time, rows_of_it in zip(numbers.tolist(), times.tolist(), where, strict=True)
        )
        ids, tracks = track(frames, usual_step(times), settings)
        for rows_of_it, of_frame in zip(where, ids, strict=True):
            track_ids[rows_of_it] = of_frame
        rows += [
            (
                video,
                one.track_id,
                one.category_id,
                names[one.category_id],
                one.first_frame,
                one.last_frame,
                one.first_s,
                one.last_s,
                one.length,
                one.mean_score,
            )
            for one in tracks
        ]
    column = pa.array(track_ids, mask=track_ids == 0)
    position = detections.schema.get_field_index("track_id")
    detections = detections.set_column(position, detections.schema.field(position), column)
    columns = zip(*rows, strict=True) if rows else [()] * len(TRACKS)
    return detections, pa.table([pa.array(each, f.type) for each, f in zip(columns, TRACKS, strict=True)], TRACKS)


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
