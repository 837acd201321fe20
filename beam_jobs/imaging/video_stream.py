"""Live streams: cameras and servers, read by a thread of its own that keeps the newest frame and drops the others.

Frames are numbered as they arrive, those that are dropped too, so that numbers tell what was missed. Times are seconds
from the first frame: the stream's own within a connection, but for MJPEG over HTTP, which has none; there, and from one
connection to the next, it is the time of arrival that counts.

A stream is opened with the demuxers of its kind and may open no others, so that no server makes FFmpeg open files.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from beam_jobs.errors import InputError
from beam_jobs.imaging.video import Encoded, Shown, error_words
from beam_jobs.imaging.video_ranges import MAX_FRAMES, AtWork, Chooser, Frame, FrameChoice, taken

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: A server that says nothing for so long has broken off.
STALL_SECONDS = 10.0
#: The first wait before a stream that broke off is opened again; each is twice the one before.
FIRST_PAUSE_SECONDS = 1.0
#: The frames of so much are given at a time: whichever comes first.
SEGMENT_FRAMES, SEGMENT_SECONDS = 100, 2.0
#: How often somebody is told that it goes on while nothing comes.
_TELL_SECONDS = 0.5


class _Kind(NamedTuple):
    """How an address is opened: FFmpeg's demuxer, or those among which it may choose; its options."""

    demuxer: str | None
    options: dict[str, str]


_NETWORK = "tcp,tls,udp,rtp,crypto"
_KINDS = {
    "v4l2": _Kind("v4l2", {}),
    "rtsp": _Kind("rtsp", {"rtsp_transport": "tcp", "protocol_whitelist": f"rtsp,rtsps,{_NETWORK}"}),
    "udp": _Kind("mpegts", {"protocol_whitelist": "udp", "overrun_nonfatal": "1"}),
    "http": _Kind(None, {"protocol_whitelist": "http,https,tcp,tls", "format_whitelist": "mpjpeg,mpegts"}),
}
_KINDS["rtsps"], _KINDS["https"] = _KINDS["rtsp"], _KINDS["http"]
_OPTIONS = {"fflags": "nobuffer", "analyzeduration": "1000000", "fpsprobesize": "0"}


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """When a stream is at its end; at least one of the first two is given.

    Args:
        max_frames: when so many of its frames are done.
        duration_s: so long after its first frame.
        reconnect_s: when it broke off, and could not be opened again for so long.
    """

    max_frames: int | None = None
    duration_s: float | None = None
    reconnect_s: float = 30.0


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream is.

    Args:
        number: of the next frame.
        done: frames that are done.
        since: `time.monotonic` of the first frame, which is the same in all processes; None before it.
        is_over: nobody wants more of it.
    """

    number: int = 0
    done: int = 0
    since: float | None = None
    is_over: bool = False


class LiveStream:
    """A stream that is being read, until it is at its end or closed.

    Args:
        address: `v4l2:/dev/…`, `rtsp://…`, `rtsps://…`, `udp://…`, `http://…`, `https://…`.
        progress: where another process was that has read it before.
        choice: of the frames, those that are wanted: the others are not dropped, but left out.
    """

    def __init__(
        self, address: str, limits: StreamLimits, choice: FrameChoice, max_pixels: int, progress: Progress
    ) -> None:
        self._address = address
        self._limits = limits
        self._max_pixels = max_pixels
        self._chooser = Chooser(choice)
        self._number, self._done, self._since = progress.number, progress.done, progress.since
        self._newest: tuple[int, float, Shown] | None = None
        self._dropped = self._reopened = 0
        self._has_broken_off = False
        self._error: InputError | None = None
        self._ended = False
        self._stop = threading.Event()
        self._changed = threading.Condition()
        #: Nothing more comes.
        self.at_end = self._is_full() or progress.is_over
        #: It was opened, here or before.
        self.begun = self._since is not None
        if not self.at_end:
            threading.Thread(target=self._run, name="live-stream", daemon=True).start()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        with self._changed:
            return Progress(self._number, self._done, self._since)

    def take_counts(self) -> dict[str, int]:
        """Since this was last called: frames that were dropped, as nobody had time for them; how often it came back."""
        with self._changed:
            counts = {"dropped_frames": self._dropped, "reopened_streams": self._reopened}
            self._dropped = self._reopened = 0
            return counts

    def segment(self, at_work: AtWork) -> Iterator[Frame]:
        """The next frames, as they come, perhaps none; if it cannot be read on, the reason is the last of them.

        Args:
            at_work: told the number of each frame, and, while nothing comes, of the next one.
        """
        begin, count = time.monotonic(), 0
        while not self.at_end:
            if count == SEGMENT_FRAMES or time.monotonic() - begin > SEGMENT_SECONDS:
                return
            newest = self._take(at_work)
            if isinstance(newest, InputError):
                yield Frame(self._number, self._elapsed(), newest)
            elif newest is not None:
                count += 1
                yield taken(*newest, self._max_pixels)

    def close(self) -> None:
        """Ends it. The thread ends when the server says something, or has said nothing for too long."""
        self.at_end = True
        self._stop.set()

    def _take(self, at_work: AtWork) -> tuple[int, float, Shown] | InputError | None:
        """The newest frame, when there is one; None where there is none yet; at the end perhaps why it ended."""
        with self._changed:
            at_work(self._number if self._newest is None else self._newest[0])
            left = self._left()
            self._changed.wait_for(lambda: self._newest is not None or self._ended, min(_TELL_SECONDS, left))
            newest, self._newest = self._newest, None
            if self._left() <= 0:
                self.close()
                return None
            if newest is None:
                if self._ended:
                    self.close()
                return self._error
            at_work(newest[0])
            self._done += 1
            if self._is_full():
                self.close()
            return newest

    def _is_full(self) -> bool:
        return self._limits.max_frames is not None and self._done >= self._limits.max_frames

    def _elapsed(self) -> float:
        return 0.0 if self._since is None else time.monotonic() - self._since

    def _left(self) -> float:
        return _FOR_EVER if self._limits.duration_s is None else self._limits.duration_s - self._elapsed()

    def _run(self) -> None:
        error: InputError | None = None
        try:
            error = self._read()
        except Exception as unforeseen:  # whoever waits for a frame must hear of it
            error = InputError("read", "broken_off", f"The stream cannot be read: {error_words(unforeseen)}.")
        with self._changed:
            self._error, self._ended = error, True
            self._changed.notify_all()

    def _read(self) -> InputError | None:
        """Reads until somebody stops it; else returns why it cannot go on."""
        pause, tried_until = FIRST_PAUSE_SECONDS, None
        while not self._stop.is_set():
            before = self._number
            why = self._read_connection()
            if not self.begun:
                return InputError("read", "no_stream", f"The stream cannot be opened: {why}.")
            if self._number >= MAX_FRAMES:
                return InputError("decode", "too_long", f"Frames from number {self._number:,} on are left.")
            self._has_broken_off = True
            if self._number > before:
                pause, tried_until = FIRST_PAUSE_SECONDS, None
            now = time.monotonic()
            tried_until = tried_until or now + self._limits.reconnect_s
            if now >= tried_until:
                again = f"could not be opened again for {self._limits.reconnect_s:g} s"
                return InputError("read", "broken_off", f"The stream broke off, and {again}: {why}.")
            self._stop.wait(min(pause, tried_until - now))
            pause *= 2
        return None

    def _read_connection(self) -> str:
        """Reads until the stream breaks off, or somebody stops it; says why."""
        import av

        try:
            with _opened(self._address) as (container, video):
                codec = video.codec_context
                codec.copy_opaque = True
                clock = _Times(self._elapsed(), _tick_s(container, video))
                for packet in container.demux(video):
                    if self._stop.is_set():
                        return "it was stopped"
                    for shown in _decode(video, packet):
                        self._put(shown, clock)
                    if self._number >= MAX_FRAMES:
                        return "it is too long"
                return "it came to its end"
        except InputError as error:
            return str(error)
        except av.ExitError:
            return f"it said nothing for {STALL_SECONDS:g} s"
        except (av.FFmpegError, OSError, ValueError) as error:
            return error_words(error)

    def _put(self, shown: Shown, clock: _Times) -> None:
        with self._changed:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            self.begun = True
            self._reopened += self._has_broken_off
            self._has_broken_off = False
            number, time_s = self._number, clock.time_s(shown.pts, now - self._since)
            self._number += 1
            if self._chooser.takes(number, time_s, bool(shown.frame and shown.frame.key_frame)):
                self._dropped += self._newest is not None
                self._newest = (number, time_s, shown)
                self._changed.notify_all()


_FOR_EVER = float("inf")


class _Times:
    """The times of the frames of a connection, in seconds from the first frame of the stream; they grow.

    Args:
        begin_s: when the connection was opened.
        tick_s: the stream's time base in seconds; None where its times are not to be trusted.
    """

    def __init__(self, begin_s: float, tick_s: float | None) -> None:
        self._tick_s = tick_s
        self._first: tuple[int, float] | None = None
        self._last = begin_s

    def time_s(self, pts: int | None, arrived_s: float) -> float:
        """The time of the next frame, which arrived then."""
        time_s = arrived_s
        if pts is not None and self._tick_s is not None:
            self._first = self._first or (pts, arrived_s)
            first_pts, first_s = self._first
            time_s = first_s + (pts - first_pts) * self._tick_s
        self._last = max(time_s, self._last)
        return self._last


def _tick_s(container: InputContainer, video: VideoStream) -> float | None:
    return None if container.format.name == "mpjpeg" or video.time_base is None else float(video.time_base)


@contextmanager
def _opened(address: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The stream, and its first video stream.

    Raises:
        InputError: it has none.
        av.FFmpegError, OSError: it cannot be opened.
    """
    import av

    scheme, _, rest = address.partition(":")
    kind = _KINDS[scheme.lower()]
    path = rest if kind.demuxer == "v4l2" else address
    options = {**_OPTIONS, **kind.options}
    with av.open(path, "r", format=kind.demuxer, options=options, timeout=STALL_SECONDS) as container:
        if not container.streams.video or container.streams.video[0].codec_context is None:
            raise InputError("decode", "no_video", "it has no video that can be decoded")
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        yield container, video


def _decode(video: VideoStream, packet: Any) -> Iterator[Shown]:
    """The frames of a packet. One that cannot be decoded, as before the first keyframe, is none."""
    import av

    data = bytes(packet)
    packet.opaque = Encoded(len(data), hashlib.sha256(data).hexdigest())
    try:
        for frame in video.codec_context.decode(packet if data else None):
            encoded: Any = frame.opaque
            yield Shown(frame.pts, frame, video.codec_context.name, encoded)
    except av.FFmpegError:
        return
