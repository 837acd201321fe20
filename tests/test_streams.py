"""Live streams as inputs, from real servers on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import Decoded
from beam_jobs.imaging.video_ranges import Frame, FrameChoice
from beam_jobs.imaging.video_stream import LiveStream, Progress, StreamLimits
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests.clips import make_clip, number_of
from tests.live_streams import MjpegServer, has_rtsp_server, mjpeg_server, rtsp_server, udp_sender
from tests.pictures import write_pictures

ALL = FrameChoice()


def detect(output: Path, *words: str, factory: str = "colours", status: int = 0) -> Manifest:
    assert main(["detect", f"--output={output}", f"--model=tests.fake_detectors:{factory}", *words]) == status
    assert list(check_run(str(output))) == []
    return Manifest.read(str(output))


def all_frames(stream: LiveStream) -> list[Frame]:
    frames: list[Frame] = []
    while not stream.at_end:
        frames += stream.segment(lambda _: None)
    return frames


def live(address: str, choice: FrameChoice = ALL, **limits: Any) -> LiveStream:
    return LiveStream(address, StreamLimits(**limits), choice, 10_000, Progress())


def shown(frames: list[Frame]) -> list[int]:
    return [number_of(frame.picture.pixels) for frame in frames if isinstance(frame.picture, Decoded)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def test_mjpeg_becomes_rows_without_what_is_secret(tmp_path, capsys):
    with mjpeg_server(rate=40) as (address, _):
        manifest = detect(
            tmp_path / "out",
            f"--input={address}",
            "--input_format=stream",
            "--max_frames=6",
            "--annotate",
            "--annotate_every=1",
        )
    said = capsys.readouterr()
    name = address.replace("user:secret@", "").replace("?key=secret", "?…")
    images = pd.read_parquet(tmp_path / "out/images").sort_values("frame")
    assert (manifest.counts.inputs, manifest.counts.images, manifest.counts.streams, manifest.counts.clips) == (
        6,
        6,
        1,
        0,
    )
    assert list(images["file_name"]) == [f"{name}#{frame:06d}" for frame in images["frame"]]
    assert set(images["video"]) == set(images["uri"]) == {name}
    assert set(images["format"]) == {"MJPEG"}
    times = images["timestamp_s"].to_numpy()
    assert 0 <= times[0] < 1  # the first frame may have been dropped for the next
    assert (np.diff(times) > 0).all()
    assert images["num_detections"].min() >= 1
    stills = sorted((tmp_path / "out/annotated").rglob("*.jpg"))
    assert len(stills) == 6 == manifest.counts.annotated
    assert Image.open(stills[0]).size == (96, 64)
    assert not list((tmp_path / "out").rglob("*.mp4"))
    assert "a live stream cannot be read again" in said.err
    assert "live streams: 1" in said.out
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or b"secret" not in path.read_bytes(), path
    assert "secret" not in said.out + said.err


def test_a_slow_detector_looks_at_new_frames_and_counts_those_it_dropped(tmp_path, capsys):
    with mjpeg_server(rate=50) as (address, server):
        manifest = detect(
            tmp_path / "out",
            f"--input={address}",
            "--input_format=stream",
            "--duration=1.5",
            factory="Slow",
        )
        sent = server.sent
    frames = sorted(pd.read_parquet(tmp_path / "out/images")["frame"])
    gaps = sum(after - before - 1 for before, after in pairwise(frames))
    assert 2 <= len(frames) <= 8
    assert gaps > 20
    assert gaps <= manifest.counts.dropped_frames <= sent
    assert f"{manifest.counts.dropped_frames:,} frames dropped" in capsys.readouterr().out


def test_mpeg_ts_over_udp_keeps_its_own_times():
    with udp_sender(rate=25) as address:
        frames = all_frames(live(address, max_frames=30))
    numbers = shown(frames)
    assert len(numbers) == 30
    for frame, number in zip(frames, numbers, strict=True):
        assert frame.number - frames[0].number == (number - numbers[0]) % 256
        assert frame.time_s is not None
        assert frame.time_s - (frames[0].time_s or 0) == pytest.approx((frame.number - frames[0].number) / 25, abs=1e-3)


@pytest.fixture(scope="module")
def rtsp_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of numbered frames, as cameras send them: no frame waits for a later one."""
    if not has_rtsp_server():
        pytest.skip("needs GStreamer's RTSP server: apt-get install python3-gi gir1.2-gst-rtsp-server-1.0 …")
    path = tmp_path_factory.mktemp("rtsp") / "clip.mp4"
    return make_clip(path, 25, options={"bf": "0", "g": "5", "tune": "zerolatency"})


def test_rtsp_keeps_its_own_times(rtsp_clip):
    with rtsp_server(rtsp_clip) as address:
        frames = all_frames(live(address, max_frames=12))
    numbers = shown(frames)
    assert len(numbers) == 12
    assert numbers == sorted(set(numbers))
    for frame, number in zip(frames, numbers, strict=True):
        assert frame.number - frames[0].number == number - numbers[0]
        assert (frame.time_s or 0) - (frames[0].time_s or 0) == pytest.approx((number - numbers[0]) / 25, abs=2e-3)


def test_rtsp_that_ends_is_opened_again(rtsp_clip, tmp_path):
    with rtsp_server(rtsp_clip) as address:
        manifest = detect(tmp_path / "out", f"--input={address}", "--max_frames=40", "--reconnect_s=20")
    images = pd.read_parquet(tmp_path / "out/images").sort_values("frame")
    assert (manifest.counts.images, manifest.counts.streams, manifest.counts.failures) == (40, 1, {})
    assert set(images["video"]) == {address}
    assert set(images["format"]) == {"H264"}
    # More than it sends in one go, and the time it took to open it again is there.
    assert images["timestamp_s"].is_monotonic_increasing
    assert images["timestamp_s"].diff().max() > 0.5
    assert manifest.counts.reopened_streams >= 1


def test_frames_that_are_not_chosen_are_not_dropped():
    with mjpeg_server(rate=20) as (address, _):
        stream = live(address, FrameChoice(every=5), max_frames=4)
        frames = all_frames(stream)
    assert [frame.number for frame in frames] == [0, 5, 10, 15]
    assert stream.take_counts() == {"dropped_frames": 0, "reopened_streams": 0}


def test_a_stream_that_breaks_off_is_opened_again():
    with mjpeg_server(rate=40, breaks=8) as (address, server):
        stream = live(address, max_frames=20)
        frames = all_frames(stream)
        pauses = np.diff(server.opened)
    assert len(shown(frames)) == 20
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    assert len(server.opened) == 3
    assert stream.take_counts()["reopened_streams"] == 2
    assert (pauses > 1).all()
    times = [frame.time_s or 0 for frame in frames]
    assert max(np.diff(times)) > 0.9  # the gap is there


def test_a_stream_that_stays_away_keeps_its_frames_and_is_a_failure(tmp_path):
    with mjpeg_server(rate=40, breaks=5, connections=1) as (address, _):
        manifest = detect(
            tmp_path / "out",
            f"--input={address}",
            "--input_format=stream",
            "--max_frames=50",
            "--reconnect_s=0.5",
        )
    failures = pd.read_parquet(tmp_path / "out/failures")
    assert 1 <= manifest.counts.images <= 5
    assert list(failures["code"]) == ["broken_off"]
    assert "could not be opened again for 0.5 s" in failures["message"][0]
    assert failures["frame"][0] in (4, 5)  # FFmpeg may wait for what follows the last picture


def test_a_server_that_is_not_there_is_a_failure_beside_other_inputs(tmp_path):
    write_pictures(tmp_path / "in", 3)
    address = f"rtsp://user:secret@127.0.0.1:{free_port()}/camera"
    manifest = detect(tmp_path / "out", f"--input={address}", f"--input={tmp_path}/in", "--max_frames=5")
    failures = pd.read_parquet(tmp_path / "out/failures")
    assert manifest.counts.images == 3
    assert list(failures["code"]) == ["no_stream"]
    assert list(failures["file_name"]) == [address.replace("user:secret@", "")]
    assert failures["message"][0] == "The stream cannot be opened: Connection refused."


def test_what_is_no_stream_and_what_is_not_there():
    with mjpeg_server(rate=40, connections=0) as (address, _):
        (refused,) = all_frames(live(address, max_frames=1))
    (missing,) = all_frames(live("v4l2:/dev/video99", max_frames=1))
    assert isinstance(refused.picture, InputError)
    assert isinstance(missing.picture, InputError)
    assert refused.picture.code == missing.picture.code == "no_stream"
    assert "No such file" in missing.picture.message


def test_a_frame_that_kills_its_process_costs_some_frames_and_the_stream_goes_on(tmp_path):
    with mjpeg_server(rate=40, stays=2) as (address, _):
        manifest = detect(
            tmp_path / "out", f"--input={address}", "--input_format=stream", "--max_frames=60", factory="KillsAtFrame"
        )
    counts = manifest.counts
    failures = pd.read_parquet(tmp_path / "out/failures")
    assert counts.failures.get("crashed") == 1
    assert (counts.inputs, counts.images) == (60, 59)
    images = pd.read_parquet(tmp_path / "out/images")
    assert images["frame"].min() > failures["frame"][0]  # of before, nothing was written down yet
    assert "went with it" in failures["message"][0]
    assert images["timestamp_s"].is_monotonic_increasing


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--input=rtsp://user:secret@host/x"], "give --max_frames N or --duration SECONDS"),
        (["--input=http://host/x", "--max_frames=3"], "over http only live streams are read: give --input_format"),
        (["--input=http://host/x"], "over http only live streams are read: give --input_format"),
        (["--input={tmp}/in", "--duration=3"], "--duration is for live streams"),
        (["--input={tmp}/in", "--input_format=stream", "--duration=3"], "every input must be a live stream"),
        (["--input=udp://host:1", "--input_format=video", "--max_frames=1"], "leave --input_format video out"),
        (["--input=udp://host:1", "--max_frames=1", "--dedupe"], "--dedupe compares files"),
        (["--input=udp://host:1", "--max_frames=1", "--since={tmp}/in"], "--since compares files"),
        (["--input=udp://host:1", "--max_frames=1", "--end=3"], "--duration says how much"),
        (["--input=v4l2:/dev/video0", "--max_frames=1", "--runner=PrismRunner"], "Leave --runner out"),
        (["--input_list={tmp}/list", "--max_frames=1"], "is for live streams"),
        (["--input_list={tmp}/list"], "the list names the live stream rtsp://host/x"),
        (
            ["--input=rtsp://a:secret@h/x", "--input=rtsp://b:secret@h/x", "--max_frames=1"],
            "two streams have this name",
        ),
    ],
)
def test_what_does_not_go_with_streams_is_refused(words, why, tmp_path, capsys):
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "list").write_text("rtsp://user:secret@host/x\n")
    given = [word.replace("{tmp}", str(tmp_path)) for word in words]
    status = main(["detect", f"--output={tmp_path}/out", "--model=tests.fake_detectors:colours", *given])
    said = capsys.readouterr().err
    assert status == 2
    assert why in said
    assert "secret" not in said


@contextmanager
def begun(output: Path, server: MjpegServer, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A run as a program of its own, which has seen some frames."""
    command = [sys.executable, "-m", "beam_jobs", "detect", f"--output={output}", *words]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        deadline = time.monotonic() + 60
        while server.sent < 20 and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process


ENDLESS = ("--model=tests.fake_detectors:colours", "--input_format=stream", "--max_frames=100000")


def test_ctrl_c_ends_a_stream_and_keeps_its_frames(tmp_path):
    with (
        mjpeg_server(rate=30) as (address, server),
        begun(tmp_path / "out", server, f"--input={address}", *ENDLESS) as process,
    ):
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "the streams end here" in said
    assert list(check_run(str(tmp_path / "out"))) == []
    counts = Manifest.read(str(tmp_path / "out")).counts
    assert counts.streams == 1
    assert counts.images >= 5
    assert not counts.failures


def test_ctrl_c_ends_a_stream_that_says_nothing(tmp_path):
    # Before the time is over that a server has to answer.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        words = ["detect", f"--output={tmp_path}/out", f"--input=http://127.0.0.1:{silent.getsockname()[1]}/", *ENDLESS]
        with subprocess.Popen(
            [sys.executable, "-m", "beam_jobs", *words], stderr=subprocess.PIPE, text=True
        ) as process:
            held, _ = silent.accept()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=9)
            held.close()
    assert process.returncode == 0
    assert "the streams end here" in said
    assert Manifest.read(str(tmp_path / "out")).counts.inputs == 0


def test_a_terminated_stream_cannot_be_resumed(tmp_path, capsys):
    with mjpeg_server(rate=30) as (address, server):
        with begun(tmp_path / "out", server, f"--input={address}", *ENDLESS) as process:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
        assert process.returncode == 143
        assert "A live stream cannot be resumed" in said
        assert main(["detect", f"--output={tmp_path}/out", f"--input={address}", *ENDLESS, "--resume"]) == 2
    assert "cannot be read again" in capsys.readouterr().err
    assert not (tmp_path / "out/run.json").exists()
    plan = json.loads((tmp_path / "out/_plan/plan.json").read_bytes())
    assert plan["inputs"] == 1
