"""Annotated clips: decoded again in ranges, drawn on from the committed tables, encoded side by side, and joined.

Where a range ends follows from the clip alone, so that the bytes do not depend on the number of processes.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beam_jobs import storage
from beam_jobs.errors import InputError, JobError
from beam_jobs.formats.found_rows import found_in, keypoints_in, masks_in, track_ids_in
from beam_jobs.imaging.decode import Decoded
from beam_jobs.imaging.video import ClipFile, clip_at, opened
from beam_jobs.imaging.video_index import index_clip
from beam_jobs.imaging.video_ranges import FrameChoice, FrameRange, frames_of
from beam_jobs.imaging.video_writer import ClipFormat, join_segments, write_segment
from beam_jobs.matching import is_stream
from beam_jobs.processes.annotate import Annotation, drawn_on
from beam_jobs.records import Detections
from beam_jobs.runs.clips import Clip, ClipRows, clips_of
from beam_jobs.runs.parts import PartRecord

#: A segment ends at the first keyframe at which it has so many frames: some seconds' work.
SEGMENT_FRAMES = 250
#: Kinds of clips whose clock may show anything where they begin.
_ANY_BEGINNING = ("mpegts", "mpeg")
_NO_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class Drawing:
    """What is drawn on the clips of a run.

    Args:
        annotation: on each frame.
        categories: names by id.
        span: which frames the annotated video has, of its `start_s` and `end_s` alone.
        held: not all of them were looked at: the others show what was found in the last that was.
        max_pixels: a frame of more is left out.
    """

    annotation: Annotation
    categories: Mapping[int, str]
    span: FrameChoice
    held: bool
    max_pixels: int

    @staticmethod
    def of(job: Mapping[str, Any]) -> Drawing | None:
        """From the job of a run's plan; None if nothing is drawn."""
        if not job["annotation"]:
            return None
        choice = FrameChoice(**(job.get("frames") or {}))
        return Drawing(
            Annotation(**job["annotation"]),
            {int(i): name for i, name in job["categories"].items()},
            FrameChoice(start_s=choice.start_s, end_s=choice.end_s),
            bool(choice.fps or choice.every or choice.keyframes_only),
            job["max_pixels"],
        )


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be said of a clip: its address, its name in the tables, a code, and why."""

    uri: str
    video: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.video}: {self.message}"


#: Begins what is said of a clip whose annotated video could not be made.
_NONE = "no annotated video: "
#: The code of a clip that killed the process that drew it.
CRASHED = "crashed"
#: That of a stream, of which no frame is there any more.
LIVE = "live_stream"
_CRASHED_MESSAGE = f"{_NONE}the process that drew it died"

#: Runs a function on arguments, in another process.
Submit = Callable[..., Future[Any]]


def annotate_clips(
    root: str, records: Iterable[PartRecord], drawing: Drawing, processes: int, beam_args: Sequence[str] = ()
) -> list[Note]:
    """Writes the annotated videos of the clips in some committed parts; those that are there stay as they are.

    Args:
        processes: so many segments are made at a time.
        beam_args: options of the file systems, for the processes.

    A clip that kills a process has no annotated video; those that were drawn beside it are drawn again, one by one.

    Returns:
        What is to be said: clips without their sound, or whose video could not be made.

    Raises:
        JobError: an output could not be written.
    """
    clips = [clip for record in records for clip in clips_of(root, record) if not _is_there(clip)]
    live = [clip for clip in clips if is_stream(clip.uri, stated=True)]
    notes = [Note(clip.uri, clip.video, LIVE, f"{_NONE}a live stream cannot be read again") for clip in live]
    clips = [clip for clip in clips if clip not in live]
    while clips:
        more, broken = _side_by_side(clips, drawing, processes, beam_args)
        notes += more
        for clip in broken[:processes]:  # clips are begun in order: these were drawn when a process died
            more, lost = _side_by_side([clip], drawing, processes, beam_args)
            notes += more + [Note(one.uri, one.video, CRASHED, _CRASHED_MESSAGE) for one in lost]
        clips = broken[processes:]
    return notes


def _side_by_side(
    clips: Sequence[Clip], drawing: Drawing, processes: int, beam_args: Sequence[str]
) -> tuple[list[Note], list[Clip]]:
    """Draws clips in processes of their own; returns what is to be said, and the clips at which one was lost."""
    notes: list[Note] = []
    broken: list[Clip] = []
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(processes, context, _start, (tuple(beam_args),)) as pool,
        ThreadPoolExecutor(processes) as drivers,
    ):
        try:
            begun = [drivers.submit(annotate_clip, clip, drawing, pool.submit) for clip in clips]
            for clip, one in zip(clips, begun, strict=True):
                try:
                    notes += one.result()
                except BrokenProcessPool:
                    broken.append(clip)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return notes, broken


def annotate_clip(clip: Clip, drawing: Drawing, submit: Submit) -> list[Note]:
    """Writes the annotated video of a clip; returns what is to be said of it.

    Raises:
        JobError: it could not be written.
        BrokenProcessPool: a process died.
    """
    with tempfile.TemporaryDirectory(prefix="beam-detect-clip-") as folder:
        try:
            file, form, begin, ranges = submit(_planned, clip, drawing).result()
            paths = [Path(folder) / f"{i:05d}.nut" for i in range(len(ranges))]
            made = [
                submit(_draw_range, clip, one, form, drawing, path) for one, path in zip(ranges, paths, strict=True)
            ]
            counts = [each.result() for each in made]
            segments = [path for path, count in zip(paths, counts, strict=True) if count]
            if not segments:
                return [Note(clip.uri, clip.video, "no_frames", f"{_NONE}none of its frames can be decoded")]
            whole = Path(folder) / "clip.mp4"
            notes: list[str] = submit(_join, file, whole, segments, form, begin, drawing.span.end_s).result()
        except InputError as error:
            return [Note(clip.uri, clip.video, error.code, f"{_NONE}{error}")]
        except OSError as error:
            return [Note(clip.uri, clip.video, "unreadable", f"{_NONE}{error}")]
        try:
            with open(whole, "rb") as made_file, storage.atomic_writer(storage.join(clip.root, clip.annotated)) as out:
                shutil.copyfileobj(made_file, out, 1 << 20)
        except OSError as error:
            raise JobError(f"Cannot write the annotated video {clip.annotated}: {storage.reason(error)}.") from error
    return [Note(clip.uri, clip.video, "sound", note) for note in notes]


def _is_there(clip: Clip) -> bool:
    return storage.exists(storage.join(clip.root, clip.annotated))


def _start(beam_args: tuple[str, ...]) -> None:
    if beam_args:
        storage.set_options(beam_args)


def _planned(clip: Clip, drawing: Drawing) -> tuple[ClipFile, ClipFormat, Fraction, list[FrameRange]]:
    """The clip, the form of its video, the time of the clip that is the video's 0, and its ranges."""
    file = clip_at(clip.uri)
    if file is None:
        raise InputError("decode", "changed", "The clip is not what it was when its frames were looked at.")
    rows = _rows(clip)
    index = index_clip(file)
    with opened(file) as (container, video):
        base = video.time_base or Fraction(1, 25)
        rate = video.average_rate or video.base_rate or _NO_RATE
        begin = Fraction(0)
        if file.demuxer in _ANY_BEGINNING:
            begin = Fraction(container.start_time or 0, 1_000_000)
    if drawing.span.start_s is not None:
        begin = Fraction(drawing.span.start_s)
    return file, ClipFormat(rows.width, rows.height, base, rate), begin, index.ranges(drawing.span, SEGMENT_FRAMES)


@lru_cache(maxsize=2)
def _rows(clip: Clip) -> ClipRows:
    return ClipRows(clip)


def _draw_range(clip: Clip, part: FrameRange, form: ClipFormat, drawing: Drawing, path: Path) -> int:
    """Makes a segment; says how many frames it has."""
    frames = _drawn(part, _rows(clip), form, drawing)
    first = next(frames, None)
    return 0 if first is None else write_segment(path, chain([first], frames), form)


def _drawn(
    part: FrameRange, rows: ClipRows, form: ClipFormat, drawing: Drawing
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    last: int | None = None
    for frame in frames_of(part, lambda _: None, drawing.max_pixels):
        if not isinstance(frame.picture, Decoded):
            continue
        time = round((frame.time_s or 0.0) / part.tick_s)
        if last is not None and time <= last:  # of frames without times some may come to the same tick
            time = last + 1
        last = time
        found = rows.found(frame.number, held=drawing.held)
        shown = found_in(found)
        shown = Detections(shown.boxes, shown.scores, shown.category_ids, None, keypoints_in(found))
        pixels = _sized(frame.picture.pixels, form)
        tracks, masks = track_ids_in(found), masks_in(found)
        yield time, drawn_on(pixels, shown, drawing.categories, drawing.annotation, tracks, masks)


def _sized(pixels: NDArray[np.uint8], form: ClipFormat) -> NDArray[np.uint8]:
    """A clip whose frames change their size keeps that of the first: a video has one."""
    if pixels.shape[:2] == (form.height, form.width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((form.width, form.height)))


def _join(
    file: ClipFile, target: Path, segments: list[Path], form: ClipFormat, begin: Fraction, end_s: float | None
) -> list[str]:
    end = None if end_s is None else Fraction(end_s)
    with opened(file) as (container, _):
        return join_segments(target, segments, form, source=container, begin=begin, end=end)
