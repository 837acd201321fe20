"""Clips on the page of a run: what is said of them, and which frames are shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from beam_jobs import storage
from beam_jobs.cli.main import main
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import decode
from beam_jobs.imaging.video_frames import pick_frames
from beam_jobs.report import from_clips
from beam_jobs.report.content import RunContent
from beam_jobs.report.frames import ClipFrames
from beam_jobs.report.from_run import run_content
from beam_jobs.report.numbers import clock
from beam_jobs.report.run_page import run_page
from tests.clips import make_clip, number_of
from tests.live_streams import mjpeg_server
from tests.pictures import write_pictures

FAKE = "--model=tests.fake_detectors:colours"
BLUE = (0, 0, 255)


def flashing(frames: int, blue: range, red: range) -> list[np.ndarray]:
    """Black frames, in some of which there is a blue square, and in some a red one."""
    made = []
    for number in range(frames):
        pixels = np.zeros((64, 96, 3), np.uint8)
        if number in blue:
            pixels[8:24, 8:24] = BLUE
        if number in red:
            pixels[32:56, 40:64] = (255, 0, 0)
        made.append(pixels)
    return made


def content(output: Path, *words: str, folder: str = "", budget: int | None = None) -> RunContent:
    assert main(["detect", f"--output={output}", FAKE, *words]) == 0
    return run_content(str(output), storage.read_bytes, folder=folder, budget=budget)


def test_a_clip_has_a_timeline_and_stills_at_its_peaks(tmp_path):
    # At 10 frames a second: red from 2 s to 8 s, blue from 5 s to 6 s.
    make_clip(tmp_path / "in/clip.mp4", 100, rate=10, pictures=flashing(100, range(50, 60), range(20, 80)))
    names = write_pictures(tmp_path / "in", 3)
    shown = content(tmp_path / "out", f"--input={tmp_path}/in", "--annotate", folder="../out")
    assert [item.file_name for item in shown.gallery] == names
    (row,) = shown.clips.listed
    assert (row.video, row.frames, row.begin_s, row.end_s) == ("clip.mp4", 100, 0.0, 10.0)
    assert (row.detections, row.most, row.classes) == (70, 2, ("red", "blue"))
    (clip,) = shown.clips.shown
    assert clip.annotated == "../out/annotated/clip.mp4"
    lanes = dict(clip.timeline.lanes)
    assert list(lanes) == ["red", "blue"]
    middles = (np.array(clip.timeline.edges[1:]) + clip.timeline.edges[:-1]) / 2
    assert len(middles) == 80
    for name, begin, end in (("red", 2, 8), ("blue", 5, 6)):
        inside = (middles > begin + 0.1) & (middles < end - 0.1)
        outside = (middles < begin - 0.1) | (middles > end + 0.1)
        assert set(np.array(lanes[name])[inside]) == {1.0}
        assert set(np.array(lanes[name])[outside]) == {0.0}
    # The peak is where both are; the others are the first that are far enough from it.
    assert clip.timeline.stills == pytest.approx((2.0, 5.0, 6.7))
    assert [still.file_name for still in clip.stills] == ["clip.mp4#000020", "clip.mp4#000050", "clip.mp4#000067"]
    assert [still.caption for still in clip.stills] == [
        "0:02.0: 1 × red",
        "0:05.0: 1 × red, 1 × blue",
        "0:06.7: 1 × red",
    ]
    for still, blue in zip(clip.stills, (False, True, False), strict=True):
        assert still.picture is not None
        assert (decode(still.picture.jpeg).pixels[10:22, 10:22, 2].mean() > 128) == blue
    page = run_page(shown).decode()
    assert 'href="../out/annotated/clip.mp4"' in page
    assert "still at 0:05.0" in page
    assert "blue, 0:05.0 to 0:06.0: 1 a frame" in page


def test_the_page_links_to_videos_from_where_it_is(tmp_path):
    make_clip(tmp_path / "in/a b.mp4", 5)
    output, page = tmp_path / "out", tmp_path / "pages/report.html"
    page.parent.mkdir()
    assert main(["detect", f"--input={tmp_path}/in", f"--output={output}", FAKE, "--annotate"]) == 0
    assert main(["report", str(output), f"--output={page}"]) == 0
    assert 'href="../out/annotated/a%20b.mp4"' in page.read_text()
    assert (page.parent / "../out/annotated/a b.mp4").exists()


def test_the_clips_in_which_most_was_found_are_shown(tmp_path, monkeypatch):
    for name, frames in (("c", 4), ("a", 9), ("d", 2), ("b", 6)):
        make_clip(tmp_path / f"in/{name}.mp4", frames)
    monkeypatch.setattr(from_clips, "MOST_LISTED", 3)
    monkeypatch.setattr(from_clips, "MOST_SHOWN", 2)
    shown = content(tmp_path / "out", f"--input={tmp_path}/in", "--part_size=2", "--track").clips
    assert [(row.video, row.frames) for row in shown.listed] == [("a.mp4", 9), ("b.mp4", 6), ("c.mp4", 4)]
    assert [clip.video for clip in shown.shown] == ["a.mp4", "b.mp4"]
    assert shown.all == 4
    assert shown.tracked
    assert all(row.tracks > 0 for row in shown.listed)


def test_a_clip_that_is_gone_and_one_in_which_nothing_is(tmp_path):
    make_clip(tmp_path / "in/gone.mp4", 5)
    make_clip(tmp_path / "in/dark.mp4", 5, pictures=flashing(5, range(0), range(0)))
    words = (f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE)
    assert main(["detect", *words]) == 0
    (tmp_path / "in/gone.mp4").unlink()
    shown = run_content(str(tmp_path / "out"), storage.read_bytes)
    dark, gone = shown.clips.shown
    assert (dark.timeline.lanes, dark.stills) == ((), ())
    assert [(still.picture, still.missing) for still in gone.stills] == [
        (None, "The picture cannot be read: No such file or directory")
    ] * len(gone.stills)
    assert gone.stills
    page = run_page(shown).decode()
    assert "Nothing was found that counts." in page
    assert run_content(str(tmp_path / "out"), storage.read_bytes, budget=0).clips.shown[1].stills == ()


def test_a_run_of_which_no_frame_was_chosen_says_so(tmp_path):
    make_clip(tmp_path / "in/clip.mp4", 5)
    shown = content(tmp_path / "out", f"--input={tmp_path}/in", "--start=10")
    assert dict(shown.counts)["clips without a frame that was asked for"] == 1
    page = run_page(shown).decode()
    assert "There was nothing to do." in page
    assert "Every input gave a result." not in page


def test_what_was_live_has_a_timeline_and_no_stills(tmp_path):
    with mjpeg_server(rate=40) as (address, _):
        words = [f"--input={address}", "--input_format=stream", "--max_frames=4"]
        shown = content(tmp_path / "out", *words)
    (stream,) = shown.clips.shown
    assert stream.is_live
    assert (stream.stills, stream.timeline.stills) == ((), ())
    assert stream.timeline.lanes
    assert "A live stream cannot be read again" in run_page(shown).decode()
    frames = ClipFrames()
    with pytest.raises(InputError, match="cannot be read again"):
        frames.read(frames.want(stream.video, 0))


def test_a_run_of_pictures_has_no_clips(tmp_path):
    write_pictures(tmp_path / "in", 2)
    shown = content(tmp_path / "out", f"--input={tmp_path}/in")
    assert shown.clips.listed == ()
    assert 'id="clips"' not in run_page(shown).decode()


@pytest.mark.parametrize("name", ["b.mp4", "b.avi"])
def test_frames_are_picked_by_their_numbers(tmp_path, name):
    # AVI does not say in which order frames are shown: it is read from its beginning.
    clip = make_clip(tmp_path / name, 60, options={"bf": "2"})
    frames = list(pick_frames(str(clip), [41, 7, 0, 59, 60, 1000, -1]))
    assert [frame.number for frame in frames] == [0, 7, 41, 59]
    for frame in frames:
        assert not isinstance(frame.picture, InputError)
        assert number_of(frame.picture.pixels) == frame.number
    assert list(pick_frames(str(clip), [])) == []


def test_frames_of_what_is_no_clip_are_refused(tmp_path):
    (tmp_path / "text.mp4").write_text("no clip")
    with pytest.raises(InputError, match="no clip"):
        list(pick_frames(str(tmp_path / "text.mp4"), [0]))
    frames = ClipFrames()
    clip = make_clip(tmp_path / "short.mp4", 3)
    sources = [frames.want(str(clip), number) for number in (2, 3)]
    assert sources[0] in frames
    assert number_of(decode(frames.read(sources[0])).pixels) == 2
    with pytest.raises(InputError, match="does not have it"):
        frames.read(sources[1])


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0:00.0"), (4.25, "0:04.2"), (59.96, "1:00.0"), (3723.4, "1:02:03.4"), (-1.5, "−0:01.5")],
)
def test_times_in_clips_are_written_as_players_do(seconds, said):
    assert clock(seconds) == said


def test_evaluations_show_frames_of_clips(tmp_path):
    make_clip(tmp_path / "in/clip.mp4", 12)
    out, truth = tmp_path / "out", tmp_path / "truth.json"
    assert main(["detect", f"--input={tmp_path}/in", f"--output={out}", FAKE]) == 0
    # What was found as the truth, but for the last frame.
    dataset = json.loads((out / "coco/dataset.json").read_bytes())
    last = max(image["id"] for image in dataset["images"])
    found = json.loads((out / "coco/detections.json").read_bytes())
    found = [{**one, "id": number, "iscrowd": 0} for number, one in enumerate(found, 1)]
    dataset["annotations"] = [one for one in found if one["image_id"] != last]
    truth.write_text(json.dumps(dataset))
    words = [f"--detections={out}", f"--ground_truth={truth}", f"--output={tmp_path}/evaluation"]
    assert main(["evaluate", *words]) == 0
    page = (tmp_path / "evaluation/report.html").read_text()
    assert "clip.mp4#000011" in page
    assert "cannot be shown" not in page
    assert "data:image/jpeg" in page
