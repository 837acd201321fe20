"""The tables of a run: their Arrow schemas, with those of the rows on their way there.

Rows travel with two columns that the written tables do not have: `input`, the position in the plan, and `record`, the
index in a TFRecord file (-1 for anything else). They give every row its place and let a part count what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from beam_jobs.formats.shapes import SHAPES

SCHEMA_VERSION = 4


def _schema(name: str, *fields: tuple[str, pa.DataType], nullable: Iterable[pa.Field] = ()) -> pa.Schema:
    metadata = {"beam_detect.table": name, "beam_detect.schema_version": str(SCHEMA_VERSION)}
    never_null = [pa.field(column, kind, nullable=False) for column, kind in fields]
    return pa.schema([*never_null, *nullable], metadata=metadata)


#: Of frames of clips: the presentation time in seconds, and the clip's name. Both null for pictures.
_FRAMES = (pa.field("timestamp_s", pa.float64()), pa.field("video", pa.string()))
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
    nullable=_FRAMES,
)
#: Of detections in a clip whose objects were tracked; counted from 1 in each clip.
TRACK_ID = pa.field("track_id", pa.int32())
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
    nullable=(*SHAPES, *_FRAMES, TRACK_ID),
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
    nullable=_FRAMES,
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
#: Of runs that track: the objects of each clip, with the class of the largest sum of scores. `length` is in frames.
TRACKS = _schema(
    "tracks",
    ("video", pa.string()),
    ("track_id", pa.int32()),
    ("category_id", pa.int32()),
    ("category", pa.string()),
    ("first_frame", pa.int32()),
    ("last_frame", pa.int32()),
    ("first_s", pa.float64()),
    ("last_s", pa.float64()),
    ("length", pa.int32()),
    ("mean_score", pa.float32()),
)
#: The annotated pictures, so that the manifest need not list each of them.
ANNOTATED = _schema("annotated", *_KEY, ("path", pa.string()), ("bytes", pa.int64()), ("sha256", pa.string()))

#: The tables that every run writes, by the folder they are in.
TABLES: Mapping[str, pa.Schema] = {
    "images": IMAGES,
    "detections": DETECTIONS,
    "failures": FAILURES,
    "timings": TIMINGS,
}
#: With those that only some runs have, in folders of their own too.
PUBLIC_TABLES: Mapping[str, pa.Schema] = {**TABLES, "tracks": TRACKS}

#: Columns whose values repeat: a dictionary makes them small. Elsewhere it would only be tried and dropped.
DICTIONARY_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "images": ("format", "model", "width", "height", "exif_orientation", "frame", "video"),
    "detections": ("image_id", "file_name", "frame", "rank", "category_id", "category", "timestamp_s", "video"),
    "failures": ("stage", "code", "message", "frame", "attempts", "video"),
    "timings": ("process", "load_ms", "frame", "call_pictures", "shrunk_calls"),
    "annotated": ("frame",),
    "tracks": ("video", "category_id", "category"),
}

_PLACE = (("input", pa.int64()), ("record", pa.int64()))
#: On the way only: how many records each TFRecord file had, failures included.
_CONTAINERS = _schema("containers", ("input", pa.int64()), ("records", pa.int64()))
#: And how many of the frames of a clip with begin <= number < end are due; -1 for the end of the clip.
_SPANS = _schema("spans", *((name, pa.int64()) for name in ("input", "begin", "end", "frames")))
TRAVELLING: Mapping[str, pa.Schema] = {
    **{
        name: pa.schema([*schema, *(pa.field(column, kind, nullable=False) for column, kind in _PLACE)])
        for name, schema in {**TABLES, "annotated": ANNOTATED}.items()
    },
    "containers": _CONTAINERS,
    "spans": _SPANS,
}


def written(name: str, table: pa.Table) -> pa.Table:
    """The rows as the table `name` has them on disk: without the travelling columns, with the schema's metadata."""
    schema = ANNOTATED if name == "annotated" else TABLES[name]
    return table.select(schema.names).cast(schema).replace_schema_metadata(schema.metadata)
