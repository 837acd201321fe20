"""Clips written: segments of frames encoded to H.264, and joined without encoding them again.

What is written plays in browsers: H.264 High, yuv420p, BT.709 with limited range and tagged so, in an MP4 whose index
is in front. 4:2:0 has no odd sizes: an odd width or height gets one more column or row, the last one again.

A segment begins with a keyframe and has no B-frames, so that its packets are in the order of presentation: segments
follow one another without a gap whatever frames lie between them, and times are kept to the tick. The encoder has one
thread (its bytes depend on their number); clips are quick to write by encoding segments side by side.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.reformatter import ColorRange, Colorspace
from numpy.typing import NDArray

_BT709 = 1  # H.264's code of it: matrix, primaries and transfer alike
_LIMITED = 1
#: A keyframe at least every so many frames: a browser that seeks decodes from there.
_KEYFRAMES = 60
_ENCODER = {"preset": "veryfast", "crf": "21", "bf": "0", "g": str(_KEYFRAMES)}


@dataclass(frozen=True, slots=True)
class ClipFormat:
    """What the frames of a clip have in common.

    Args:
        width, height: pixels.
        time_base: the unit of times, in seconds.
        rate: frames a second, on average.

    Raises:
        ValueError: one of them is not above 0.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0 and self.time_base > 0 and self.rate > 0):
            raise ValueError(f"width, height, time_base and rate must be above 0, got {self}")


def write_segment(path: Path, frames: Iterable[tuple[int, NDArray[np.uint8]]], clip: ClipFormat) -> int:
    """Encodes frames into `path`, a segment for `join_segments`, and says how many.

    Args:
        path: is overwritten.
        frames: times in units of the clip's time base, increasing, and uint8 [height, width, 3] RGB.
        clip: the same for all segments of a clip.

    Raises:
        ValueError: there is no frame, one has another size, or times do not increase.
    """
    count, last = 0, None
    # NUT keeps the time base that it is given; MP4 and Matroska round times.
    with av.open(str(path), "w", format="nut", options={"fflags": "+bitexact"}) as output:
        stream = output.add_stream(
            "libx264",
            rate=clip.rate,
            options=dict(_ENCODER),
            width=clip.width + clip.width % 2,
            height=clip.height + clip.height % 2,
            pix_fmt="yuv420p",
            time_base=clip.time_base,
        )
        context = stream.codec_context
        context.thread_count = 1
        context.color_range = _LIMITED
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        for time, pixels in frames:
            if pixels.shape != (clip.height, clip.width, 3):
                raise ValueError(f"frames must be [{clip.height}, {clip.width}, 3], got {list(pixels.shape)}")
            if last is not None and time <= last:
                raise ValueError(f"times must increase, got {time} after {last}")
            output.mux(stream.encode(_encoded(pixels, time, clip)))
            count, last = count + 1, time
        if not count:
            raise ValueError("a segment must have a frame")
        output.mux(stream.encode(None))
    return count


def join_segments(
    target: Path,
    segments: Sequence[Path],
    clip: ClipFormat,
    *,
    source: InputContainer | None = None,
    begin: Fraction = Fraction(0),
    end: Fraction | None = None,
) -> list[str]:
    """Makes one MP4 of segments, in their order, with the sound of the clip that they were made of.

    Args:
        target: is overwritten.
        segments: as `write_segment` left them.
        clip: theirs.
        source: the clip whose sound is copied, as it is; opened, and read by nobody before. None for no sound.
        begin: seconds of the source that are the written clip's 0. Times before it can be only those of sound that
            players cut off.
        end: seconds of the source after which no sound begins; None for all.

    Returns:
        What was left out, in words: sound of a kind that MP4 cannot hold.

    Raises:
        ValueError: there is no segment, or segments do not belong together.
    """
    if not segments:
        raise ValueError("a clip must have a segment")
    notes: list[str] = []
    # Where a clip begins late, the movie's clock must be as fine as the frames'.
    options = {"movflags": "+faststart", "fflags": "+bitexact", "movie_timescale": str(_timescale(clip.time_base))}
    with ExitStack() as stack:
        first = stack.enter_context(av.open(str(segments[0])))
        output = stack.enter_context(av.open(str(target), "w", format="mp4", options=options))
        video = output.add_stream_from_template(first.streams.video[0], opaque=True)
        flows = [_timed(_packets_of_segments(segments, clip, first.streams.video[0]), video, begin)]
        if source is not None:
            sounds: dict[int, Stream] = {}
            for sound in source.streams.audio:
                try:
                    sounds[sound.index] = output.add_stream_from_template(sound, opaque=True)
                except ValueError:
                    notes.append(f"sound left out: MP4 cannot hold {sound.codec_context.name}")
            if sounds:
                flows.append(_sound(source, sounds, begin, end))
        for _, _, packet in heapq.merge(*flows, key=lambda item: item[:2]):
            output.mux(packet)
    return notes


_Packet: TypeAlias = "Packet[Any]"
_Timed: TypeAlias = "tuple[Fraction, int, _Packet]"  # seconds, the index of the stream in the output


def _encoded(pixels: NDArray[np.uint8], time: int, clip: ClipFormat) -> av.VideoFrame:
    odd = ((0, clip.height % 2), (0, clip.width % 2), (0, 0))
    if clip.height % 2 or clip.width % 2:
        pixels = np.pad(pixels, odd, mode="edge")
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG)
    frame.pts, frame.time_base = time, clip.time_base
    return frame


def _timescale(time_base: Fraction) -> int:
    """Ticks a second that hold every time to the tick; MP4's clocks are below 2**31."""
    return min(time_base.denominator, 2**31 - 1)


def _packets_of_segments(segments: Sequence[Path], clip: ClipFormat, like: Stream) -> Iterator[_Packet]:
    """The packets of all segments, each as long as it is to the next."""
    header = like.codec_context.extradata
    held: tuple[int, _Packet] | None = None  # with its time
    for segment in segments:
        with av.open(str(segment)) as opened:
            stream = opened.streams.video[0]
            if stream.codec_context.extradata != header:
                raise ValueError(f"segment {segment.name} was encoded otherwise than the first")
            for packet in opened.demux(stream):
                if packet.pts is None:  # the demuxer's mark of the end
                    continue
                if held is not None:
                    time, last = held
                    last.duration = packet.pts - time
                    if last.duration <= 0:
                        raise ValueError(f"segment {segment.name} begins before the last one ends")
                    yield last
                held = packet.pts, packet
    if held is not None:
        _, last = held
        last.duration = max(1, round(1 / clip.rate / last.time_base))
        yield last


def _sound(
    opened: InputContainer, streams: dict[int, Stream], begin: Fraction, end: Fraction | None
) -> Iterator[_Timed]:
    """The packets of some streams, in the order of the file, which is nearly that of their times."""
    for packet in opened.demux([opened.streams[index] for index in streams]):
        if end is not None and packet.dts is not None and packet.dts * packet.time_base >= end:
            continue
        yield from _timed([packet], streams[packet.stream.index], begin)


def _timed(packets: Iterable[_Packet], stream: Stream, begin: Fraction) -> Iterator[_Timed]:
    for packet in packets:
        if packet.pts is None or packet.dts is None:  # the demuxer's mark of the end
            continue
        shift = round(begin / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
        packet.stream = stream
        yield packet.dts * packet.time_base, stream.index, packet
