"""Detection as a step of other people's pipelines: paths in; pictures with what is in them, and failures, out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import islice
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.utils.shared import Shared

from beam_jobs.detectors import catalogue
from beam_jobs.detectors.tiles import Tiling
from beam_jobs.formats.rows import Rows
from beam_jobs.processes.select import Selection
from beam_jobs.processes.work import PictureSettings, Work
from beam_jobs.records import ImageKey, image_id_of
from beam_jobs.storage import display_name
from beam_jobs.transforms.detect import DetectObjects, PoolSource
from beam_jobs.transforms.plan import Group

#: Paths that a detector process is given at a time; and where pictures share calls.
_GROUP_SIZE, _SHARING_GROUP_SIZE = 4, 32


class DetectedObject(NamedTuple):
    """A detection.

    Args:
        category: the name of the class.
        xmin, ymin, xmax, ymax: pixels of the upright picture.
        mask: COCO's run lengths (`counts`; the size is the picture's height and width); None without masks.
        keypoints: x, y, score of each, in the model's order; None without keypoints.
    """

    category_id: int
    category: str
    score: float
    xmin: float
    ymin: float
    xmax: float
    ymax: float
    mask: str | None
    keypoints: Sequence[float] | None


class DetectedPicture(NamedTuple):
    """A picture, its size upright in pixels, and what is in it, best first."""

    uri: str
    width: int
    height: int
    detections: Sequence[DetectedObject]


class FailedPicture(NamedTuple):
    """A picture that gave no result: at which stage, a stable code, and why."""

    uri: str
    stage: str
    code: str
    message: str


# Elements have a schema: SQL, DataFrames, other languages and Beam's sinks know their fields.
for _row in (DetectedObject, DetectedPicture, FailedPicture):
    beam.coders.registry.register_coder(_row, beam.coders.RowCoder)


class Detected(NamedTuple):
    """What `Detect` gives: each path is in one of the two."""

    pictures: beam.PCollection[DetectedPicture]
    failures: beam.PCollection[FailedPicture]


@dataclass
class Detect(beam.PTransform):
    """Detects objects in picture files: `paths | Detect(model="coco-ssd", min_score=0.3)`.

    Each worker process of the runner drives detector processes of its own, which read, decode and detect. A picture
    that cannot be read, or that kills or hangs its process, is a failure. In the global window only, and timestamps are
    not kept.

    Args:
        model: what `beam-detect detect --model` takes; it is looked up here, and opened on the workers.
        label_map: a file that names the classes.
        min_score: detections below it are left out.
        max_detections: the best so many of a picture; None for all that the model gives.
        tile: detect in tiles of so many pixels a side as well; None for whole pictures only.
        tile_overlap: share of a tile that it has in common with the next.
        batch_pixels: what a call of the detector may hold, in pixels of the network's input; 0 for one picture a call,
            None for what suits where it runs.
        processes: detector processes in each worker process; 0 for one a GPU, or else one a core. Give 1 where the
            runner has a worker process for each core.
        beam_args: flags of Beam's that remote file systems need.

    Raises:
        UsageError: the model is not there, or is no detector.
        ValueError: an argument out of its range.
    """

    model: str = catalogue.DEFAULT
    _: KW_ONLY
    label_map: str | None = None
    min_score: float = 0.05
    max_detections: int | None = None
    tile: int | None = None
    tile_overlap: float = 0.2
    batch_pixels: int | None = None
    processes: int = 0
    beam_args: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.processes < 0:
            raise ValueError(f"processes must be 0 or more, got {self.processes}")
        settings = PictureSettings(
            selection=Selection(self.min_score, self.max_detections),
            input_format="image",
            batch_pixels=self.batch_pixels,
            tiling=None if self.tile is None else Tiling(self.tile, self.tile_overlap),
        )
        spec = catalogue.resolve(self.model, label_map=self.label_map, threads=1, min_score=self.min_score)
        self._source = PoolSource(spec, settings, self.processes, tuple(self.beam_args), False, Shared())

    def expand(self, paths: beam.PCollection[str]) -> Detected:
        if not paths.windowing.is_default():
            raise ValueError("Detect works in the global window only: apply WindowInto after it.")
        size = _SHARING_GROUP_SIZE if self.batch_pixels else _GROUP_SIZE
        rows = (
            paths
            | "Spread" >> beam.Reshuffle()  # str
            | "Batch" >> beam.BatchElements(min_batch_size=size, max_batch_size=size)  # list[str]
            | "Group" >> beam.Map(group_of).with_output_types(Group)
            | "DetectObjects" >> DetectObjects(self._source)  # tuple[int, bytes]
        )
        return Detected(
            rows | "Pictures" >> beam.FlatMap(pictures_of).with_output_types(DetectedPicture),
            rows | "Failures" >> beam.FlatMap(failures_of).with_output_types(FailedPicture),
        )


def group_of(paths: Sequence[str]) -> Group:
    """Work for the detector processes. The rows' place in a plan does not matter here, nor do ids."""
    keys = (ImageKey(image_id_of(name := display_name(path)), path, name) for path in paths)
    return 0, tuple(Work(key, i) for i, key in enumerate(keys))


def pictures_of(rows: tuple[int, bytes]) -> Iterator[DetectedPicture]:
    """The pictures among encoded rows."""
    tables = Rows.of([rows[1]]).tables
    # Detections are in the order of their images.
    found = map(_object, tables["detections"].to_pylist())
    for image in tables["images"].to_pylist():
        yield DetectedPicture(
            image["uri"], image["width"], image["height"], list(islice(found, image["num_detections"]))
        )


def failures_of(rows: tuple[int, bytes]) -> Iterator[FailedPicture]:
    """The failures among encoded rows."""
    for failure in Rows.of([rows[1]]).tables["failures"].to_pylist():
        yield FailedPicture(*(failure[name] for name in FailedPicture._fields))


def _object(row: dict[str, Any]) -> DetectedObject:
    mask = row["mask"] and row["mask"]["counts"]
    return DetectedObject(**{name: row[name] for name in DetectedObject._fields if name != "mask"}, mask=mask)
