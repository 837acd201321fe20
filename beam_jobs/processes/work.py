"""What a detector process is given to do, how, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from beam_jobs.detectors.tiles import Tiling
from beam_jobs.formats.rows import Place
from beam_jobs.imaging.decode import MAX_PIXELS
from beam_jobs.imaging.video_ranges import MAX_FRAMES, FrameChoice, FrameRange
from beam_jobs.imaging.video_stream import Progress, StreamLimits
from beam_jobs.processes.annotate import Annotation
from beam_jobs.processes.display import Display
from beam_jobs.processes.select import Selection
from beam_jobs.records import ImageKey
from beam_jobs.tracking.tracker import Tracking

InputFormat = Literal["auto", "image", "tfrecord", "video", "stream"]

#: A range of a clip ends at the first keyframe at which it has so many frames.
RANGE_FRAMES = 100


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """What a job does with every picture.

    Args:
        selection: which detections are kept.
        input_format: `auto` looks at the first bytes of a file.
        output: the run's folder, where annotated pictures go.
        annotation: how they are drawn; None for none.
        image_ids: the file that `ImageIds.save` wrote, for the names of records; None for digests.
        max_pixels: a picture of more is refused before it is decoded.
        max_bytes: a picture file, or a record, of more bytes is refused before it is read.
        max_clip_frames: a clip of more frames is refused before one is decoded.
        max_seconds: a picture, or a tile of one, that takes longer is given up, with the process that works on it.
        max_memory: so is one at which its process holds more bytes; 0 for a share of the machine's memory.
        batch_pixels: what a call of the detector may hold, in pixels of the network's input; 0 for one picture a call,
            None for what suits where the detector runs.
        tiling: how pictures are cut into tiles, on which is detected as well; None for whole pictures only.
        tracking: how the objects of a clip are tracked, when all its frames are done; None for not at all.
        frames: which frames of clips are looked at.
        range_frames: how long the ranges of clips are, see `RANGE_FRAMES`.
        streams: the addresses of the inputs that are live streams, by their `uri`, which does not have what is secret.
        stream_limits: when these are at their ends.
        display: where what is detected on is shown, and how; None for nowhere.
    """

    selection: Selection = field(default_factory=Selection)
    input_format: InputFormat = "auto"
    output: str = ""
    annotation: Annotation | None = None
    image_ids: str | None = None
    max_pixels: int = MAX_PIXELS
    max_bytes: int = 1 << 30
    max_clip_frames: int = MAX_FRAMES
    max_seconds: float = 300.0
    max_memory: int = 0
    batch_pixels: int | None = None
    tiling: Tiling | None = None
    tracking: Tracking | None = None
    frames: FrameChoice = field(default_factory=FrameChoice)
    range_frames: int = RANGE_FRAMES
    streams: Mapping[str, str] = field(default_factory=dict, repr=False)
    stream_limits: StreamLimits = field(default_factory=StreamLimits)
    display: Display | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One picture to do: a planned input, or a record that was read from one; or some frames of a clip.

    Args:
        key: of a record: `file_name` is that of its file, and `record` is set. Its own name is inside `data`.
        input: the input's position in the plan.
        data: a record's bytes (a tf.Example); None for a file, which the process reads itself.
        twins: other files with the same content: what becomes of this one becomes of them.
        frames: those of a clip, which are a group of their own; None for pictures.
        stream: how far a live stream is, which is a group of its own; None for anything else.
    """

    key: ImageKey
    input: int
    data: bytes | None = None
    twins: tuple[Work, ...] = ()
    frames: FrameRange | None = None
    stream: Progress | None = None

    @property
    def is_frames(self) -> bool:
        """Whether it is a group of its own, in which positions are the numbers of frames."""
        return self.frames is not None or self.stream is not None

    @property
    def place(self) -> Place:
        """Where the rows of this picture belong."""
        return Place(self.input, self.key.record)

    @property
    def name(self) -> str:
        """The name of the picture as far as it is known without reading it: a record's is `file#index`."""
        return self.key.file_name if self.key.record is None else f"{self.key.file_name}#{self.key.record}"


@dataclass(slots=True)
class Tally:
    """Counts that people watch while a job runs; they add up."""

    pictures: int = 0
    with_detections: int = 0
    detections: int = 0
    tfrecord_files: int = 0
    clips: int = 0
    failures: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        """Adds the counts of `other`."""
        self.pictures += other.pictures
        self.with_detections += other.with_detections
        self.detections += other.detections
        self.tfrecord_files += other.tfrecord_files
        self.clips += other.clips
        self.failures.update(other.failures)

    @property
    def done(self) -> int:
        """How many inputs these are, whatever became of them."""
        return self.pictures + self.failures.total()


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of a group of work.

    Args:
        rows: encoded, for `Rows.of`.
        containers: those that turned out to be TFRecord files: nothing has been read of them yet.
        ranges: of those that turned out to be clips or streams, the frames that are to be done.
        rest: of a stream, what the same process has to go on with.
        tally: the counts of these rows.
        cpu_s: CPU seconds of the process, by `SPENT_STEPS`.
        peak_rss: the most memory that the process has held so far, in bytes.
    """

    rows: bytes
    containers: tuple[Work, ...]
    tally: Tally
    ranges: tuple[Work, ...] = ()
    rest: Work | None = None
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    peak_rss: int = 0
