"""Tracks in the tables of a part."""

import numpy as np
import pyarrow as pa

from beam_jobs.formats.tables import DETECTIONS, TRACKS
from beam_jobs.formats.track_rows import tracks_of as tracked
from beam_jobs.formats.track_rows import usual_step, with_track_ids
from beam_jobs.runs.check_tables import tracks_of
from beam_jobs.tracking.tracker import Tracking

PLACES = {"a.mp4": (0.0, 2.0), "b.mp4": (200.0, -3.0)}  # where the object of each clip is, and how fast


def part(order=("a.mp4", "b.mp4"), frames=6):
    """`images` and `detections` of two clips with a moving object each, and of a picture between them."""
    images, rows = [], []
    for video in order:
        start, speed = PLACES[video]
        for frame in range(frames):
            x = start + speed * frame
            images.append({"video": video, "frame": frame, "timestamp_s": frame / 25, "num_detections": 2})
            rows += [(video, frame, 0, 0.9, x), (video, frame, 1, 0.3, 500.0 + 90 * frame)]
        images.append({"video": None, "frame": 0, "timestamp_s": None, "num_detections": 1})
        rows.append(("picture.png", 0, 0, 0.9, 0.0))
    columns = {name: pa.nulls(len(rows), DETECTIONS.field(name).type) for name in DETECTIONS.names}
    n = len(rows)
    left = np.array([row[4] for row in rows], np.float32)
    columns |= {
        "image_id": pa.array(range(n)),
        "file_name": pa.array([row[0] for row in rows]),
        "frame": pa.array([row[1] for row in rows], pa.int32()),
        "rank": pa.array([row[2] for row in rows], pa.int32()),
        "category_id": pa.array([3] * n, pa.int32()),
        "category": pa.array(["car"] * n),
        "score": pa.array([row[3] for row in rows], pa.float32()),
        **{"xmin": left, "ymin": np.zeros(n, np.float32), "xmax": left + 40, "ymax": np.full(n, 40, np.float32)},
        "area": np.full(n, 1600, np.float32),
    }
    return pa.Table.from_pylist(images), pa.table(columns, schema=DETECTIONS)


def with_tracks(images, detections, settings, together=1000):
    counts = images["num_detections"].to_numpy()
    firsts = np.cumsum([0, *counts])
    found = tracked(images, lambda low, high: detections[firsts[low] : firsts[high]], settings, together)
    return with_track_ids(detections, found.ids), found.table


def test_each_clip_has_tracks_of_its_own():
    images, detections = part()
    detections, tracks = with_tracks(images, detections, Tracking())
    assert tracks.schema.equals(TRACKS, check_metadata=True)
    assert [(row["video"], row["track_id"], row["length"]) for row in tracks.to_pylist()] == [
        ("a.mp4", 1, 6),
        ("b.mp4", 1, 6),
    ]
    first = tracks.to_pylist()[0]
    assert (first["category_id"], first["category"], first["first_frame"], first["last_frame"]) == (3, "car", 0, 5)
    assert (first["first_s"], first["last_s"]) == (0.0, 0.2)
    assert detections["track_id"].to_pylist() == ([1, None] * 6 + [None]) * 2
    assert detections.schema.equals(DETECTIONS, check_metadata=True)


def test_it_does_not_matter_how_many_images_are_read_at_a_time():
    images, detections = part()
    whole, some = (with_tracks(images, detections, Tracking(), together) for together in (1000, 4))
    assert whole == some


def test_the_order_of_clips_in_a_part_does_not_matter():
    (images, detections), (others, same) = part(), part(("b.mp4", "a.mp4"))
    assert with_tracks(images, detections, Tracking())[1] == with_tracks(others, same, Tracking())[1]


def test_a_frame_without_a_time_is_taken_with_the_one_before_it():
    images, detections = part(("a.mp4",))
    times = [0.0, 0.04, None, 0.12, 0.16, None, None]
    images = images.set_column(2, "timestamp_s", pa.array(times, pa.float64()))
    (row,) = with_tracks(images, detections, Tracking())[1].to_pylist()
    assert (row["length"], row["first_s"], row["last_s"]) == (6, 0.0, 0.16)


def test_pictures_have_no_tracks():
    images, detections = part(frames=0)
    detections, tracks = with_tracks(images, detections, Tracking())
    assert (len(tracks), detections["track_id"].null_count) == (0, 2)


def test_the_usual_step_is_the_median():
    assert usual_step(np.array([0, 0.25, 0.5, 4, 4.25])) == 0.25
    assert usual_step(np.array([3.0])) > 0


def test_check_finds_tracks_that_are_not_those_of_the_detections():
    images, detections = part()
    tracked, tracks = with_tracks(images, detections, Tracking())

    def problems(**changed):
        tables = {"images": images, "detections": tracked, "tracks": tracks} | changed
        return list(tracks_of({name: table for name, table in tables.items() if table is not None}))

    assert problems() == []
    assert problems(tracks=None) == ["12 detections have a track, and there is no table of tracks"]
    assert problems(detections=detections) == ["the tracks are not those of the detections"]
    longer = tracks.set_column(8, TRACKS.field("length"), pa.array([6, 7], pa.int32()))
    assert problems(tracks=longer) == ["track 1 of b.mp4 has other frames than its detections"]
    surer = tracks.set_column(9, TRACKS.field("mean_score"), pa.array([0.9, 0.95], pa.float32()))
    assert problems(tracks=surer) == ["track 1 of b.mp4 has another mean score than its detections"]
