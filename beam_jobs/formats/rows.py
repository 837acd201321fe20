"""The rows of groups of inputs, on their way from where they are made to the tables of a part.

A group travels as plain values and numpy arrays: Arrow's columns are made of many groups at once, which takes a fifth
of the time. Groups are pickled, as Beam pickles what it carries: they come from processes of the same job.
"""

from __future__ import annotations

import pickle
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs import boxes as box_arithmetic
from beam_jobs.errors import InputError
from beam_jobs.formats.shapes import null_shapes, shape_columns
from beam_jobs.formats.tables import STEPS, TRAVELLING
from beam_jobs.records import Detections, ImageKey

#: Sums that travel with the rows; none depends on how the work was divided.
COUNTERS = (
    "empty_boxes",
    "unnamed_category_ids",
    "sequential_clips",
    "clips_without_frames",
    "streams",
    "dropped_frames",
    "reopened_streams",
)

#: Arrow's columns are made of so many rows or more, where there are so many.
_ROWS_AT_ONCE = 2_000
_NUM_DETECTIONS = TRAVELLING["images"].names.index("num_detections")
_NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row belongs: the input's position in the plan, and the record's index (None for anything else)."""

    input: int
    record: int | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of some inputs: one Arrow table each, in the order of the plan, with the travelling columns, and sums.

    Args:
        tables: by name: `images`, `detections`, `failures`, `timings`, `annotated`, `containers`, `spans`.
        counters: by the names in `COUNTERS`, and `category:ID` for each detection whose class has no name.
    """

    tables: Mapping[str, pa.Table]
    counters: Mapping[str, int]

    @staticmethod
    def of(encoded: Iterable[bytes]) -> Rows:
        """All that builders have encoded, in whatever order."""
        gathered = Gathered(encoded)
        tables = {**gathered.tables, "detections": gathered.detections(0, gathered.tables["images"].num_rows)}
        return Rows({name: tables[name] for name in TRAVELLING}, gathered.counters)


class Gathered:
    """The rows of some inputs, of which the detections, by far the most, stay encoded until they are asked for.

    Args:
        encoded: all that builders have encoded, in whatever order.

    Attributes:
        tables, counters: as in `Rows`, without `detections`.
        given: how many detections have a mask, and keypoints: by the names in `SHAPES`.
    """

    def __init__(self, encoded: Iterable[bytes]) -> None:
        self._encoded = list(encoded)
        self._held: dict[int, _Group] = {}
        counters: Counter[str] = Counter()
        self.given: Counter[str] = Counter()
        begins = [0]
        chunks: dict[str, list[pa.Table]] = defaultdict(list)
        waiting: dict[str, list[tuple[object, ...]]] = defaultdict(list)

        def flush() -> None:
            for name, rows in waiting.items():
                chunks[name].append(_table(name, rows))
            waiting.clear()

        for number, data in enumerate(self._encoded):
            group: _Group = pickle.loads(data)
            counters.update(group.counters)
            begins.append(begins[-1] + len(group.rows.get("images", ())))
            # Of ordinary parts nothing need be decoded twice.
            if begins[-1] <= _ROWS_AT_ONCE:
                self._held[number] = group
            else:
                self._held.clear()
            if group.shapes is not None:
                self.given.update({name: len(column) - column.null_count for name, column in _columns(group.shapes)})
            for name, rows in group.rows.items():
                waiting[name].extend(rows)
            if len(waiting["images"]) >= _ROWS_AT_ONCE:
                flush()
        flush()
        self.counters: Mapping[str, int] = dict(counters)
        self.tables: dict[str, pa.Table] = {}
        for name in TRAVELLING.keys() - {"detections"}:
            table = pa.concat_tables([TRAVELLING[name].empty_table(), *chunks[name]]).combine_chunks()
            order = _order(name, table)
            self.tables[name] = table.take(order)
            if name == "images":
                #: Where each image is among those of all groups.
                self._order = order.to_numpy()
        #: Where the images of each group begin.
        self._begins = np.array(begins, np.int64)

    def detections(self, begin: int, end: int) -> pa.Table:
        """The table `detections` of the images begin <= row < end: those of each together, best first."""
        order = self._order[begin:end].astype(np.int64)
        of_group = np.searchsorted(self._begins, order, "right") - 1
        wanted = np.unique(of_group).tolist()
        # The groups of neighbours are, mostly, those of the call before.
        self._held = {i: self._held.get(i) or pickle.loads(self._encoded[i]) for i in wanted}
        sizes = np.diff(self._begins)[wanted]
        local = np.zeros(len(self._begins), np.int64)
        local[wanted] = np.cumsum(sizes) - sizes
        at = local[of_group] + order - self._begins[of_group]
        return _detections([self._held[i] for i in wanted], self.tables["images"].slice(begin, end - begin), at)


def _columns(table: pa.Table) -> Iterator[tuple[str, pa.ChunkedArray]]:
    return zip(table.column_names, table.columns, strict=True)


@dataclass(frozen=True, slots=True)
class _Group:
    """What a builder has collected.

    Args:
        rows: of each table but `detections` that has any, with the travelling columns.
        boxes, scores, category_ids: of the detections of each row of `images`, one behind the other, as `Detections`
            has them.
        shapes: the columns of `SHAPES`; None where all are null.
        names: of the classes, by category id.
    """

    rows: Mapping[str, Sequence[tuple[object, ...]]]
    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    category_ids: NDArray[np.int32]
    shapes: pa.Table | None
    names: Mapping[int, str]
    counters: Mapping[str, int]


def _table(name: str, rows: Sequence[tuple[object, ...]]) -> pa.Table:
    schema = TRAVELLING[name]
    if not rows:
        return schema.empty_table()
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(each, f.type) for each, f in zip(columns, schema, strict=True)], schema=schema)


def _order(name: str, table: pa.Table) -> pa.Array:
    # Names sort by their UTF-8 bytes. A name that occurs twice is in the order of the plan.
    others = {"containers": ["input"], "spans": ["input", "begin"]}
    keys = others.get(name, ["file_name", "frame", "input", "record"])
    # Not Table.sort_by: it works in threads of Arrow's (see `runs.parts.read_table`).
    return pc.sort_indices(table, sort_keys=[(key, "ascending") for key in keys])


def _detections(groups: Sequence[_Group], images: pa.Table, order: NDArray[np.int64]) -> pa.Table:
    """The table `detections`: those of each of `images` together, best first.

    Args:
        images: some of those of the groups.
        order: where each of them is among all of the groups.
    """
    schema = TRAVELLING["detections"]
    counts = images["num_detections"].to_numpy()
    if not counts.any():
        return schema.empty_table()
    of_all = np.array([row[_NUM_DETECTIONS] for group in groups for row in group.rows.get("images", ())], np.int64)
    firsts = (np.cumsum(of_all) - of_all)[order]
    of_image = np.repeat(np.arange(len(counts)), counts)
    rank = np.arange(len(of_image)) - np.repeat(np.cumsum(counts) - counts, counts)
    at = np.repeat(firsts, counts) + rank
    boxes, scores, category_ids = (
        np.concatenate([getattr(group, name) for group in groups])[at] for name in ("boxes", "scores", "category_ids")
    )
    shapes = _joined((group.shapes, len(group.scores)) for group in groups)
    names = {category_id: name for group in groups for category_id, name in group.names.items()}
    classes, class_of = np.unique(category_ids, return_inverse=True)
    repeated = images.select(["image_id", "file_name", "frame", "timestamp_s", "video", "input", "record"]).take(
        pa.array(of_image)
    )
    columns = {
        **{name: repeated[name] for name in repeated.column_names},
        "rank": rank.astype(np.int32),
        "category_id": category_ids,
        "category": pa.array([names[category_id] for category_id in classes.tolist()]).take(pa.array(class_of)),
        "score": scores,
        **{side: boxes[:, i] for i, side in enumerate(("xmin", "ymin", "xmax", "ymax"))},
        "area": box_arithmetic.area(boxes),
        "track_id": pa.nulls(len(at), pa.int32()),
        **{name: shapes[name].take(pa.array(at)) for name in shapes.column_names},
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _joined(shapes: Iterable[tuple[pa.Table | None, int]]) -> pa.Table:
    """The columns of `SHAPES` of several; each with its number of rows, for where it is None."""
    return pa.concat_tables(null_shapes(rows) if each is None else each for each, rows in shapes).combine_chunks()


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of a picture that was read: its size upright, in pixels, and its encoded form."""

    width: int
    height: int
    format: str
    exif_orientation: int
    bytes: int
    sha256: str


@dataclass(slots=True)
class RowsBuilder:
    """Collects what became of some inputs, for `Rows.of`.

    Args:
        model: the value of the `model` column.
        categories: names by category id; an id without one is named by its number, and counted.
    """

    model: str
    categories: Mapping[int, str]
    _rows: dict[str, list[tuple[object, ...]]] = field(default_factory=lambda: defaultdict(list))
    _found: list[tuple[Detections, pa.Table | None]] = field(default_factory=list)
    _counters: Counter[str] = field(default_factory=Counter)

    def image(
        self, key: ImageKey, place: Place, uri: str, facts: ImageFacts, detections: Detections, empty_boxes: int
    ) -> None:
        """A picture with its detections, best first. `uri` is the text that people see."""
        name_and_facts = (uri, key.file_name, key.frame, *astuple(facts))
        of_frame = (key.timestamp_s, key.video)
        self._append("images", place, (key.image_id, *name_and_facts, len(detections), self.model, *of_frame))
        shapes = None
        if detections.masks is not None or detections.keypoints is not None:
            # Now: the grids of masks are large, and are not needed any more.
            shapes = shape_columns(detections, facts.width, facts.height)
            detections = replace(detections, masks=None, keypoints=None)
        self._found.append((detections, shapes))
        self._counters["empty_boxes"] += empty_boxes

    def timing(
        self,
        key: ImageKey,
        place: Place,
        process: str,
        milliseconds: Mapping[str, float],
        call_pictures: int,
        shrunk_calls: int,
    ) -> None:
        """The milliseconds of a picture, by `STEPS`, and of its call what `TIMINGS` says."""
        steps = (milliseconds[step] for step in STEPS)
        row = (key.image_id, key.file_name, key.frame, process, *steps, call_pictures, shrunk_calls)
        self._append("timings", place, row)

    def annotated(self, key: ImageKey, place: Place, path: str, size: int, sha256: str) -> None:
        """An annotated picture that was written; `path` is relative to the run's folder."""
        self._append("annotated", place, (key.image_id, key.file_name, key.frame, path, size, sha256))

    def failure(self, key: ImageKey, place: Place, uri: str, error: InputError, attempts: int = 1) -> None:
        """An input that gave no result, in so many attempts. `uri` is the text that people see."""
        said = (error.stage, error.code, error.message, attempts)
        row = (uri, key.file_name, key.frame, *said, key.timestamp_s, key.video)
        self._append("failures", place, row)

    def container(self, input: int, records: int) -> None:
        """A TFRecord file that was read to its end: so many records, failures included."""
        self._rows["containers"].append((input, records))

    def span(self, input: int, begin: int, end: int | None, frames: int) -> None:
        """So many frames of a clip are due of those with begin <= number < end; None: to the end of the clip."""
        self._rows["spans"].append((input, begin, -1 if end is None else end, frames))

    def count(self, counter: str, number: int = 1) -> None:
        """Counts what has no row: one of `COUNTERS`."""
        self._counters[counter] += number

    def encode(self) -> bytes:
        """All of it, for `Rows.of`."""
        found = [detections for detections, _ in self._found] or [_NOTHING]
        category_ids = np.concatenate([each.category_ids for each in found])
        counters = self._counters.copy()
        names = {}
        for category_id in set(category_ids.tolist()):
            names[category_id] = self.categories.get(category_id, str(category_id))
            if category_id not in self.categories:
                count = int(np.count_nonzero(category_ids == category_id))
                counters.update({"unnamed_category_ids": count, f"category:{category_id}": count})
        shapes = None
        if any(each is not None for _, each in self._found):
            shapes = _joined((each, len(detections)) for detections, each in self._found)
        group = _Group(
            dict(self._rows),
            np.concatenate([each.boxes for each in found]),
            np.concatenate([each.scores for each in found]),
            category_ids,
            shapes,
            names,
            {name: count for name, count in counters.items() if count},
        )
        return pickle.dumps(group, pickle.HIGHEST_PROTOCOL)

    def _append(self, table: str, place: Place, row: tuple[object, ...]) -> None:
        self._rows[table].append((*row, place.input, -1 if place.record is None else place.record))
