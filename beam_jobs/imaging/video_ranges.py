"""Ranges of a clip's frames: which are wanted, where decoding begins, and how a range is divided when it is lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import Decoded
from beam_jobs.imaging.video import ClipFile, Encoded, Shown, decoded, to_rgb

#: The most frames of a clip: their numbers, and that of what comes after the last, fit into 22 bits of an image id.
MAX_FRAMES = (1 << 22) - 1


@dataclass(frozen=True, slots=True)
class FrameChoice:
    """Which frames of a clip are looked at; all, if nothing is said.

    Args:
        fps: the first frame of each 1/fps seconds, counted from the first frame of the clip.
        every: those whose number is a multiple of it.
        start_s, end_s: those with start_s <= presentation time < end_s.
        keyframes_only: only keyframes.
    """

    fps: float | None = None
    every: int | None = None
    start_s: float | None = None
    end_s: float | None = None
    keyframes_only: bool = False


class Chooser:
    """Says of one frame after the other, in order, whether it is chosen."""

    def __init__(self, choice: FrameChoice) -> None:
        self._choice = choice
        self._first_s: float | None = None
        self._interval = -1

    def takes(self, number: int, time_s: float, keyframe: bool) -> bool:
        """Whether the frame with this number, at this time, is chosen."""
        choice = self._choice
        first = True
        if choice.fps is not None:
            self._first_s = time_s if self._first_s is None else self._first_s
            # Times are rounded to the time base: one that is a hair before its interval is in it.
            interval = math.floor((time_s - self._first_s) * choice.fps + 1e-6)
            first = interval > self._interval
            self._interval = max(interval, self._interval)
        return (
            first
            and (choice.every is None or number % choice.every == 0)
            and (choice.start_s is None or time_s >= choice.start_s)
            and (choice.end_s is None or time_s < choice.end_s)
            and (keyframe or not choice.keyframes_only)
        )


class Cut(NamedTuple):
    """A clip that ends before its end: a failure in the place of all frames after the last.

    Args:
        number: of the frame after the last; None where that is not known beforehand.
    """

    error: InputError
    time_s: float
    number: int | None = None


class Span(NamedTuple):
    """So many frames are due of those with begin <= number < end; end is None for the end of the clip."""

    begin: int
    end: int | None
    frames: int


@dataclass(frozen=True, slots=True, eq=False)
class FrameRange:
    """Some frames of a clip, to be decoded in one go.

    Where the times of all frames are known beforehand, `listed` holds them; else the frames are numbered as they leave
    the decoder, from the beginning of the clip.

    Args:
        tick_s: the stream's time base in seconds.
        begin, end: numbers of frames that it accounts for; the end of the clip where `end` is None.
        listed: the frames that are decoded.
        frame_s: seconds from frame to frame, for frames without a time.
        times: whether the decoder's times can be trusted.
        choice: of the frames that are not listed, those that are wanted.
        cut: what is to be said of the clip's end, by the range that has it.
        max_frames: where they are not listed, no more are read.
    """

    clip: ClipFile
    tick_s: float
    begin: int
    end: int | None
    listed: Listed | None
    frame_s: float = 0.04
    times: bool = True
    choice: FrameChoice = field(default_factory=FrameChoice)
    cut: Cut | None = None
    max_frames: int = MAX_FRAMES

    @property
    def due(self) -> int | None:
        """How many rows there will be, if that is known."""
        return None if self.listed is None else len(self.listed.wanted) + (self.cut is not None)

    def holds(self, at: int) -> bool:
        """Whether a frame that is due is at work when the decoder is at number `at`, and not one before them."""
        if self.listed is None:
            return at >= self.begin
        return len(self.listed.wanted) > 0 and at >= self.listed.wanted[0]

    def around(self, at: int, together: int) -> tuple[FrameRange | None, FrameRange, FrameRange | None]:
        """Divides it: what comes before the frame with number `at`, that one, and what comes after it.

        Args:
            together: the second are so many of those that are due, counted off from the first.
        """
        if self.listed is None:
            begin = at - (at - self.begin) % together
            end = begin + together
            before = replace(self, end=begin, cut=None) if begin > self.begin else None
            if self.end is not None and self.end <= end:
                return before, replace(self, begin=begin), None
            return before, replace(self, begin=begin, end=end, cut=None), replace(self, begin=end)
        wanted = self.listed.wanted
        first = min(int(np.searchsorted(wanted, at)), len(wanted) - 1)
        first -= first % together
        last = min(first + together, len(wanted))
        ends = last == len(wanted)
        start = int(wanted[first]) if first else self.begin
        before = self._part(self.begin, start, wanted[:first]) if first else None
        if ends:
            return before, self._part(start, self.end, wanted[first:]), None
        rest = int(wanted[last])
        return before, self._part(start, rest, wanted[first:last]), self._part(rest, self.end, wanted[last:])

    def singles(self) -> list[FrameRange]:
        """Its frames one by one."""
        if self.listed is None:
            if self.end is None:
                return [self]
            last = self.end - 1
            return [
                replace(self, begin=n, end=n + 1, cut=self.cut if n == last else None)
                for n in range(self.begin, self.end)
            ]
        wanted = self.listed.wanted
        begins = [self.begin, *wanted[1:].tolist()]
        ends = [*begins[1:], self.end]
        return [
            self._part(begin, end, wanted[i : i + 1]) for i, (begin, end) in enumerate(zip(begins, ends, strict=True))
        ]

    def given_up(self, error: InputError, begin: int = 0) -> Iterator[Frame]:
        """The frames that are due from number `begin` on, none of which there is; as one where they are not listed."""
        if self.listed is None:
            yield Frame(max(begin, self.begin), None, error)
            return
        for number in self.listed.wanted[self.listed.wanted >= begin].tolist():
            yield Frame(number, self.listed.time_s(number, self.tick_s), error)
        if self.cut is not None:
            yield end_of(self, self.cut)

    def past_key(self, at: int) -> tuple[FrameRange, FrameRange | None]:
        """What cannot be had when no frame can be decoded from number `at` to the next keyframe; and what can."""
        if self.listed is None:
            return self, None
        later = self.listed.keys[self.listed.keys > at]
        wanted = self.listed.wanted
        keys = later[later > wanted[0]] if len(wanted) else later
        if not len(keys) or keys[0] > wanted[-1]:
            return self, None
        key = int(keys[0])
        lost = replace(self._part(self.begin, key, wanted[wanted < key]), cut=None)
        return lost, self._part(key, self.end, wanted[wanted >= key])

    def _part(self, begin: int, end: int | None, wanted: NDArray[np.int64]) -> FrameRange:
        assert self.listed is not None
        return replace(
            self, begin=begin, end=end, listed=self.listed.only(wanted), cut=self.cut if end is None else None
        )


@dataclass(frozen=True, slots=True, eq=False)
class Listed:
    """Frames whose times are known before they are decoded.

    Args:
        first: the number of the first that is decoded, a keyframe or the beginning of the clip.
        pts: int64 [N], their presentation times in ticks, ascending, up to the last that is wanted.
        wanted: int64 [M], numbers of those that are wanted, ascending.
        keys: int64 [K], numbers of keyframes among them, ascending.
        seeks: decoding begins at the first, which is a keyframe; else at the beginning of the clip.
        keyframes: only keyframes are wanted.
    """

    first: int
    pts: NDArray[np.int64]
    wanted: NDArray[np.int64]
    keys: NDArray[np.int64]
    seeks: bool
    keyframes: bool = False

    def time_s(self, number: int, tick_s: float) -> float | None:
        """The presentation time of a frame."""
        at = number - self.first
        return float(self.pts[at]) * tick_s if 0 <= at < len(self.pts) else None

    def only(self, wanted: NDArray[np.int64]) -> Listed:
        """Some of those that are wanted, from the last keyframe before them."""
        if not len(wanted):
            return replace(self, pts=self.pts[:0], wanted=wanted)
        at = int(np.searchsorted(self.keys, wanted[0], "right")) - 1
        first = self.first if at < 0 else max(self.first, int(self.keys[at]))
        pts = self.pts[first - self.first : int(wanted[-1]) + 1 - self.first]
        keys = self.keys[(self.keys >= first) & (self.keys <= wanted[-1])]
        return Listed(first, pts, wanted, keys, self.seeks or first > self.first, self.keyframes)


class Frame(NamedTuple):
    """What became of a frame that is due.

    Args:
        number: its rank in order of presentation, from 0.
        time_s: its presentation time; None where nobody knows.
        picture: or why there is none.
    """

    number: int
    time_s: float | None
    picture: Decoded | InputError
    encoded: Encoded = Encoded(0, "")


#: Takes the number of the frame that is being decoded.
AtWork = Callable[[int], None]


def frames_of(part: FrameRange, at_work: AtWork, max_pixels: int) -> Iterator[Frame]:
    """Each frame that is due, once, in order; of those that cannot be decoded, why.

    Nothing but a frame is held, and what the decoder needs.

    Args:
        at_work: told the number of each frame before it is decoded, of those that are not wanted too.
        max_pixels: the largest frame that is taken.

    Raises:
        InputError: stage `decode`: the clip cannot be opened, or is another one.
        OSError: the clip cannot be read.
    """
    if part.listed is None:
        yield from _counted(part, at_work, max_pixels)
        return
    yield from _listed(part, part.listed, at_work, max_pixels)
    if part.cut is not None:
        yield end_of(part, part.cut)


def end_of(part: FrameRange, cut: Cut) -> Frame:
    """The failure at the end of a clip that is cut off."""
    return Frame(part.begin if cut.number is None else cut.number, cut.time_s, cut.error)


def _listed(part: FrameRange, listed: Listed, at_work: AtWork, max_pixels: int) -> Iterator[Frame]:
    if not len(listed.wanted):
        return
    wanted = listed.wanted.tolist()
    done = 0
    number = listed.first
    why = ""

    def told() -> None:
        at_work(number)

    told()
    key = int(listed.pts[0]) if listed.seeks else None
    for shown in decoded(part.clip, key, told, keyframes=listed.keyframes):
        if shown.frame is None:
            why = shown.error
            continue
        at = -1 if shown.pts is None else int(np.searchsorted(listed.pts, shown.pts))
        if at < 0 or at >= len(listed.pts) or listed.pts[at] != shown.pts:
            if shown.pts is not None and shown.pts > listed.pts[-1]:
                break
            continue  # of before the keyframe
        number = listed.first + at
        if number < wanted[done]:
            told()
            continue
        while wanted[done] < number:
            yield _missing(part, listed, wanted[done], why)
            done += 1
        if wanted[done] == number:
            told()
            yield taken(number, float(listed.pts[at]) * part.tick_s, shown, max_pixels)
            done += 1
        number += 1
        why = ""
        if done == len(wanted):
            return
        told()
    for left in wanted[done:]:
        yield _missing(part, listed, left, why)


def _missing(part: FrameRange, listed: Listed, number: int, why: str) -> Frame:
    said = f" ({why})" if why else ""
    error = InputError("decode", "corrupt", f"The decoder gave no picture for this frame{said}.")
    return Frame(number, listed.time_s(number, part.tick_s), error)


def _counted(part: FrameRange, at_work: AtWork, max_pixels: int) -> Iterator[Frame]:
    """The frames of a clip of which nothing is known beforehand."""
    number = 0
    time_s = 0.0
    chooser = Chooser(part.choice)

    def told() -> None:
        at_work(number)

    told()
    for shown in decoded(part.clip, None, told):
        if part.times and shown.pts is not None and (number == 0 or shown.pts * part.tick_s > time_s):
            time_s = shown.pts * part.tick_s
        elif number:
            time_s += part.frame_s
        chosen = chooser.takes(number, time_s, shown.frame is not None and shown.frame.key_frame)
        if chosen and number >= part.begin:
            if shown.frame is None:
                error = InputError("decode", "corrupt", f"The decoder gave no picture ({shown.error}).")
                yield Frame(number, time_s, error)
            else:
                yield taken(number, time_s, shown, max_pixels)
        number += 1
        if part.end is not None and number >= part.end:
            return
        if number == part.max_frames:
            message = f"The clip has more than {number:,} frames, which is the limit: the others are left out."
            yield Frame(number, time_s, InputError("decode", "too_long", message))
            return
        told()
    if part.cut is not None:
        yield end_of(replace(part, begin=max(number, part.begin)), part.cut)


def taken(number: int, time_s: float, shown: Shown, max_pixels: int) -> Frame:
    """A frame that has left the decoder, as a picture if it can be one."""
    assert shown.frame is not None
    frame = shown.frame
    encoded = shown.encoded or Encoded(0, "")
    if frame.width * frame.height > max_pixels:
        message = f"the frame has {frame.width}x{frame.height} pixels, the limit is {max_pixels} in all"
        return Frame(number, time_s, InputError("decode", "too_large", message))
    if frame.is_corrupt:
        return Frame(number, time_s, InputError("decode", "corrupt", "The data of this frame are damaged."))
    try:
        return Frame(number, time_s, to_rgb(frame, shown.codec), encoded)
    except InputError as error:
        return Frame(number, time_s, error)
