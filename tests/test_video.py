"""Clips: which frames they have, and the same frames whatever the ranges."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from beam_jobs.cli.values import MAX_CLIP_FRAMES
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import Decoded
from beam_jobs.imaging.video import HEAD_BYTES, ClipFile, demuxer_of
from beam_jobs.imaging.video_index import ClipIndex, index_clip
from beam_jobs.imaging.video_ranges import MAX_FRAMES, Frame, FrameChoice, FrameRange, frames_of
from tests.clips import frame_pixels, make_clip, make_sound, number_of
from tests.pictures import encode, picture

ALL = FrameChoice()


def clip_file(path: Path) -> ClipFile:
    demuxer = demuxer_of(path.read_bytes()[:HEAD_BYTES])
    assert demuxer is not None
    return ClipFile(str(path), demuxer)


def read(part: FrameRange) -> list[Frame]:
    return list(frames_of(part, lambda _: None, 10_000_000))


def in_ranges(index: ClipIndex, size: int, choice: FrameChoice = ALL) -> list[Frame]:
    ranges = index.ranges(choice, size)
    assert [part.begin for part in ranges] == [0, *(part.end for part in ranges[:-1])]
    assert ranges[-1].end is None
    frames = []
    for part in ranges:
        some = read(part)
        assert part.due in (None, len(some))
        assert all(part.begin <= one.number and (part.end is None or one.number < part.end) for one in some)
        frames += some
    return frames


def shown(frames: list[Frame]) -> list[int]:
    return [number_of(one.picture.pixels) for one in frames if isinstance(one.picture, Decoded)]


def same(one: list[Frame], other: list[Frame]) -> bool:
    def plain(frames: list[Frame]) -> list[tuple[object, ...]]:
        return [
            (
                f.number,
                f.time_s,
                f.encoded,
                f.picture.pixels.tobytes() if isinstance(f.picture, Decoded) else f.picture.message,
            )
            for f in frames
        ]

    return plain(one) == plain(other)


KINDS: dict[str, dict[str, Any]] = {
    "b-frames.mp4": {"options": {"bf": "3"}},
    "open-gop.mkv": {"options": {"bf": "3", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}},
    "open-gop.ts": {"codec": "mpeg2video", "options": {"bf": "2"}, "format": "mpegts"},
    "h264.ts": {"options": {"bf": "3"}, "format": "mpegts"},
    "h264.mov": {"options": {"bf": "2"}},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "8"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
    "mjpeg.avi": {"codec": "mjpeg"},
    "no-cues.mkv": {"options": {"bf": "3"}, "muxing": {"live": "1"}},
    "fragments.mp4": {"options": {"bf": "3"}, "muxing": {"movflags": "frag_keyframe+empty_moov"}},
}


@pytest.mark.parametrize("name", KINDS)
def test_the_frames_are_the_same_in_one_range_and_in_many(tmp_path, name):
    kind = KINDS[name]
    index = index_clip(clip_file(make_clip(tmp_path / name, 70, **kind)))
    assert (index.sequential, index.cut) == ("", None)
    whole = in_ranges(index, 1000)
    assert [frame.number for frame in whole] == list(range(70))
    assert shown(whole) == list(range(70))
    times = np.array([frame.time_s for frame in whole], float)
    assert (times - times[0]).tolist() == pytest.approx([i / 25 for i in range(70)], abs=1e-3)
    for size in (40, 1):
        assert len(index.ranges(ALL, size)) > (1 if size > 1 else 5)
        assert same(in_ranges(index, size), whole)


def test_what_cannot_be_numbered_beforehand_is_one_range(tmp_path):
    # AVI has no presentation times, and keyframes of an intra refresh show nothing whole.
    for name, options in (("b.avi", {"bf": "3"}), ("refresh.mkv", {"bf": "0", "x264-params": "intra-refresh=1"})):
        index = index_clip(clip_file(make_clip(tmp_path / name, 40, options=options)))
        assert index.sequential
        assert len(index.ranges(ALL, 1)) == 1
        frames = in_ranges(index, 1)
        assert shown(frames) == [frame.number for frame in frames] == list(range(40))
        assert np.diff(np.array([f.time_s for f in frames], float)) == pytest.approx(np.full(39, 0.04), abs=1e-3)


def test_times_of_a_variable_rate_and_of_a_late_start(tmp_path):
    times = [1500, 1540, 1700, 1710, 2500, 2501, 2900, 4000, 4100, 4101, 4200, 5000]
    for name in ("a.mkv", "a.mp4"):
        index = index_clip(clip_file(make_clip(tmp_path / name, 12, options={"bf": "2"}, times=times)))
        frames = in_ranges(index, 1)
        assert shown(frames) == list(range(12))
        assert [frame.time_s for frame in frames] == pytest.approx([time / 1000 for time in times], abs=1e-3)


def test_a_clip_of_one_frame(tmp_path):
    frames = in_ranges(index_clip(clip_file(make_clip(tmp_path / "a.mp4", 1))), 100)
    assert (shown(frames), frames[0].time_s) == ([0], 0.0)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_of_a_clip_that_is_cut_off_the_good_frames_are_kept(tmp_path, name):
    muxing = {"movflags": "faststart"} if name == "a.mp4" else {}
    path = make_clip(tmp_path / name, 100, options={"bf": "0"}, muxing=muxing)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    index = index_clip(clip_file(path))
    for size in (1, 1000):
        frames = in_ranges(index, size)
        good = shown(frames)
        assert 30 < len(good) < 80
        assert good == list(range(len(good)))
        last = frames[-1]
        assert isinstance(last.picture, InputError)
        assert (last.picture.code, last.number) == ("truncated", len(index.pts))
        assert last.time_s == pytest.approx(len(index.pts) / 25, abs=0.1)
        assert f"breaks off at {last.time_s:.2f} s" in last.picture.message
    assert all(isinstance(one.picture, Decoded) for one in in_ranges(index, 1, FrameChoice(end_s=1.0)))


def test_mpeg_ts_that_is_cut_off_within_a_packet(tmp_path):
    path = make_clip(tmp_path / "a.ts", 100, options={"bf": "0"})
    assert len(shown(in_ranges(index_clip(clip_file(path)), 1000))) == 100
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10 // 188 * 188 + 100])
    frames = in_ranges(index_clip(clip_file(path)), 1000)
    assert 30 < len(shown(frames)) < 80
    assert isinstance(frames[-1].picture, InputError)
    assert frames[-1].picture.code == "truncated"


def test_frames_that_do_not_decode_are_failures_with_their_numbers(tmp_path):
    path = make_clip(tmp_path / "a.mkv", 60, codec="mjpeg")
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    path.write_bytes(data.replace(packets[33], bytes(len(packets[33]))))
    for size in (1, 20, 1000):
        frames = in_ranges(index_clip(clip_file(path)), size)
        bad = [(f.number, f.picture.code, f.time_s) for f in frames if isinstance(f.picture, InputError)]
        assert [each[:2] for each in bad] == [(33, "corrupt")]
        assert bad[0][2] == pytest.approx(33 / 25)
        assert shown(frames) == [n for n in range(60) if n != 33]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (FrameChoice(every=10), range(0, 70, 10)),
        (FrameChoice(fps=5), range(0, 70, 5)),
        (FrameChoice(fps=2), [0, 13, 25, 38, 50, 63]),
        (FrameChoice(start_s=1.0, end_s=2.0), range(25, 50)),
        (FrameChoice(start_s=1.0, every=10), range(30, 70, 10)),
        (FrameChoice(start_s=60.0), []),
        (FrameChoice(keyframes_only=True), range(0, 70, 10)),
    ],
)
def test_frames_are_chosen(tmp_path, choice, expected):
    index = index_clip(clip_file(make_clip(tmp_path / "a.mp4", 70, options={"bf": "2", "sc_threshold": "0"})))
    for size in (1, 30, 1000):
        frames = in_ranges(index, size, choice)
        assert [frame.number for frame in frames] == shown(frames) == list(expected)


def test_frames_are_chosen_where_they_are_not_listed(tmp_path):
    index = index_clip(clip_file(make_clip(tmp_path / "a.avi", 40, options={"bf": "3"})))
    assert index.sequential
    for choice, expected in ((FrameChoice(every=10), [0, 10, 20, 30]), (FrameChoice(fps=5), list(range(0, 40, 5)))):
        assert shown(in_ranges(index, 1, choice)) == expected


def test_a_frame_is_upright(tmp_path):
    for rotation in (90, 180, -90):
        index = index_clip(clip_file(make_clip(tmp_path / f"{rotation}.mp4", 2, rotation=rotation)))
        upright = read(index.ranges(ALL, 10)[0])[0].picture
        assert isinstance(upright, Decoded)
        expected = np.rot90(frame_pixels(0), rotation // 90)
        assert upright.pixels.shape == expected.shape
        assert np.abs(upright.pixels.astype(int) - expected).mean() < 12
        assert upright.exif_orientation == {90: 8, 180: 3, -90: 6}[rotation]


# From Y'CbCr by the matrices of ITU-R BT.601 and BT.709.
@pytest.mark.parametrize(
    ("matrix", "full", "size", "expected"),
    [
        ("bt709", False, (96, 64), (227, 68, 18)),
        ("bt709", True, (96, 64), (213, 73, 29)),
        ("smpte170m", False, (96, 64), (213, 54, 21)),
        ("smpte170m", True, (96, 64), (201, 62, 33)),
        (None, False, (96, 64), (213, 54, 21)),
        (None, False, (1280, 720), (227, 68, 18)),
    ],
)
def test_colours_are_those_of_matrix_and_range(tmp_path, matrix, full, size, expected):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        params = f"fullrange={'on' if full else 'off'}" + (f":colormatrix={matrix}" if matrix else "")
        stream: Any = container.add_stream("libx264", rate=25, options={"x264-params": params, "qp": "1"})
        (stream.width, stream.height), stream.pix_fmt = size, "yuv420p"
        frame: Any = av.VideoFrame(size[0], size[1], "yuv420p")
        for plane, value in zip(frame.planes, (100, 90, 200), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.color_range = 2 if full else 1
        stream.codec_context.color_range = 2 if full else 1
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    one = read(index_clip(clip_file(path)).ranges(ALL, 10)[0])[0].picture
    assert isinstance(one, Decoded)
    assert np.abs(one.pixels.reshape(-1, 3).mean(axis=0) - expected).max() <= 3


def test_what_is_no_clip_is_refused(tmp_path):
    with pytest.raises(InputError, match="sound and no pictures"):
        index_clip(clip_file(make_sound(tmp_path / "sound.mp4")))
    path = make_clip(tmp_path / "a.mp4", 20)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="cannot be opened") as refused:
        index_clip(clip_file(path))
    assert refused.value.code == "corrupt"
    with av.open(str(tmp_path / "empty.avi"), "w") as container:
        container.add_stream("mjpeg", rate=25, width=64, height=64, pix_fmt="yuvj420p")
        container.start_encoding()
    with pytest.raises(InputError) as refused:
        index_clip(clip_file(tmp_path / "empty.avi"))
    assert refused.value.code == "no_frames"


def test_a_clip_that_is_too_long_is_refused_before_it_is_decoded(tmp_path):
    clip = clip_file(make_clip(tmp_path / "a.mp4", 20))
    assert len(index_clip(clip, max_frames=20).pts) == 20
    with pytest.raises(InputError, match="more than 19 frames") as refused:
        index_clip(clip, max_frames=19)
    assert refused.value.code == "too_long"
    assert MAX_CLIP_FRAMES == MAX_FRAMES, "the flag's default"


def test_a_decoder_that_shows_more_frames_than_may_be_is_left(tmp_path):
    index = index_clip(clip_file(make_clip(tmp_path / "a.avi", 40, options={"bf": "3"})))
    assert index.sequential
    (part,) = replace(index, max_frames=30).ranges(ALL, 10)
    *frames, last = read(part)
    assert [frame.number for frame in frames] == list(range(30))
    assert isinstance(last.picture, InputError)
    assert (last.number, last.picture.code) == (30, "too_long")


def test_pictures_and_text_are_no_clips():
    for format in ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"):
        assert demuxer_of(encode(picture(40, 30), format)) is None
    assert demuxer_of(b"") is None
    assert demuxer_of(b"\0\0\0\x20ftypavif" + bytes(500)) is None
    assert demuxer_of(b"Good morning. " * 40) is None
    assert demuxer_of(b"#EXTM3U\n/etc/passwd\n" + bytes(500)) is None


def test_a_range_is_divided_around_a_frame_and_each_part_reads_the_same(tmp_path):
    for name in ("a.mp4", "a.avi"):
        index = index_clip(clip_file(make_clip(tmp_path / name, 50, options={"bf": "2"})))
        (part,) = index.ranges(FrameChoice(every=2), 1000)
        whole = read(part)
        before, these, after = part.around(22, 1)
        assert before is not None
        assert after is not None
        assert [frame.number for frame in read(these)] == [22]
        assert same(read(before) + read(these) + read(after), whole)
        assert (before.begin, before.end, these.end, after.end) == (0, 22, after.begin, None)


def test_what_was_decoded_does_not_stay_in_memory(tmp_path):
    index = index_clip(clip_file(make_clip(tmp_path / "clip.mp4", 60)))
    gc.collect()
    gc.disable()
    try:
        in_ranges(index, 10)
        kinds = (av.VideoFrame, av.Packet, av.container.InputContainer, av.VideoStream)
        assert [one for one in gc.get_objects() if isinstance(one, kinds)] == []
    finally:
        gc.enable()
