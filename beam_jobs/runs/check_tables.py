"""Whether the rows of a part go together: pictures with their detections, boxes with their pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def pictures_of(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Problems of `images`: sizes, order, and one row of `timings` for each."""
    images = tables["images"]
    for side in ("width", "height"):
        if (wrong := int((images[side].to_numpy() <= 0).sum())) > 0:
            yield f"{wrong:,} pictures have no {side}"
    keys = list(zip(images["file_name"].to_pylist(), images["frame"].to_pylist(), strict=True))
    if [(name.encode(), frame) for name, frame in keys] != sorted((name.encode(), frame) for name, frame in keys):
        yield "the pictures are not in the order of their names"
    if images["image_id"] != tables["timings"]["image_id"]:
        yield "the rows of timings are not those of the pictures"


def detections_of(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Problems of `detections`: of which picture, in which order, and where in it."""
    images, detections = tables["images"], tables["detections"]
    counts = images["num_detections"].to_numpy()
    if counts.sum() != len(detections):
        yield f"{len(detections):,} detections; its pictures count {counts.sum():,}"
        return
    picture = np.repeat(np.arange(len(images)), counts)
    for column in ("image_id", "file_name", "frame"):
        expected = images[column].combine_chunks().take(pa.array(picture))
        if not expected.equals(detections[column].combine_chunks()):
            yield f"the {column} of some detections is not that of their pictures"
            return
    ends = np.cumsum(counts)
    rank = np.arange(len(detections)) - np.repeat(ends - counts, counts)
    if not np.array_equal(detections["rank"].to_numpy(), rank):
        yield "the ranks of some picture's detections are not 0, 1, 2 …"
    score = detections["score"].to_numpy()
    if wrong := int((~((score >= 0) & (score <= 1))).sum()):
        yield f"{wrong:,} scores are not between 0 and 1"
    if wrong := int(((score[1:] > score[:-1]) & (rank[1:] > 0)).sum()):
        yield f"{wrong:,} detections have a better score than the one before them"
    width, height = (images[side].to_numpy()[picture] for side in ("width", "height"))
    yield from _boxes(detections, width, height)
    yield from _shapes(detections, width, height)


def tracks_of(tables: Mapping[str, pa.Table]) -> Iterator[str]:
    """Problems of `tracks`: whether they say what the detections of their clips say."""
    images, detections = tables["images"], tables["detections"]
    tracked = np.flatnonzero(detections["track_id"].is_valid().to_numpy())
    if "tracks" not in tables:
        if len(tracked):
            yield f"{len(tracked):,} detections have a track, and there is no table of tracks"
        return
    videos = images["video"].take(pa.array(np.repeat(np.arange(len(images)), images["num_detections"].to_numpy())))
    found = pa.table(
        {
            "video": videos.take(pa.array(tracked)),
            **{name: detections[name].take(pa.array(tracked)) for name in ("track_id", "frame", "score")},
        }
    )
    sums = found.group_by(["video", "track_id"], use_threads=False).aggregate(
        [("frame", "min"), ("frame", "max"), ("frame", "count_distinct"), ("frame", "count"), ("score", "mean")]
    )
    said = {(row["video"], row["track_id"]): row for row in tables["tracks"].to_pylist()}
    if {(row["video"], row["track_id"]) for row in sums.to_pylist()} != said.keys():
        yield "the tracks are not those of the detections"
        return
    for row in sums.to_pylist():
        one = said[row["video"], row["track_id"]]
        frames = one["first_frame"], one["last_frame"], one["length"], one["length"]
        if frames != (row["frame_min"], row["frame_max"], row["frame_count_distinct"], row["frame_count"]):
            yield f"track {row['track_id']} of {row['video']} has other frames than its detections"
        elif abs(one["mean_score"] - row["score_mean"]) > 1e-5:
            yield f"track {row['track_id']} of {row['video']} has another mean score than its detections"


def _boxes(detections: pa.Table, width: NDArray[np.int32], height: NDArray[np.int32]) -> Iterator[str]:
    xmin, ymin, xmax, ymax = (detections[side].to_numpy() for side in ("xmin", "ymin", "xmax", "ymax"))
    inside = (xmin >= 0) & (ymin >= 0) & (xmax <= width) & (ymax <= height)
    if wrong := int((~inside).sum()):
        yield f"{wrong:,} boxes are not inside their pictures, as that of {_name(detections, ~inside)}"
    empty = ~((xmax > xmin) & (ymax > ymin))
    if wrong := int(empty.sum()):
        yield f"{wrong:,} boxes have no area, as that of {_name(detections, empty)}"
    area = (xmax.astype(np.float64) - xmin) * (ymax.astype(np.float64) - ymin)
    other = ~np.isclose(detections["area"].to_numpy(), area, rtol=1e-5)
    if wrong := int(other.sum()):
        yield f"{wrong:,} areas are not those of their boxes, as that of {_name(detections, other)}"


def _shapes(detections: pa.Table, width: NDArray[np.int32], height: NDArray[np.int32]) -> Iterator[str]:
    masks = detections["mask"].to_pylist()
    wrong = sum(
        mask is not None and mask["size"] != [rows, columns]
        for mask, rows, columns in zip(masks, height.tolist(), width.tolist(), strict=True)
    )
    if wrong:
        yield f"{wrong:,} masks are not of the size of their pictures"
    keypoints = detections["keypoints"].to_pylist()
    if wrong := sum(points is not None and (not points or len(points) % 3 != 0) for points in keypoints):
        yield f"{wrong:,} lists of keypoints are not x, y and score of each"


def _name(detections: pa.Table, rows: NDArray[np.bool_]) -> str:
    name: str = detections["file_name"][int(rows.argmax())].as_py()
    return name
