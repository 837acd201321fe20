"""Annotated clips: made of committed tables and the clips themselves, in ranges, by processes."""

import json
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pytest

from beam_jobs.formats.tables import DETECTIONS
from beam_jobs.imaging.draw import class_colour, draw
from beam_jobs.imaging.video_ranges import FrameChoice
from beam_jobs.processes import clips as module
from beam_jobs.processes.annotate import Annotation
from beam_jobs.processes.clips import Drawing, annotate_clip, annotate_clips
from beam_jobs.runs.clips import Clip
from beam_jobs.runs.parts import Counts, PartRecord, write_table
from beam_jobs.runs.plan import Plan
from beam_jobs.transforms import finish
from tests.clips import make_clip
from tests.made_clips import frames_of, sound_of, times_of

DRAWING = Drawing(Annotation(), {1: "person"}, FrameChoice(), False, 1 << 26)
#: The box of frame n has its left side here.
LEFT = [4 + n % 30 for n in range(200)]
#: Of the part that all clips are in, but for its files.
RECORD = PartRecord(0, Counts(), [])


def write_tables(root: Path, video: str, frames: list[int], size=(96, 64)) -> None:
    """The tables of a part in which a person was found in each of `frames`."""
    n = len(frames)
    images = pa.table(
        {
            "video": [video] * n,
            "frame": pa.array(frames, pa.int32()),
            "width": pa.array([size[0]] * n, pa.int32()),
            "height": pa.array([size[1]] * n, pa.int32()),
            "num_detections": pa.array([1] * n, pa.int32()),
        }
    )
    left = np.array([LEFT[frame] for frame in frames], np.float32)
    columns = {name: pa.nulls(n, DETECTIONS.field(name).type) for name in DETECTIONS.names}
    columns |= {
        "image_id": pa.array(range(n)),
        "file_name": pa.array([video] * n),
        "frame": pa.array(frames, pa.int32()),
        "rank": pa.array([0] * n, pa.int32()),
        "category_id": pa.array([1] * n, pa.int32()),
        "category": pa.array(["person"] * n),
        "score": pa.array([0.9] * n, pa.float32()),
        "area": pa.array([900] * n, pa.float32()),
        "track_id": pa.array([7] * n, pa.int32()),
        **{"xmin": left, "ymin": np.full(n, 24, np.float32), "xmax": left + 50, "ymax": np.full(n, 60, np.float32)},
    }
    tables = (("images", images), ("detections", pa.table(columns, schema=DETECTIONS)))
    files = [write_table(str(root), f"{name}/part-00000.parquet", table, ()) for name, table in tables]
    PartRecord(0, Counts(), files).write(str(root))


def here(function: Callable[..., Any], *args: Any) -> Future[Any]:
    done: Future[Any] = Future()
    try:
        done.set_result(function(*args))
    except Exception as error:
        done.set_exception(error)
    return done


@pytest.fixture
def annotate(tmp_path, monkeypatch):
    """Annotates a clip of which some frames were looked at; returns its annotated video and what was said."""

    def made(source: Path, frames: list[int], drawing: Drawing = DRAWING, processes: int = 0, root: str = "run"):
        clip = Clip(str(tmp_path / root), RECORD.path, str(source), source.name, f"annotated/{source.name}.mp4")
        write_tables(tmp_path / root, source.name, frames)
        monkeypatch.setattr(module, "clips_of", lambda *_: [clip])
        module._rows.cache_clear()
        if processes:
            return tmp_path / root / clip.annotated, annotate_clips(clip.root, [RECORD], drawing, processes)
        return tmp_path / root / clip.annotated, annotate_clip(clip, drawing, here)

    return made


def left_of_box(pixels: np.ndarray, source: np.ndarray) -> int:
    """Where the left side of the box is that was drawn on a frame: of all places the one that looks most alike."""

    def differs(left: int) -> float:
        box = np.array([[left, 24, left + 50, 60]], np.float32)
        drawn = draw(source, box, ["person 0.90 #7"], [class_colour(1)])
        return float(np.abs(pixels.astype(int) - drawn).mean())

    return min(range(4, 34), key=differs)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.mp4", {"options": {"bf": "2", "g": "10"}, "audio": True}),
        ("in.mkv", {"times": [0, 40, 50, 200, 240] + [300 + 33 * n for n in range(55)]}),
    ],
)
def test_frames_times_and_sound_are_those_of_the_clip(tmp_path, annotate, monkeypatch, name, options):
    monkeypatch.setattr(module, "SEGMENT_FRAMES", 20)  # three segments
    source = make_clip(tmp_path / name, 60, **options)
    video, notes = annotate(source, list(range(60)))
    assert notes == []
    assert times_of(video) == times_of(source)
    drawn, shown = frames_of(video), frames_of(source)
    assert [left_of_box(drawn[n], shown[n]) for n in range(0, 60, 7)] == LEFT[0:60:7]
    if "audio" in options:
        assert [data for _, data in sound_of(video)] == [data for _, data in sound_of(source)]


def test_the_number_of_processes_does_not_change_the_bytes(tmp_path, annotate):
    source = make_clip(tmp_path / "in.mp4", 60, options={"g": "10"}, audio=True)
    one, _ = annotate(source, list(range(60)), root="one")
    two, _ = annotate(source, list(range(60)), processes=2, root="two")
    assert one.read_bytes() == two.read_bytes()


def test_between_frames_that_were_looked_at_the_last_boxes_stay(tmp_path, annotate):
    source = make_clip(tmp_path / "in.mp4", 30)
    held = Drawing(Annotation(), {1: "person"}, FrameChoice(), True, 1 << 26)
    video, _ = annotate(source, list(range(0, 30, 10)), held)
    assert times_of(video) == times_of(source)
    drawn, shown = frames_of(video), frames_of(source)
    assert [left_of_box(drawn[n], shown[n]) for n in (9, 10, 11, 29)] == [4, 14, 14, 24]


def test_a_span_begins_at_zero_and_has_its_sound(tmp_path, annotate):
    source = make_clip(tmp_path / "in.mp4", 100, audio=True)
    span = Drawing(Annotation(), {1: "person"}, FrameChoice(start_s=1.0, end_s=3.0), False, 1 << 26)
    video, _ = annotate(source, list(range(25, 75)), span)
    assert times_of(video) == [time - 1 for time in times_of(source)[25:75]]
    with av.open(str(video)) as opened:
        assert opened.duration / av.time_base == pytest.approx(2, abs=0.1)


def test_mpeg_ts_begins_at_zero(tmp_path, annotate):
    source = make_clip(tmp_path / "in.ts", 30, format="mpegts", times=[100_000 + 40 * n for n in range(30)])
    video, _ = annotate(source, list(range(30)))
    times = times_of(source)
    assert times[0] > 99
    assert times_of(video) == [time - times[0] for time in times]


def test_a_clip_that_is_gone_is_said_and_what_is_there_stays(tmp_path, annotate):
    source = make_clip(tmp_path / "in.mp4", 10)
    video, _ = annotate(source, list(range(10)))
    before = video.stat().st_mtime_ns
    annotate(source, list(range(10)), processes=1)
    assert video.stat().st_mtime_ns == before
    video.unlink()
    source.write_bytes(b"no clip any more")
    _, notes = annotate(source, list(range(10)))
    assert not video.exists()
    said = "in.mp4: no annotated video: The clip is not what it was when its frames were looked at."
    assert [(note.code, str(note)) for note in notes] == [("changed", said)]


class Killing(str):
    """The path of a clip that kills the process that is given it."""

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


def test_a_clip_that_kills_its_process_costs_its_own_video_alone(tmp_path, monkeypatch):
    clips = []
    for name in ("a", "b", "c", "d"):
        source = make_clip(tmp_path / f"{name}.mp4", 10)
        write_tables(tmp_path / name, source.name, list(range(10)))
        uri = Killing(source) if name == "b" else str(source)
        clips.append(Clip(str(tmp_path / name), RECORD.path, uri, source.name, f"annotated/{source.name}"))
    monkeypatch.setattr(module, "clips_of", lambda *_: clips)
    notes = annotate_clips(str(tmp_path), [RECORD], DRAWING, 2)
    assert [(note.video, note.code) for note in notes] == [("b.mp4", "crashed")]
    made = [(tmp_path / name / f"annotated/{name}.mp4").exists() for name in ("a", "b", "c", "d")]
    assert made == [True, False, True, True]


class KillingDrawing(Drawing):
    """Kills the process that is given it."""

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


def test_on_another_runner_it_does_not_cost_the_worker(tmp_path, monkeypatch):
    source = make_clip(tmp_path / "a.mp4", 10)
    write_tables(tmp_path / "run", source.name, list(range(10)))
    clip = Clip(str(tmp_path / "run"), RECORD.path, str(source), source.name, "annotated/a.mp4")
    monkeypatch.setattr(module, "clips_of", lambda *_: [clip])
    monkeypatch.setattr(Plan, "read", lambda _: SimpleNamespace(job={}))
    monkeypatch.setattr(Drawing, "of", lambda _: KillingDrawing(Annotation(), {}, FrameChoice(), False, 1))
    assert finish._annotated(0, str(tmp_path / "run"), "1f2e3d4c", ()) == 0
    (log,) = (tmp_path / "run/log").iterdir()
    (line,) = map(json.loads, log.read_bytes().splitlines())
    assert (line["stage"], line["code"], line["input"]) == ("annotate", "crashed", str(source))
