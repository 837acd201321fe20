"""Unique image ids over a whole run, once its TFRecord files and clips have been read.

The plan gives every file an id. The names of records and the frames of clips are known only when all is read, and only
they can repeat one.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa

from beam_jobs import storage
from beam_jobs.formats.coco_ids import ImageIds
from beam_jobs.formats.tables import DICTIONARY_COLUMNS
from beam_jobs.runs import layout
from beam_jobs.runs.ids import Claim, proposed_id, settle
from beam_jobs.runs.parts import FileRecord, PartRecord, file_record, read_table, write_table
from beam_jobs.runs.plan import Renamed, read_part
from beam_jobs.storage import display_name

_Row = tuple[int, str, int, int, int]


def settle_records(root: str, records: Sequence[PartRecord]) -> list[Renamed]:
    """Gives each record or frame whose image id is taken one of its own, in the tables of the run in `root`.

    Ids of pictures stand as planned. What a record asks for is worked out from its name, whatever id it has now, so
    that doing this twice, or half, ends the same.
    """
    ids_path = storage.join(root, layout.IMAGE_IDS)
    image_ids = ImageIds.load(ids_path) if storage.exists(ids_path) else None
    with tempfile.TemporaryDirectory(prefix="beam-detect-ids-") as folder, _database(folder) as database:
        insert = "INSERT INTO images(part, file_name, frame, image_id, claim) VALUES (?, ?, ?, ?, ?)"
        database.execute("BEGIN")
        for record in records:
            database.executemany(insert, _claims(root, record, image_ids))
        database.execute("COMMIT")
        settled = list(settle(database, "images"))
        for record in records:
            if record.counts.containers:
                rows = database.execute("SELECT image_id FROM images WHERE part = ? ORDER BY row", (record.part,))
                _give_ids(root, record, np.array([image_id for (image_id,) in rows], np.int64))
    return [Renamed(one.file_name, one.image_id) for one in settled]


def _database(folder: str) -> closing[sqlite3.Connection]:
    database = sqlite3.connect(Path(folder) / "ids.sqlite", isolation_level=None)
    database.execute("PRAGMA journal_mode=OFF")
    database.execute("PRAGMA synchronous=OFF")
    database.execute(
        "CREATE TABLE images(row INTEGER PRIMARY KEY, part INTEGER, file_name TEXT, frame INTEGER, image_id INTEGER,"
        " claim INTEGER)"
    )
    return closing(database)


def _claims(root: str, record: PartRecord, image_ids: ImageIds | None) -> Iterator[_Row]:
    """The rows of `images` of a part, with what each asks for."""
    columns = ("uri", "file_name", "frame", "image_id", "video")
    images = read_table(root, layout.part_table("images", record.part)).select(columns).to_pylist()
    files = set()
    if record.counts.tfrecord_files:
        files = {(display_name(one.key.uri), one.key.file_name) for one in read_part(root, record.part)}
    for image in images:
        name, frame, image_id, claim = image["file_name"], image["frame"], image["image_id"], Claim.HELD
        if image["video"] is not None or (record.counts.tfrecord_files and (image["uri"], name) not in files):
            image_id, claim = proposed_id(name, frame, image_ids, image["video"])
        yield record.part, name, frame, image_id, int(claim)


def _give_ids(root: str, record: PartRecord, image_ids: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    """Rewrites a part whose ids have changed. `image_ids` is in the order of its images.

    The record comes last. Where one was stopped before that, tables are not what it says, and are written again.
    """
    images = read_table(root, layout.part_table("images", record.part))
    if images["image_id"].to_pylist() == image_ids.tolist() and all(map(partial(_stands, root), record.files)):
        return
    # All tables of a part are in the order of its images.
    by_detection = np.repeat(image_ids, images["num_detections"].to_numpy())
    new = {"images": image_ids, "detections": by_detection, "timings": image_ids, "annotated": image_ids}
    files = [_with_ids(root, file, new) for file in record.files]
    msgspec.structs.replace(record, files=files).write(root)


def _stands(root: str, file: FileRecord) -> bool:
    return file_record(root, file.path, file.rows) == file


def _with_ids(root: str, file: FileRecord, new: dict[str, np.ndarray[tuple[int], np.dtype[np.int64]]]) -> FileRecord:
    name = file.path.split("/")[-2]
    if name not in new:
        return file
    table = read_table(root, file.path)
    position = table.schema.get_field_index("image_id")
    table = table.set_column(position, table.schema.field(position), pa.array(new[name]))
    return write_table(root, file.path, table, DICTIONARY_COLUMNS[name])
