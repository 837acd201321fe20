"""A few frames of a clip, by their numbers: for a page, or a look."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import MAX_PIXELS
from beam_jobs.imaging.video import clip_at
from beam_jobs.imaging.video_index import index_clip
from beam_jobs.imaging.video_ranges import Frame, frames_of


def pick_frames(uri: str, numbers: Collection[int], max_pixels: int = MAX_PIXELS) -> Iterator[Frame]:
    """The frames of a clip with these numbers, ascending; those that it does not have are left out.

    Each is decoded from the keyframe before it. What cannot be decoded has an error in the place of its picture.

    Raises:
        InputError: it is no clip, or damaged.
        OSError: it cannot be read.
    """
    clip = clip_at(uri)
    if clip is None:
        raise InputError("decode", "not_a_video", "It is no clip of a kind that is known.")
    wanted = frozenset(numbers)
    for part in index_clip(clip).ranges_with(wanted):
        yield from (frame for frame in frames_of(part, lambda at: None, max_pixels) if frame.number in wanted)
