"""The two sides of an evaluation as Arrow tables: ground truth and results. Boxes are COCO's: x, y, width, height.

Numbers are float64, as pycocotools reads them from JSON: metrics agree to the last bit only then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

#: What of an object is compared: COCO's word for it.
IouType = Literal["bbox", "segm", "keypoints"]

METRICS = "metrics.json"
#: The files of an evaluation in its folder.
EVALUATION_FILES = (
    METRICS,
    "per_category.parquet",
    "per_category.csv",
    "curves.parquet",
    "matches.parquet",
    "report.html",
)
#: Where an evaluation keeps what its shards need; gone when it is finished.
SHARDS_FOLDER = "_shards"


def _schema(*fields: tuple[str, pa.DataType, bool]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable) for name, kind, nullable in fields])


_BOX = tuple((name, pa.float64(), False) for name in ("x", "y", "width", "height"))

#: Images of the truth. `width` and `height` in pixels, 0 where the truth does not say.
TRUTH_IMAGES = _schema(
    ("image_id", pa.int64(), False),
    ("file_name", pa.string(), False),
    ("width", pa.int32(), False),
    ("height", pa.int32(), False),
)
#: Objects of the truth, in the order of the file. `segmentation` is the JSON text of COCO's polygons or RLE, null where
#: there is none; `keypoints` is x, y, v, x, y, v, …, null where there are none.
TRUTH_OBJECTS = _schema(
    ("image_id", pa.int64(), False),
    ("truth_id", pa.int64(), False),
    ("category_id", pa.int32(), False),
    *_BOX,
    ("area", pa.float64(), False),
    ("iscrowd", pa.bool_(), False),
    ("segmentation", pa.binary(), True),
    ("keypoints", pa.list_(pa.float64()), True),
    ("num_keypoints", pa.int32(), False),
)
#: Results. The rows of an image are in the order in which ties of score are broken. `detection` numbers the results of
#: an image from 0 in that order.
RESULTS = _schema(
    ("image_id", pa.int64(), False),
    ("detection", pa.int32(), False),
    ("category_id", pa.int32(), False),
    *_BOX,
    ("score", pa.float64(), False),
    ("segmentation", pa.binary(), True),
    ("keypoints", pa.list_(pa.float64()), True),
)


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """A ground truth in memory.

    Args:
        images: rows of `TRUTH_IMAGES`, ascending by image_id, each once.
        objects: rows of `TRUTH_OBJECTS`; each image_id is one of `images`, each truth_id once.
        categories: names by category id.
        warnings: what people should know of how it was read, one line each.
    """

    images: pa.Table
    objects: pa.Table
    categories: Mapping[int, str]
    warnings: tuple[str, ...] = ()
