"""The index of a clip: a pass over its packets that decodes next to nothing, and the ranges that follow from it.

The number of a frame is the rank of its presentation time. Decoding can begin at a keyframe: the frames from one to the
next, in order of presentation, need nothing before it, but for those that lead it in an open group of pictures, which
belong to the range before.

Some clips do not allow that: times that are missing or repeated (AVI with B-frames), frames of two packets, packets
that are never shown, keyframes that need what came before them. The first frames are decoded to see it; such a clip is
one range, its frames numbered as they leave the decoder.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from beam_jobs.errors import InputError
from beam_jobs.imaging.video import ClipFile, Shown, decoded, error_words, opened
from beam_jobs.imaging.video_ranges import MAX_FRAMES, Chooser, Cut, FrameChoice, FrameRange, Listed

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Frames that are decoded to see whether the packets tell the truth, at the beginning and behind the second keyframe.
_CHECKED, _CHECKED_BEHIND = 24, 4
#: Kinds of clips that say how long they are; the others are measured by what is there.
_SAY_LENGTH = ("mov", "matroska", "avi", "flv")
#: Bytes of an MPEG-TS packet, without and with a time before it.
_TS_PACKETS = (188, 192)
#: A clip that ends so much before it says is cut off. Sound and pictures need not end together.
_CUT_SECONDS = 0.5
_NO_RATE = 25


@dataclass(frozen=True, slots=True, eq=False)
class ClipIndex:
    """What is known of a clip before it is decoded.

    Args:
        tick_s: the stream's time base in seconds.
        frame_s: seconds from frame to frame on average.
        pts: int64 [N], presentation times in ticks, ascending.
        keys: int64 [K], numbers of the keyframes, ascending.
        sequential: why the frames cannot be numbered beforehand; empty if they can.
        times: whether the times that the decoder gives can be trusted.
        cut: what is to be said of its end, if it ends too early.
        max_frames: no more are read.
    """

    clip: ClipFile
    tick_s: float
    frame_s: float
    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    sequential: str = ""
    times: bool = True
    cut: Cut | None = None
    max_frames: int = MAX_FRAMES

    def ranges(self, choice: FrameChoice, size: int) -> list[FrameRange]:
        """The ranges of the frames that are chosen, which account for all numbers from 0 on.

        Args:
            size: a range ends at the first keyframe at which it has so many frames.
        """
        cut = self.cut
        if cut is not None and choice.end_s is not None and choice.end_s <= cut.time_s:
            cut = None
        if self.sequential:
            times = self.times
            return [
                FrameRange(self.clip, self.tick_s, 0, None, None, self.frame_s, times, choice, cut, self.max_frames)
            ]
        cut = cut and cut._replace(number=len(self.pts))
        chooser = Chooser(choice)
        keys = set(self.keys.tolist())
        times = (self.pts * self.tick_s).tolist()
        chosen = (n for n, time_s in enumerate(times) if chooser.takes(n, time_s, n in keys))
        whole = self._listed(np.fromiter(chosen, np.int64), choice.keyframes_only)
        one = FrameRange(self.clip, self.tick_s, 0, None, whole, cut=cut)
        return list(_in_ranges(one, whole, _starts(self.keys, size)))

    def ranges_with(self, numbers: Iterable[int]) -> list[FrameRange]:
        """The ranges in which these frames are, each from the last keyframe before its first; of a clip whose frames
        cannot be numbered beforehand, all up to the last of them."""
        wanted = np.unique(np.fromiter(numbers, np.int64))
        if self.sequential:
            end = int(wanted.max(initial=-1)) + 1
            return [FrameRange(self.clip, self.tick_s, 0, end, None, self.frame_s, self.times)]
        whole = self._listed(wanted[(wanted >= 0) & (wanted < len(self.pts))], False)
        one = FrameRange(self.clip, self.tick_s, 0, None, whole)
        return list(_in_ranges(one, whole, _starts(self.keys, 1)))

    def _listed(self, wanted: NDArray[np.int64], keyframes_only: bool) -> Listed:
        return Listed(0, self.pts, wanted, self.keys, False, keyframes_only)


def _starts(keys: NDArray[np.int64], size: int) -> list[int]:
    starts = [0]
    for key in keys.tolist():
        if key - starts[-1] >= size:
            starts.append(key)
    return starts


def _in_ranges(one: FrameRange, whole: Listed, starts: list[int]) -> Iterator[FrameRange]:
    begin = 0
    edges = np.searchsorted(whole.wanted, starts).tolist()
    for i, (start, low) in enumerate(zip(starts, edges, strict=True)):
        last = i + 1 == len(starts)
        high = len(whole.wanted) if last else edges[i + 1]
        if low == high and not last:
            continue  # what comes next accounts for it
        end = None if last else starts[i + 1]
        wanted = whole.wanted[low:high]
        listed = (
            whole.only(wanted)
            if len(wanted)
            else replace(whole, first=len(whole.pts), pts=whole.pts[:0], wanted=wanted)
        )
        yield replace(one, begin=begin, end=end, listed=listed, cut=one.cut if last else None)
        begin = start if end is None else end


def index_clip(clip: ClipFile, told: Callable[[], None] = lambda: None, max_frames: int = MAX_FRAMES) -> ClipIndex:
    """Reads the packets of a clip, and decodes its first frames.

    Args:
        told: called now and then, so that who watches knows that it goes on.
        max_frames: a clip of more is refused.

    Raises:
        InputError: stage `decode`: it is damaged, or has no video, no frames, or too many.
        OSError: it cannot be read.
    """
    packets = _Packets()
    with opened(clip) as (container, stream):
        packets.read(container, stream, told, max_frames)
        base = stream.time_base
        tick_s = float(base) if base else 1 / _NO_RATE
        rate = stream.average_rate or stream.base_rate or _NO_RATE
        cut = packets.cut(clip.demuxer, container, stream)
    if not packets.pts:
        raise cut.error if cut else InputError("decode", "no_frames", "The clip has no frames.")
    if len(packets.pts) > max_frames:
        raise InputError("decode", "too_long", f"The clip has more than {max_frames:,} frames, which is the limit.")
    pts = np.sort(np.array(packets.pts, np.int64))
    keys = np.searchsorted(pts, np.unique(np.array(packets.keys, np.int64)))
    index = ClipIndex(clip, tick_s, 1 / float(rate), pts, keys.astype(np.int64), packets.doubt(), True, cut, max_frames)
    return _checked(index, told)


@dataclass(slots=True)
class _Packets:
    """What is collected on the way over the packets."""

    pts: array[int] = field(default_factory=lambda: array("q"))
    keys: array[int] = field(default_factory=lambda: array("q"))
    all: int = 0
    missing: int = 0
    end_s: float = 0.0
    error: str = ""

    def read(self, container: InputContainer, stream: VideoStream, told: Callable[[], None], max_frames: int) -> None:
        import av

        is_vp8 = stream.codec_context.name in ("vp8", "libvpx")
        try:
            for count, packet in enumerate(container.demux()):
                if count % 256 == 0:
                    told()
                if not packet.size:
                    continue
                if packet.pts is not None and packet.time_base:
                    self.end_s = max(self.end_s, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream_index != stream.index:
                    continue
                if len(self.pts) > max_frames:
                    return
                self.all += 1
                # RFC 6386, 9.1: bit 4 of a VP8 frame says whether it is shown.
                if packet.is_discard or (is_vp8 and not memoryview(packet)[0] & 0x10):
                    continue
                if packet.pts is None:
                    self.missing += 1
                    self.pts.append(self.pts[-1] if self.pts else 0)
                    continue
                self.pts.append(packet.pts)
                if packet.is_keyframe:
                    self.keys.append(packet.pts)
        except av.FFmpegError as error:
            self.error = error_words(error)

    def cut(self, demuxer: str, container: InputContainer, stream: VideoStream) -> Cut | None:
        """What is to be said of the clip's end."""
        length_s = 0.0
        if demuxer in _SAY_LENGTH and container.duration:
            length_s = container.duration / 1e6
        # A stream of packets says nothing of its length, but ends with a whole one.
        torn = demuxer == "mpegts" and all(container.size % bytes for bytes in _TS_PACKETS)
        lacks = torn or (demuxer == "mov" and stream.frames > self.all)
        if not self.error and not lacks and length_s - self.end_s < _CUT_SECONDS:
            return None
        of = f" of {length_s:.2f} s" if length_s > self.end_s else ""
        why = f" ({self.error})" if self.error else ""
        message = f"The clip breaks off at {self.end_s:.2f} s{of}{why}: the file is cut off or damaged."
        return Cut(InputError("decode", "truncated", message), self.end_s)

    def doubt(self) -> str:
        """Why the times do not number the frames; empty if they do."""
        if self.missing:
            return "times are missing"
        if len(set(self.pts)) < len(self.pts):
            return "times are repeated"
        return ""


def _checked(index: ClipIndex, told: Callable[[], None]) -> ClipIndex:
    """The index after a look at what the decoder says to it."""
    first = list(islice(decoded(index.clip, None, told), _CHECKED))
    times = [shown.pts for shown in first if shown.frame is not None]
    known = [time for time in times if time is not None]
    trusted = len(known) == len(times) and all(a < b for a, b in pairwise(known))
    if index.sequential:
        return replace(index, times=trusted)
    # Of frames that lead the first keyframe nobody knows whether they can be decoded; damage explains what is missing.
    begin = int(index.pts[index.keys[0]]) if len(index.keys) else int(index.pts[0])
    shown = [time for time in known if time >= begin]
    expected = index.pts[index.pts >= begin][: len(shown)].tolist()
    damaged = any(one.frame is None or one.frame.is_corrupt for one in first)
    if not trusted or not set(shown) <= set(index.pts.tolist()) or (shown != expected and not damaged):
        return replace(index, sequential="the decoder shows other frames than there are packets", times=trusted)
    if not _keyframe_stands(index, told):
        return replace(index, sequential="a keyframe needs what comes before it", times=trusted)
    return index


def _keyframe_stands(index: ClipIndex, told: Callable[[], None]) -> bool:
    """Whether the second keyframe and what follows it are the same, decoded from it or from the first."""
    if len(index.keys) < 2:
        return True
    first, second = (int(index.pts[key]) for key in index.keys[:2])
    sought = index.pts[index.pts >= second][:_CHECKED_BEHIND].tolist()

    def pictures(key: int) -> list[tuple[int | None, list[bytes]]]:
        some = (one for one in decoded(index.clip, key, told) if one.pts is None or one.pts >= second)
        return [(one.pts, _planes(one)) for one in islice(some, len(sought))]

    alone = pictures(second)
    return [time for time, _ in alone] == sought and alone == pictures(first)


def _planes(shown: Shown) -> list[bytes]:
    return [] if shown.frame is None else [bytes(plane) for plane in shown.frame.planes]
