"""Frames of clips for a page."""

from __future__ import annotations

import io
from collections import defaultdict

from PIL import Image

from beam_jobs.errors import InputError
from beam_jobs.imaging.video_frames import pick_frames
from beam_jobs.matching.streams import is_stream
from beam_jobs.records import frame_name

#: Nearly without loss: they are shown at a fraction of their size.
_QUALITY = 95


class ClipFrames:
    """The frames that a page may show, of any number of clips.

    All that are wanted of a clip are decoded when the first of them is asked for, and held encoded: a page may have a
    hundred of one clip.
    """

    def __init__(self) -> None:
        self._wanted: dict[str, tuple[str, int]] = {}
        self._of_clip: defaultdict[str, set[int]] = defaultdict(set)
        self._read: dict[str, dict[int, bytes | InputError]] = {}

    def want(self, uri: str, frame: int) -> str:
        """Says that a frame may be asked for; returns what to ask for."""
        source = frame_name(uri, frame)
        self._wanted[source] = (uri, frame)
        self._of_clip[uri].add(frame)
        return source

    def __contains__(self, source: str) -> bool:
        return source in self._wanted

    def read(self, source: str) -> bytes:
        """The frame as a JPEG.

        Raises:
            InputError: the clip does not have it, or it cannot be decoded.
            OSError: the clip cannot be read.
        """
        uri, number = self._wanted[source]
        if uri not in self._read:
            self._read[uri] = _frames(uri, self._of_clip[uri])
        found = self._read[uri].get(number)
        if found is None:
            raise InputError("decode", "changed", "the clip does not have it any more")
        if isinstance(found, InputError):
            raise found
        return found


def is_live(uri: str) -> bool:
    """Whether frames came from a live stream: nothing else is read over http."""
    return is_stream(uri, stated=True)


def _frames(uri: str, numbers: set[int]) -> dict[int, bytes | InputError]:
    if is_live(uri):
        return dict.fromkeys(numbers, InputError("read", "live_stream", "a live stream cannot be read again"))
    found: dict[int, bytes | InputError] = {}
    for frame in pick_frames(uri, numbers):
        if isinstance(frame.picture, InputError):
            found[frame.number] = frame.picture
            continue
        stream = io.BytesIO()
        Image.fromarray(frame.picture.pixels).save(stream, "JPEG", quality=_QUALITY, subsampling=0)
        found[frame.number] = stream.getvalue()
    return found
