"""The failures that take the place of pictures, frames and clips."""

from __future__ import annotations

from dataclasses import replace

from beam_jobs.errors import InputError
from beam_jobs.formats.rows import RowsBuilder
from beam_jobs.imaging.video_ranges import FrameRange
from beam_jobs.processes.reading import why_unreadable
from beam_jobs.processes.work import Tally, Work
from beam_jobs.records import frame_name
from beam_jobs.storage import display_name


def refuse(work: Work, name: str, error: InputError, rows: RowsBuilder, tally: Tally, attempts: int = 1) -> None:
    """Writes down that a picture, of this name, and its twins gave no result, in so many attempts."""
    for one, file_name in ((work, name), *((twin, twin.name) for twin in work.twins)):
        rows.failure(replace(one.key, file_name=file_name), one.place, display_name(one.key.uri), error, attempts)
        tally.failures[error.code] += 1


def of_clip(work: Work) -> Work:
    """Work that is a clip: its failures name it as such."""
    twins = tuple(replace(twin, key=replace(twin.key, video=twin.key.file_name)) for twin in work.twins)
    return replace(work, key=replace(work.key, video=work.key.file_name), twins=twins)


def refuse_frames(
    work: Work, part: FrameRange, error: InputError, rows: RowsBuilder, tally: Tally, attempts: int
) -> None:
    """Writes down that frames of a clip gave no result."""
    video = work.key.file_name
    done = 0
    for frame in part.given_up(error):
        name, why = frame_name(video, frame.number), frame.picture
        key = replace(work.key, file_name=name, frame=frame.number, video=video, timestamp_s=frame.time_s)
        assert isinstance(why, InputError)
        refuse(replace(work, key=key, frames=None), name, why, rows, tally, attempts if why is error else 1)
        done += 1
    rows.span(work.input, part.begin, part.end, done)


def refuse_stream(work: Work, at: int, error: InputError, rows: RowsBuilder, tally: Tally, begin: int) -> None:
    """Writes down that frames of a stream from `begin` to `at` gave no result: it is read once."""
    name = frame_name(work.key.file_name, at)
    key = replace(work.key, file_name=name, frame=at, video=work.key.file_name)
    if at > begin:
        said = f"{error.message} A stream cannot be read again: the frames from number {begin} on went with it."
        error = InputError(error.stage, error.code, said)
    refuse(replace(work, key=key, stream=None), name, error, rows, tally)
    rows.span(work.input, begin, at + 1, 1)


def refusal(error: InputError | OSError) -> InputError:
    """What was met on the way to a picture, as its failure."""
    return error if isinstance(error, InputError) else InputError("read", *why_unreadable(error))
