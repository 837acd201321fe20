"""Matches as an Arrow table: one row a detection and one a truth, for people who slice an evaluation in SQL."""

from __future__ import annotations

import pyarrow as pa

SCHEMA_VERSION = 1

KINDS = ("detection", "truth")
#: By code. The first three are a detection's, the next two a truth's; truths can be ignored too.
OUTCOMES = ("TP", "FP", "ignored", "found", "missed")
#: By code, TIDE's kinds of error. The last is a truth's.
ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")


def _schema(*fields: tuple[str, pa.DataType, bool]) -> pa.Schema:
    metadata = {"beam_detect.table": "matches", "beam_detect.schema_version": str(SCHEMA_VERSION)}
    return pa.schema([pa.field(name, kind, nullable) for name, kind, nullable in fields], metadata=metadata)


#: Ordered by image; in an image the detections by category and rank, then the truths by category, as in their file.
#:
#: - `detection`: the number of the result in its image; for a truth that of the detection that found it.
#: - `rank`: the place by score among the detections of the image and category, from 0; past maxDets they are ignored.
#:   Null for truths.
#: - `score`: for a truth that of the detection that found it.
#: - `outcome`: TP, FP or ignored; found, missed or ignored.
#: - `error`: TIDE's kind of a false positive. Of a missed truth `missed`, or null where a detection with an error of
#:   place or class is so near that its correction would find the truth.
#: - `iou`: of the match, OKS for keypoints; without one the best with any of the same category and image, else 0.
#: - `truth_id`: for a detection that of its match.
#: - `area`: square pixels; of a detection that of its box.
MATCHES = _schema(
    ("image_id", pa.int64(), False),
    ("file_name", pa.string(), False),
    ("kind", pa.string(), False),
    ("category_id", pa.int32(), False),
    ("category", pa.string(), False),
    ("detection", pa.int32(), True),
    ("truth_id", pa.int64(), True),
    ("rank", pa.int32(), True),
    ("score", pa.float64(), True),
    ("outcome", pa.string(), False),
    ("error", pa.string(), True),
    ("iou", pa.float64(), False),
    ("x", pa.float64(), False),
    ("y", pa.float64(), False),
    ("width", pa.float64(), False),
    ("height", pa.float64(), False),
    ("area", pa.float64(), False),
    ("iscrowd", pa.bool_(), False),
)
