"""The tables of a run: their Arrow schemas, and the rows of a group of inputs on their way there.

Rows travel with two columns that the written tables do not have: `input`, the position in the plan, and `record`, the
index in a TFRecord file (-1 for a picture file). They give every row its place and let a part count what it was given.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from beam_jobs import boxes as box_arithmetic
from beam_jobs.errors import InputError
from beam_jobs.formats.shapes import SHAPES, shape_columns
from beam_jobs.records import Detections, ImageKey

SCHEMA_VERSION = 3


def _schema(name: str, *fields: tuple[str, pa.DataType], nullable: Iterable[pa.Field] = ()) -> pa.Schema:
    metadata = {"beam_detect.table": name, "beam_detect.schema_version": str(SCHEMA_VERSION)}
    never_null = [pa.field(column, kind, nullable=False) for column, kind in fields]
    return pa.schema([*never_null, *nullable], metadata=metadata)


_KEY = (("image_id", pa.int64()), ("file_name", pa.string()), ("frame", pa.int32()))

IMAGES = _schema(
    "images",
    ("image_id", pa.int64()),
    ("uri", pa.string()),
    ("file_name", pa.string()),
    ("frame", pa.int32()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("format", pa.string()),
    ("exif_orientation", pa.int32()),
    ("bytes", pa.int64()),
    ("sha256", pa.string()),
    ("num_detections", pa.int32()),
    ("model", pa.string()),
)
DETECTIONS = _schema(
    "detections",
    *_KEY,
    ("rank", pa.int32()),
    ("category_id", pa.int32()),
    ("category", pa.string()),
    ("score", pa.float32()),
    ("xmin", pa.float32()),
    ("ymin", pa.float32()),
    ("xmax", pa.float32()),
    ("ymax", pa.float32()),
    ("area", pa.float32()),
    nullable=SHAPES,
)
FAILURES = _schema(
    "failures",
    ("uri", pa.string()),
    ("file_name", pa.string()),
    ("frame", pa.int32()),
    ("stage", pa.string()),
    ("code", pa.string()),
    ("message", pa.string()),
    ("attempts", pa.int32()),
)
#: `load_ms` is the time to load the detector, on the first picture of each detector process and 0 on the others.
#: `infer_ms` is the picture's share of a call with `call_pictures` in it; `shrunk_calls` are those that did not fit and
#: were made smaller, counted on one picture of each. All are 0 for a picture whose content was detected for another.
TIMINGS = _schema(
    "timings",
    *_KEY,
    ("process", pa.string()),
    ("load_ms", pa.float32()),
    ("read_ms", pa.float32()),
    ("decode_ms", pa.float32()),
    ("infer_ms", pa.float32()),
    ("annotate_ms", pa.float32()),
    ("call_pictures", pa.int32()),
    ("shrunk_calls", pa.int32()),
)
#: The steps of a picture that are timed; a column `STEP_ms` each.
STEPS = ("load", "read", "decode", "infer", "annotate")
#: The annotated pictures, so that the manifest need not list each of them.
ANNOTATED = _schema("annotated", *_KEY, ("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string()))

#: The tables that a run writes, by the folder they are in.
TABLES: Mapping[str, pa.Schema] = {
    "images": IMAGES,
    "detections": DETECTIONS,
    "failures": FAILURES,
    "timings": TIMINGS,
}

#: Columns whose values repeat: a dictionary makes them small. Elsewhere it would only be tried and dropped.
DICTIONARY_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "images": ("format", "model", "width", "height", "exif_orientation", "frame"),
    "detections": ("image_id", "file_name", "frame", "rank", "category_id", "category"),
    "failures": ("stage", "code", "message", "frame", "attempts"),
    "timings": ("process", "load_ms", "frame", "call_pictures", "shrunk_calls"),
    "annotated": ("frame",),
}

#: Sums that travel with the rows; none depends on how the work was divided.
COUNTERS = ("empty_boxes", "unnamed_category_ids")

_PLACE = (("input", pa.int64()), ("record", pa.int64()))
#: On the way only: how many records each TFRecord file had, failures included.
_CONTAINERS = _schema("containers", ("input", pa.int64()), ("records", pa.int64()))
_TRAVELLING: Mapping[str, pa.Schema] = {
    **{
        name: pa.schema([*schema, *(pa.field(column, kind, nullable=False) for column, kind in _PLACE)])
        for name, schema in {**TABLES, "annotated": ANNOTATED}.items()
    },
    "containers": _CONTAINERS,
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row belongs: the input's position in the plan, and the record's index (None for a picture file)."""

    input: int
    record: int | None = None


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of some inputs: one Arrow table each, with the travelling columns, and sums.

    Args:
        tables: by name: `images`, `detections`, `failures`, `timings`, `annotated`, `containers`.
        counters: by the names in `COUNTERS`, and `category:ID` for each detection whose class has no name.
    """

    tables: Mapping[str, pa.Table]
    counters: Mapping[str, int]

    def encode(self) -> bytes:
        """Arrow IPC streams behind one another, the counters last."""
        sink = pa.BufferOutputStream()
        for name in _TRAVELLING:
            with pa.ipc.new_stream(sink, _TRAVELLING[name]) as stream:
                stream.write_table(self.tables[name])
        sink.write(json.dumps(dict(self.counters)).encode())
        return bytes(sink.getvalue())

    @staticmethod
    def decode(data: bytes) -> Rows:
        """The inverse of `encode`."""
        source = pa.BufferReader(data)
        tables = {}
        options = pa.ipc.IpcReadOptions(use_threads=False)  # see `runs.parts.read_table`
        for name in _TRAVELLING:
            with pa.ipc.open_stream(source, options=options) as stream:
                tables[name] = stream.read_all()
        return Rows(tables, json.loads(source.read()))

    @staticmethod
    def concat(rows: Iterable[Rows]) -> Rows:
        """All rows in one, in the order of the plan."""
        parts = list(rows)
        counters: Counter[str] = Counter()
        for part in parts:
            counters.update(part.counters)
        tables = {
            name: pa.concat_tables([part.tables[name] for part in parts] or [schema.empty_table()])
            for name, schema in _TRAVELLING.items()
        }
        return Rows({name: _in_order(name, table) for name, table in tables.items()}, dict(counters))


def _in_order(name: str, table: pa.Table) -> pa.Table:
    # Names sort by their UTF-8 bytes. A name that occurs twice is in the order of the plan.
    keys = ["file_name", "frame", "input", "record", *(["rank"] if name == "detections" else [])]
    if name == "containers":
        keys = ["input"]
    # Not Table.sort_by: it works in threads of Arrow's (see `runs.parts.read_table`).
    return table.take(pc.sort_indices(table, sort_keys=[(key, "ascending") for key in keys])).combine_chunks()


def written(name: str, table: pa.Table) -> pa.Table:
    """The rows as the table `name` has them on disk: without the travelling columns, with the schema's metadata."""
    schema = ANNOTATED if name == "annotated" else TABLES[name]
    return table.select(schema.names).cast(schema).replace_schema_metadata(schema.metadata)


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
    """Collects what became of some inputs, and makes their `Rows`.

    Args:
        model: the value of the `model` column.
        categories: names by category id; an id without one is named by its number, and counted.
    """

    model: str
    categories: Mapping[int, str]
    _columns: dict[str, list[tuple[object, ...]]] = field(default_factory=lambda: {name: [] for name in _TRAVELLING})
    _detections: list[tuple[ImageKey, Place, Detections, pa.Table | None]] = field(default_factory=list)
    _counters: Counter[str] = field(default_factory=Counter)

    def image(
        self, key: ImageKey, place: Place, uri: str, facts: ImageFacts, detections: Detections, empty_boxes: int
    ) -> None:
        """A picture with its detections, best first. `uri` is the text that people see."""
        name_and_facts = (uri, key.file_name, key.frame, *astuple(facts))
        self._append("images", place, (key.image_id, *name_and_facts, len(detections), self.model))
        shapes = None  # made at the end: Arrow's code is quicker for many pictures in a row than for one now and then
        if detections.masks is not None:
            shapes = shape_columns(detections, facts.width, facts.height)
            detections = replace(detections, masks=None)  # grids are large, and are not needed any more
        self._detections.append((key, place, detections, shapes))
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

    def failure(
        self, place: Place, uri: str, file_name: str, error: InputError, frame: int = 0, attempts: int = 1
    ) -> None:
        """An input that gave no result, in so many attempts."""
        row = (uri, file_name, frame, error.stage, error.code, error.message, attempts)
        self._append("failures", place, row)

    def container(self, input: int, records: int) -> None:
        """A TFRecord file that was read to its end: so many records, failures included."""
        self._columns["containers"].append((input, records))

    def finish(self) -> Rows:
        """The rows so far."""
        tables = {name: _table(_TRAVELLING[name], rows) for name, rows in self._columns.items() if name != "detections"}
        tables["detections"] = self._detections_table()
        return Rows(tables, {name: count for name, count in self._counters.items() if count})

    def _append(self, table: str, place: Place, row: tuple[object, ...]) -> None:
        self._columns[table].append((*row, place.input, -1 if place.record is None else place.record))

    def _detections_table(self) -> pa.Table:
        found = [entry for entry in self._detections if len(entry[2])]
        if not found:
            return _TRAVELLING["detections"].empty_table()
        counts = [len(detections) for _, _, detections, _ in found]
        category_ids = np.concatenate([detections.category_ids for _, _, detections, _ in found])
        boxes = np.concatenate([detections.boxes for _, _, detections, _ in found])
        shapes = pa.concat_tables(
            shape_columns(detections, 0, 0) if shapes is None else shapes for _, _, detections, shapes in found
        )

        def each(values: Iterable[object], kind: pa.DataType) -> pa.Array:
            return pa.array(values, kind).take(pa.array(np.repeat(np.arange(len(found)), counts)))

        columns = {
            "image_id": each((key.image_id for key, _, _, _ in found), pa.int64()),
            "file_name": each((key.file_name for key, _, _, _ in found), pa.string()),
            "frame": each((key.frame for key, _, _, _ in found), pa.int32()),
            "rank": np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
            "category_id": category_ids,
            "category": self._names(category_ids),
            "score": np.concatenate([detections.scores for _, _, detections, _ in found]),
            **{side: boxes[:, i] for i, side in enumerate(("xmin", "ymin", "xmax", "ymax"))},
            "area": box_arithmetic.area(boxes),
            **{name: shapes[name] for name in shapes.column_names},
            "input": each((place.input for _, place, _, _ in found), pa.int64()),
            "record": each((-1 if place.record is None else place.record for _, place, _, _ in found), pa.int64()),
        }
        return pa.table(columns, schema=_TRAVELLING["detections"])

    def _names(self, category_ids: NDArray[np.int32]) -> pa.Array:
        unique, inverse, counts = np.unique(category_ids, return_inverse=True, return_counts=True)
        for category_id, count in zip(unique.tolist(), counts.tolist(), strict=True):
            if category_id not in self.categories:
                self._counters["unnamed_category_ids"] += count
                self._counters[f"category:{category_id}"] += count
        names = [self.categories.get(category_id, str(category_id)) for category_id in unique.tolist()]
        return pa.array(names, pa.string()).take(pa.array(inverse))


def _table(schema: pa.Schema, rows: list[tuple[object, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table([pa.array(list(c), f.type) for c, f in zip(columns, schema, strict=True)], schema=schema)
