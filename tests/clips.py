"""Clips for tests, made with PyAV: frames whose number can be read from their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

#: Bits of a frame's number, from left to right; each is a field of 8x16 pixels at the top, green for 1, black for 0.
_BITS = 8
WIDTH, HEIGHT = 96, 64


def frame_pixels(number: int, width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """Black, with the number in the first rows, and below a red square that moves by two pixels a frame."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for bit in range(_BITS):
        if number >> bit & 1:
            pixels[:16, bit * 8 : bit * 8 + 8] = (0, 255, 0)
    x = 2 * number % (width - 24)
    pixels[32:56, x : x + 24] = (255, 0, 0)
    return pixels


def number_of(pixels: NDArray[np.uint8]) -> int:
    """The number that a frame shows."""
    return sum((int(pixels[8, bit * 8 + 4, 1]) > 100) << bit for bit in range(_BITS))


def make_clip(
    path: Path,
    frames: int = 30,
    *,
    codec: str = "libx264",
    format: str | None = None,
    options: Mapping[str, str] = {},
    rate: int = 25,
    times: Sequence[int] | None = None,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    rotation: int | None = None,
    audio: bool = False,
    muxing: Mapping[str, str] = {},
    pictures: Sequence[NDArray[np.uint8]] | None = None,
) -> Path:
    """Writes a clip.

    Args:
        times: of the frames, in 1/1000 s; evenly at `rate` if left out.
        rotation: degrees, counterclockwise, that a player turns it by.
        pictures: uint8 [height, width, 3]; numbered frames if left out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=format, options=dict(muxing)) as container:
        stream: Any = container.add_stream(codec, rate=rate, options={"g": "10", **options})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        sound: Any = container.add_stream("aac", rate=8000, layout="mono") if audio else None
        for i in range(frames):
            pixels = frame_pixels(i, *size) if pictures is None else pictures[i]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (i, Fraction(1, rate)) if times is None else (times[i], Fraction(1, 1000))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            for i in range(frames * 8000 // rate // 1024):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = 8000, i * 1024, Fraction(1, 8000)
                container.mux(sound.encode(samples))
            container.mux(sound.encode(None))
    return path


def make_sound(path: Path) -> Path:
    """Writes a file with sound alone."""
    with av.open(str(path), "w") as container:
        sound: Any = container.add_stream("aac", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = 8000, 0, Fraction(1, 8000)
        container.mux(sound.encode(samples))
        container.mux(sound.encode(None))
    return path
