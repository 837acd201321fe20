"""Annotated clips: the frames and times of the input, however many segments they have; and a browser plays them."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from beam_jobs.imaging.draw import class_colour, draw
from beam_jobs.imaging.video_writer import ClipFormat, join_segments, write_segment
from tests.made_clips import frames_of, pixels_of, real_clip, sound_of, times_of, write_clip

VARIABLE = [0, 1, 4, 5, 9, 10, 11, 12, 20, 30, 31, 32, 40, 44, 45, 50]


def begin_of(opened) -> Fraction:
    """Seconds: where a clip begins whose clock may show any time then."""
    return Fraction(opened.start_time, av.time_base) if opened.format.name == "mpegts" else Fraction(0)


def rewritten(source: Path, folder: Path, segments: int = 1, target: str = "out.mp4") -> Path:
    """The clip written again in so many segments, with its sound."""
    with av.open(str(source)) as opened:
        stream = opened.streams.video[0]
        clip = ClipFormat(stream.width, stream.height, stream.time_base, stream.average_rate)
        begin = begin_of(opened)
        frames = [(frame.pts, frame.to_ndarray(format="rgb24")) for frame in opened.decode(stream)]
    paths = []
    for i, part in enumerate(np.array_split(np.arange(len(frames)), segments)):
        paths.append(folder / f"{segments}-{i}.nut")
        assert write_segment(paths[-1], [frames[k] for k in part], clip) == len(part)
    with av.open(str(source)) as opened:
        assert join_segments(folder / target, paths, clip, source=opened, begin=begin) == []
    return folder / target


@pytest.mark.parametrize(
    ("name", "times", "time_base", "options"),
    [
        ("constant.mp4", range(30), Fraction(1, 25), {}),
        ("ntsc.mp4", range(0, 30030, 1001), Fraction(1, 30000), {}),
        ("variable.mp4", VARIABLE, Fraction(1, 90), {}),
        ("variable.mkv", VARIABLE, Fraction(1, 90), {}),
        ("b-frames.mp4", range(30), Fraction(1, 25), {"bf": "3", "b-pyramid": "normal"}),
        ("one.mp4", [0], Fraction(1, 25), {}),
        ("late.mp4", range(7, 30), Fraction(1, 24), {}),
    ],
)
def test_frames_and_times_are_those_of_the_input(tmp_path, name, times, time_base, options):
    source = write_clip(tmp_path / name, list(times), time_base=time_base, options=options)
    written = rewritten(source, tmp_path)
    assert times_of(written) == times_of(source)
    assert len(times_of(written)) == len(times)


@pytest.mark.parametrize("times", [list(range(30)), VARIABLE], ids=["constant", "variable"])
def test_any_number_of_segments_joins_to_the_same_times(tmp_path, times):
    source = write_clip(tmp_path / "in.mp4", times, time_base=Fraction(1, 90), options={"bf": "2"}, sound="aac")
    written = [rewritten(source, tmp_path, n, f"{n}.mp4") for n in (1, 2, 7)]
    assert [times_of(path) for path in written] == [times_of(source)] * 3
    assert [sound_of(path) for path in written] == [sound_of(source)] * 3
    for path in written:
        for number, pixels in enumerate(frames_of(path)):
            assert np.abs(pixels.astype(int) - pixels_of(number)).mean() < 3


def test_real_clips_keep_their_times(tmp_path):
    for source in (real_clip("bikes.mp4"), real_clip("carphone_pristine.mp4")):
        with av.open(str(source)) as opened:
            stream = opened.streams.video[0]
            clip = ClipFormat(stream.width, stream.height, stream.time_base, stream.average_rate)
            times = sorted(packet.pts for packet in opened.demux(stream) if packet.pts is not None)
        blank = np.zeros((clip.height, clip.width, 3), np.uint8)
        parts = [times[:100], times[100:]]
        paths = [tmp_path / f"{i}.nut" for i in range(2)]
        for path, part in zip(paths, parts, strict=True):
            write_segment(path, ((time, blank) for time in part), clip)
        join_segments(tmp_path / "out.mp4", paths, clip)
        assert times_of(tmp_path / "out.mp4") == [time * clip.time_base for time in times]


def test_the_same_frames_give_the_same_bytes(tmp_path):
    source = write_clip(tmp_path / "in.mp4", list(range(30)), sound="aac")
    assert rewritten(source, tmp_path, 2).read_bytes() == rewritten(source, tmp_path, 2, "again.mp4").read_bytes()


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "libopus"), ("mkv", "mp3"), ("ts", "aac")])
def test_sound_is_copied(tmp_path, suffix, codec):
    source = write_clip(tmp_path / f"in.{suffix}", list(range(50)), sound=codec)
    written = rewritten(source, tmp_path, 2)
    with av.open(str(source)) as opened, av.open(str(written)) as copy:
        begin = begin_of(opened)
        names = [[stream.codec_context.name for stream in clip.streams.audio] for clip in (opened, copy)]
        assert names[0] == names[1]
    old, new = sound_of(source), sound_of(written)
    assert len(old) == len(new) > 80
    for (time, data), (copied_time, copied) in zip(old, new, strict=True):
        assert data.endswith(copied)  # in MPEG-TS there is a header before each
        assert copied_time == pytest.approx(float(time - begin), abs=1e-3)
    assert times_of(written) == pytest.approx([float(time - begin) for time in times_of(source)], abs=1e-3)


def test_sound_that_mp4_cannot_hold_is_left_out_and_named(tmp_path):
    source = write_clip(tmp_path / "in.avi", list(range(10)), sound="adpcm_ms")
    clip = ClipFormat(64, 48, Fraction(1, 25), Fraction(25))
    write_segment(tmp_path / "s.nut", [(n, pixels_of(n)) for n in range(10)], clip)
    with av.open(str(source)) as opened:
        notes = join_segments(tmp_path / "out.mp4", [tmp_path / "s.nut"], clip, source=opened)
    assert notes == ["sound left out: MP4 cannot hold adpcm_ms"]
    assert len(times_of(tmp_path / "out.mp4")) == 10


def test_sound_of_a_span(tmp_path):
    source = write_clip(tmp_path / "in.mp4", list(range(100)), sound="aac")
    clip = ClipFormat(64, 48, Fraction(1, 25), Fraction(25))
    write_segment(tmp_path / "s.nut", [(n, pixels_of(n)) for n in range(25, 75)], clip)
    with av.open(io.BytesIO(source.read_bytes())) as opened:
        span = {"begin": Fraction(1), "end": Fraction(3)}
        join_segments(tmp_path / "out.mp4", [tmp_path / "s.nut"], clip, source=opened, **span)
    assert times_of(tmp_path / "out.mp4") == [Fraction(n, 25) for n in range(50)]
    with av.open(str(tmp_path / "out.mp4")) as written:
        sound = np.concatenate([frame.to_ndarray() for frame in written.decode(audio=0)], axis=1)
        assert written.duration / av.time_base == pytest.approx(2, abs=0.05)
    assert 1.9 * 48000 < sound.shape[1] < 2.1 * 48000


@pytest.mark.parametrize("size", [(63, 48), (64, 47), (33, 31), (1, 1)])
def test_odd_sizes_get_one_more_pixel(tmp_path, size):
    clip = ClipFormat(size[0], size[1], Fraction(1, 25), Fraction(25))
    pixels = np.full((size[1], size[0], 3), (200, 30, 90), np.uint8)
    write_segment(tmp_path / "s.nut", [(0, pixels)], clip)
    join_segments(tmp_path / "out.mp4", [tmp_path / "s.nut"], clip)
    (written,) = frames_of(tmp_path / "out.mp4")
    assert written.shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert np.abs(written.astype(int) - (200, 30, 90)).max() <= 4  # the last column is not black, and colours are right


def test_the_index_is_in_front(tmp_path):
    clip = ClipFormat(64, 48, Fraction(1, 25), Fraction(25))
    write_segment(tmp_path / "s.nut", [(0, pixels_of(0))], clip)
    join_segments(tmp_path / "out.mp4", [tmp_path / "s.nut"], clip)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_what_does_not_belong_together_is_refused(tmp_path):
    clip = ClipFormat(64, 48, Fraction(1, 25), Fraction(25))
    with pytest.raises(ValueError, match="must be above 0"):
        ClipFormat(0, 48, Fraction(1, 25), Fraction(25))
    with pytest.raises(ValueError, match="must have a frame"):
        write_segment(tmp_path / "a.nut", [], clip)
    with pytest.raises(ValueError, match=r"frames must be \[48, 64, 3\], got \[48, 32, 3\]"):
        write_segment(tmp_path / "a.nut", [(0, pixels_of(0, 32))], clip)
    with pytest.raises(ValueError, match="times must increase, got 3 after 3"):
        write_segment(tmp_path / "a.nut", [(3, pixels_of(0)), (3, pixels_of(1))], clip)
    write_segment(tmp_path / "a.nut", [(3, pixels_of(0))], clip)
    with pytest.raises(ValueError, match=r"segment a\.nut begins before the last one ends"):
        join_segments(tmp_path / "out.mp4", [tmp_path / "a.nut"] * 2, clip)
    write_segment(tmp_path / "b.nut", [(9, pixels_of(0, 32))], ClipFormat(32, 48, clip.time_base, clip.rate))
    with pytest.raises(ValueError, match=r"segment b\.nut was encoded otherwise"):
        join_segments(tmp_path / "out.mp4", [tmp_path / "a.nut", tmp_path / "b.nut"], clip)
    with pytest.raises(ValueError, match="must have a segment"):
        join_segments(tmp_path / "out.mp4", [], clip)


@pytest.mark.browser
def test_a_browser_plays_seeks_and_shows_the_boxes(tmp_path, browser):
    """Thirty frames a second for three seconds; a box of class 1 in the first half, elsewhere one of class 2."""
    clip = ClipFormat(320, 240, Fraction(1, 30), Fraction(30))
    pixels = np.full((240, 320, 3), 90, np.uint8)
    early = draw(pixels, np.array([[20, 40, 120, 200]], np.float32), ["person 0.87 #3"], [class_colour(1)])
    late = draw(pixels, np.array([[180, 60, 300, 220]], np.float32), ["bicycle 0.91 #4"], [class_colour(2)])
    for i, (drawn, begin) in enumerate(((early, 0), (late, 45))):
        write_segment(tmp_path / f"{i}.nut", [(n, drawn) for n in range(begin, begin + 45)], clip)
    source = write_clip(tmp_path / "in.mp4", list(range(90)), time_base=Fraction(1, 30), sound="aac")
    with av.open(str(source)) as opened:
        join_segments(tmp_path / "out.mp4", [tmp_path / "0.nut", tmp_path / "1.nut"], clip, source=opened)
    (tmp_path / "page.html").write_text("<body style='margin:0'><video src=out.mp4 muted style='display:block'>")
    browser.get((tmp_path / "page.html").as_uri())

    def at(time: float) -> np.ndarray:
        browser.execute_async_script(
            """const [time, done] = arguments, video = document.querySelector('video')
            const seek = () => { video.onseeked = () => requestAnimationFrame(() => requestAnimationFrame(done))
                                 video.currentTime = time }
            video.onerror = () => done(video.error.message)
            video.readyState >= 2 ? seek() : video.onloadeddata = seek""",
            time,
        )
        shot = browser.find_element("css selector", "video").screenshot_as_png
        with av.open(io.BytesIO(shot)) as opened:
            return np.array(next(opened.decode(video=0)).to_ndarray(format="rgb24"), int)

    video = "const v = document.querySelector('video'); return "
    first, second = at(0.5), at(2.5)
    assert first.shape == (240, 320, 3)
    assert browser.execute_script(video + "[v.videoWidth, v.videoHeight, v.duration, v.currentTime]") == pytest.approx(
        [320, 240, 3, 2.5], abs=0.1
    )
    assert np.abs(first - early).mean() < 6
    assert np.abs(second - late).mean() < 6
    browser.execute_async_script(video.split("return")[0] + "v.onended = arguments[0]; v.play()")
    assert browser.execute_script(video + "[v.ended, v.error]") == [True, None]
