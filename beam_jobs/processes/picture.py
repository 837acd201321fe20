"""What becomes of one picture: read, decode, detect, annotate; its rows, or the failure that took their place.

A frame of a clip is a picture that others are decoded with.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from beam_jobs import storage
from beam_jobs.detectors.base import CallSplit, Detector, DetectorSpec
from beam_jobs.errors import InputError, JobError
from beam_jobs.formats import tf_example
from beam_jobs.formats.coco_ids import ImageIds
from beam_jobs.formats.rows import ImageFacts, RowsBuilder
from beam_jobs.formats.tables import STEPS
from beam_jobs.imaging.decode import Decoded, decode
from beam_jobs.imaging.video import ClipFile
from beam_jobs.imaging.video_index import index_clip
from beam_jobs.imaging.video_ranges import Frame, FrameRange, frames_of
from beam_jobs.imaging.video_stream import LiveStream, Progress
from beam_jobs.processes.annotate import annotated, drawn_on
from beam_jobs.processes.calls import Answer, Caller, Starting, batch_pixels
from beam_jobs.processes.display import Screen
from beam_jobs.processes.reading import Content, ReadAhead, read_clip, read_picture
from beam_jobs.processes.refusals import of_clip, refusal, refuse
from beam_jobs.processes.select import select
from beam_jobs.processes.spent import CpuClock, peak_rss
from beam_jobs.processes.work import PictureSettings, Reply, Tally, Work
from beam_jobs.records import Detections, ImageKey, frame_name
from beam_jobs.runs import layout
from beam_jobs.runs.ids import proposed_id
from beam_jobs.storage import display_name

#: Decoded pixels that a process may hold, 3 bytes each, while it waits for pictures to share a call with; the last
#: picture comes on top. 24 pictures of 4 megapixels, or 312 of 640×480.
MAX_HELD_PIXELS = 96_000_000
#: Frames of a clip among which some may share a call.
SHARING_FRAMES = 32


@dataclass(slots=True)
class _Held:
    """A picture that is decoded, and waits for its call.

    Args:
        position: in its group; the number of a frame.
        clock: stopped while the picture waits.
    """

    position: int
    work: Work
    key: ImageKey
    decoded: Decoded
    facts: ImageFacts
    clock: _Clock


class PictureWorker:
    """Does pictures with one loaded detector: one after the other, or several a call where it takes them.

    Args:
        process: names the process in the timings table.
        load_ms: what it took to load the detector; goes to the first picture's timings.
    """

    def __init__(
        self, detector: Detector, spec: DetectorSpec, settings: PictureSettings, process: str, load_ms: float
    ) -> None:
        budget = batch_pixels(settings.batch_pixels, detector.info)
        self._caller = Caller(detector, budget, settings.tiling, settings.selection.min_score)
        self._split: CallSplit | None = getattr(detector, "split", None)
        self._spec = spec
        self._settings = settings
        self._process = process
        self._load_ms = load_ms
        self._image_ids: ImageIds | None = None
        self._cpu = CpuClock()
        #: The stream that is being read, if one is.
        self._stream: LiveStream | None = None
        self._screen = Screen(settings.display) if settings.display else None

    @property
    def shares_calls(self) -> bool:
        """Whether the pictures of a group share calls, so that a group must be done as it is to give the same bytes."""
        return self._caller.takes_several

    def run(self, group: Sequence[Work], starting: Starting) -> Reply:
        """Does a group. Tells `starting` the positions of the pictures that are at work, so that who watches knows.

        Where the group is frames of a clip, these are the numbers of frames.

        Raises:
            JobError: an output could not be written, which is not the fault of a picture.
        """
        rows = RowsBuilder(self._spec.label, self._spec.categories)
        tally = Tally()
        if len(group) == 1 and (frames := group[0].frames) is not None:
            self._run_frames(group[0], frames, starting, rows, tally)
            return self._reply(rows, tally)
        if len(group) == 1 and (progress := group[0].stream) is not None:
            rest = self._run_stream(group[0], progress, starting, rows, tally)
            return self._reply(rows, tally, rest=rest)
        containers: list[Work] = []
        ranges: list[Work] = []
        held: list[_Held] = []
        with ReadAhead([work.key.uri for work in group if work.data is None], self._read) as files:
            for i, work in enumerate(group):
                starting((i,))
                one = self._prepare(i, work, files, rows, tally)
                if isinstance(one, Work):
                    containers.extend((one, *one.twins))
                elif isinstance(one, Progress):
                    ranges.append(replace(work, stream=one))
                elif isinstance(one, ClipFile):
                    ranges += self._ranges(work, one, lambda at=i: starting((at,)), rows, tally)  # type: ignore[misc]
                elif one is not None:
                    held.append(one)
                pixels = sum(each.facts.width * each.facts.height for each in held)
                if not self.shares_calls or pixels >= MAX_HELD_PIXELS:
                    self._finish(held, starting, rows, tally)
                    held = []
            self._finish(held, starting, rows, tally)
        self._cpu.move(files.cpu_s, "infer", "read")  # that is when nearly all of it was done
        return self._reply(rows, tally, containers, ranges)

    def _reply(
        self,
        rows: RowsBuilder,
        tally: Tally,
        containers: Sequence[Work] = (),
        ranges: Sequence[Work] = (),
        rest: Work | None = None,
    ) -> Reply:
        encoded = rows.encode()
        self._cpu.lap("rows")
        return Reply(encoded, tuple(containers), tally, tuple(ranges), rest, self._cpu.take(), peak_rss())

    def _read(self, uri: str) -> Content:
        if uri in self._settings.streams:
            return Progress()
        if self._settings.input_format == "video":
            return read_clip(uri)
        auto = self._settings.input_format == "auto"
        return read_picture(uri, self._settings.max_bytes, or_records=auto, or_clip=auto)

    def _ranges(
        self, work: Work, clip: ClipFile, told: Callable[[], None], rows: RowsBuilder, tally: Tally
    ) -> list[Work]:
        """The frames of a clip and its twins, as work that is still to be done; none if it is refused."""
        self._cpu.lap("rows")
        try:
            index = index_clip(clip, told, self._settings.max_clip_frames)
        except (InputError, OSError) as error:
            refuse(of_clip(work), work.name, refusal(error), rows, tally)
            return []
        finally:
            self._cpu.lap("read")
        found = []
        for one in (work, *work.twins):
            tally.clips += 1
            if index.sequential:
                rows.count("sequential_clips")
            own = ClipFile(one.key.uri, clip.demuxer)
            parts = index.ranges(self._settings.frames, self._settings.range_frames)
            if not any(part.due is None or part.due for part in parts):
                rows.count("clips_without_frames")
            for part in parts:
                found.append(replace(one, twins=(), frames=replace(part, clip=own)))
        return found

    def _run_frames(self, work: Work, part: FrameRange, starting: Starting, rows: RowsBuilder, tally: Tally) -> None:
        held: list[_Held] = []
        done, last = 0, part.begin - 1
        clock = _Clock()
        self._cpu.lap("rows")

        def take(frame: Frame) -> None:
            nonlocal done, last
            done, last = done + 1, frame.number
            held.extend(self._frame(work, frame, clock, rows, tally))

        try:
            for frame in frames_of(part, lambda number: starting((number,)), self._settings.max_pixels):
                self._cpu.lap("decode")
                take(frame)
                pixels = sum(each.facts.width * each.facts.height for each in held)
                if not self.shares_calls or done % SHARING_FRAMES == 0 or pixels >= MAX_HELD_PIXELS:
                    self._finish(held, starting, rows, tally)
                    held = []
                clock = _Clock()
        except (InputError, OSError) as error:
            for frame in part.given_up(refusal(error), last + 1):
                take(frame)
        self._finish(held, starting, rows, tally)
        rows.span(work.input, part.begin, part.end, done)

    def _frame(self, work: Work, frame: Frame, clock: _Clock, rows: RowsBuilder, tally: Tally) -> list[_Held]:
        """A frame that waits for its call; none if it is refused, as the rows say."""
        key = self._frame_key(work.key, frame)
        one = replace(work, key=key, frames=None, stream=None)
        picture = frame.picture
        if isinstance(picture, InputError):
            refuse(one, key.file_name, picture, rows, tally)
            return []
        clock.lap("decode")
        clock.laps["read"] = 0.0  # it is part of decoding
        size = (picture.width, picture.height)
        facts = ImageFacts(*size, picture.format, picture.exif_orientation, *frame.encoded)
        return [_Held(frame.number, one, key, picture, facts, clock)]

    def _run_stream(
        self, work: Work, progress: Progress, starting: Starting, rows: RowsBuilder, tally: Tally
    ) -> Work | None:
        """Does the next frames of a stream, each as it comes; returns what is left of it."""
        settings, uri = self._settings, work.key.uri
        stream = self._stream
        if stream is None:
            stream = LiveStream(
                settings.streams[uri], settings.stream_limits, settings.frames, settings.max_pixels, progress
            )
        if progress.is_over:
            stream.close()
        done, last = 0, progress.number - 1
        self._cpu.lap("rows")
        clock = _Clock()
        for frame in stream.segment(lambda number: starting((number,))):
            self._cpu.lap("decode")
            done, last = done + 1, frame.number
            if isinstance(frame.picture, InputError) and not stream.begun:
                refuse(replace(work, stream=None), work.name, frame.picture, rows, tally)
            else:
                self._finish(self._frame(work, frame, clock, rows, tally), starting, rows, tally)
            clock = _Clock()
        for counter, number in stream.take_counts().items():
            rows.count(counter, number)
        if stream.at_end:
            rows.count("streams")
        self._stream = None if stream.at_end else stream
        if stream.at_end or last >= progress.number:
            rows.span(work.input, progress.number, None if stream.at_end else last + 1, done)
        return None if stream.at_end else replace(work, stream=replace(stream.progress, number=last + 1))

    def _frame_key(self, clip: ImageKey, frame: Frame) -> ImageKey:
        name = frame_name(clip.file_name, frame.number)
        proposal = proposed_id(name, frame.number, self._known_ids(), clip.file_name)
        return replace(
            clip,
            image_id=proposal.image_id,
            file_name=name,
            frame=frame.number,
            video=clip.file_name,
            timestamp_s=frame.time_s,
        )

    def _prepare(
        self, position: int, work: Work, files: ReadAhead, rows: RowsBuilder, tally: Tally
    ) -> _Held | Work | ClipFile | Progress | None:
        """Takes the bytes of a picture and decodes it.

        A TFRecord file comes back as it is, a clip or a stream as what it is; None: it is refused, as the rows say.
        """
        key = replace(work.key, file_name=work.name)
        clock = _Clock()
        self._cpu.lap("rows")
        try:
            if work.data is None:
                data = files.take()
                if data is None:
                    return work
                if isinstance(data, ClipFile | Progress):
                    return data
            else:
                record = tf_example.parse_image(work.data)
                data = record.encoded
                key = self._record_key(key, record.filename or record.source_id)
            clock.lap("read")
            self._cpu.lap("read")
            decoded = decode(data, max_pixels=self._settings.max_pixels)
        except InputError as error:
            refuse(work, key.file_name, self._in_words(work, error), rows, tally)
            return None
        facts = ImageFacts(
            decoded.width,
            decoded.height,
            decoded.format,
            decoded.exif_orientation,
            len(data),
            hashlib.sha256(data).hexdigest(),
        )
        clock.lap("decode")
        self._cpu.lap("decode")
        return _Held(position, work, key, decoded, facts, clock)

    def _in_words(self, work: Work, error: InputError) -> InputError:
        """The error, with all that an input may be where it was none of it."""
        if error.code == "not_an_image" and work.data is None and self._settings.input_format == "auto":
            return InputError(
                error.stage, error.code, f"no TFRecord file, no clip of a kind that is known, and {error}"
            )
        return error

    def _finish(self, held: Sequence[_Held], starting: Starting, rows: RowsBuilder, tally: Tally) -> None:
        """Detects on pictures, and writes down what was found."""
        if not held:
            return

        def at_work(positions: tuple[int, ...]) -> None:
            if self.shares_calls or self._settings.tiling:  # else the one picture is at work already: its time runs
                starting(tuple(held[i].position for i in positions))

        answers = self._caller.ask([one.decoded.pixels for one in held], at_work)
        self._cpu.lap("infer")
        if self._split is not None:
            batch_s, post_s = self._split.take()
            self._cpu.move(batch_s, "infer", "batch")
            self._cpu.move(post_s, "infer", "post-process")
        for one, answer in zip(held, answers, strict=True):
            if isinstance(answer.found, InputError):
                refuse(one.work, one.key.file_name, answer.found, rows, tally)
            else:
                self._keep(one, answer.found, answer, rows, tally)

    def _keep(self, one: _Held, found: Detections, answer: Answer, rows: RowsBuilder, tally: Tally) -> None:
        key, work, decoded = one.key, one.work, one.decoded
        one.clock.start()
        kept, empty_boxes = select(found, decoded.width, decoded.height, self._settings.selection)
        self._cpu.lap("post-process")
        self._annotate(key, work, decoded, kept, rows)
        if self._screen is not None and self._screen.wants():
            drawn = drawn_on(decoded.pixels, kept, self._spec.categories, self._screen.annotation)
            self._screen.show(key.file_name, drawn)
        one.clock.lap("annotate")
        self._cpu.lap("annotate")
        rows.image(key, work.place, display_name(key.uri), one.facts, kept, empty_boxes)
        milliseconds = {"load": self._take_load_ms(), "infer": answer.infer_ms, **one.clock.laps}
        rows.timing(key, work.place, self._process, milliseconds, answer.call_pictures, answer.shrunk_calls)
        for twin in work.twins:
            rows.image(twin.key, twin.place, display_name(twin.key.uri), one.facts, kept, empty_boxes)
            rows.timing(twin.key, twin.place, self._process, dict.fromkeys(STEPS, 0.0), 0, 0)
        files = 1 + len(work.twins)
        tally.add(Tally(pictures=files, with_detections=files * (len(kept) > 0), detections=files * len(kept)))

    def _record_key(self, key: ImageKey, name: str | None) -> ImageKey:
        file_name = name or key.file_name
        return replace(key, file_name=file_name, image_id=proposed_id(file_name, key.frame, self._known_ids()).image_id)

    def _known_ids(self) -> ImageIds | None:
        if self._settings.image_ids and self._image_ids is None:
            self._image_ids = ImageIds.load(self._settings.image_ids)
        return self._image_ids

    def _annotate(self, key: ImageKey, work: Work, decoded: Decoded, found: Detections, rows: RowsBuilder) -> None:
        annotation = self._settings.annotation
        if annotation is None or (key.video is not None and not annotation.draws(key.frame)):
            return
        path = layout.annotated_path(key.video or work.key.file_name, work.key.uri)
        if key.video is not None:
            path = layout.annotated_frame_path(path, key.frame)
            decoded = replace(decoded, format="JPEG")
        elif key.record is not None:
            path = layout.annotated_record_path(path, key.record, key.file_name, decoded.format)
        data = annotated(decoded, found, self._spec.categories, annotation)
        digest = hashlib.sha256(data).hexdigest()
        of_twins = ((twin.key, twin.place, layout.annotated_path(twin.name, twin.key.uri)) for twin in work.twins)
        for one, place, where in ((key, work.place, path), *of_twins):
            try:
                storage.write_atomic(storage.join(self._settings.output, where), data)
            except OSError as error:
                raise JobError(f"Cannot write the annotated picture {where}: {error.strerror or error}.") from error
            rows.annotated(one, place, where, len(data), digest)

    def _take_load_ms(self) -> float:
        load_ms, self._load_ms = self._load_ms, 0.0
        return load_ms


class _Clock:
    """Milliseconds of the steps of one picture."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.start()

    def start(self) -> None:
        """Goes on, after a wait."""
        self._last = time.perf_counter()

    def lap(self, step: str) -> None:
        """What has passed since then was `step`."""
        now = time.perf_counter()
        self.laps[step], self._last = (now - self._last) * 1e3, now
