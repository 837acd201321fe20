"""Unique image ids over a whole run, once its TFRecord files and clips have been read.

The plan gives every file an id. The names of records and the frames of clips are known only when all is read, and only
they can repeat one.
"""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from beam_jobs import storage
from beam_jobs.formats.coco_ids import ImageIds
from beam_jobs.formats.tables import DICTIONARY_COLUMNS
from beam_jobs.runs import layout
from beam_jobs.runs.ids import Claim, proposed_id, settle
from beam_jobs.runs.parts import FileRecord, PartRecord, file_record, read_table, write_table
from beam_jobs.runs.plan import Renamed, read_part
from beam_jobs.storage import display_name

#: Stands for the part of pictures of earlier runs.
_OTHERS = -1

_Row = tuple[int, str, int, int, int]
_Ids = NDArray[np.int64]


def settle_records(
    root: str, records: Sequence[PartRecord], others: Iterable[tuple[str, int, int]], mark: str
) -> list[Renamed]:
    """Gives each record or frame whose image id is taken one of its own, in the tables of the run in `root`.

    Ids of pictures stand as planned. What a record asks for is worked out from its name, whatever id it has now, so
    that doing this twice, or half, ends the same.

    Args:
        others: name, frame and image id of pictures of earlier runs, which keep theirs.
        mark: of the files that are written anew, and their records; see `layout.mark`.
    """
    ids_path = storage.join(root, layout.IMAGE_IDS)
    image_ids = ImageIds.load(ids_path) if storage.exists(ids_path) else None
    with tempfile.TemporaryDirectory(prefix="beam-detect-ids-") as folder, _database(folder) as database:
        insert = "INSERT INTO images(part, file_name, frame, image_id, claim) VALUES (?, ?, ?, ?, ?)"
        database.execute("BEGIN")
        held = int(Claim.HELD)
        database.executemany(insert, ((_OTHERS, name, frame, image_id, held) for name, frame, image_id in others))
        for record in records:
            database.executemany(insert, _claims(root, record, image_ids))
        database.execute("COMMIT")
        settled = list(settle(database, "images"))
        for record in records:
            if record.counts.containers:
                rows = database.execute("SELECT image_id FROM images WHERE part = ? ORDER BY row", (record.part,))
                _give_ids(root, record, np.array([image_id for (image_id,) in rows], np.int64), mark)
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
    files = set()
    if record.counts.tfrecord_files:
        files = {(display_name(one.key.uri), one.key.file_name) for one in read_part(root, record.part)}
    tables = (read_table(root, file.path).select(columns) for file in record.files_of("images"))
    for image in (row for table in tables for row in table.to_pylist()):
        name, frame, image_id, claim = image["file_name"], image["frame"], image["image_id"], Claim.HELD
        if image["video"] is not None or (record.counts.tfrecord_files and (image["uri"], name) not in files):
            image_id, claim = proposed_id(name, frame, image_ids, image["video"])
        yield record.part, name, frame, image_id, int(claim)


def _give_ids(root: str, record: PartRecord, image_ids: _Ids, mark: str) -> None:
    """Rewrites a part whose ids have changed. `image_ids` is in the order of its images.

    The record comes last. Where one was stopped before that, tables are not what it says, and are written again.
    """
    now = list(_images_of(root, record))
    if [image_id for _, _, image_id in now] == image_ids.tolist() and all(map(partial(_stands, root), record.files)):
        return
    new: dict[str, FileRecord] = {}
    begin = 0
    # Files of images, detections and timings with one number are of the same images, and in their order.
    for files in zip(*map(record.files_of, ("images", "detections", "timings")), strict=True):
        images = read_table(root, files[0].path)
        ids = image_ids[begin : begin + len(images)]
        by_detection = np.repeat(ids, images["num_detections"].to_numpy())
        for file, of_rows in zip(files, (ids, by_detection, ids), strict=True):
            new[file.path] = _with_ids(root, file, of_rows, mark)
        begin += len(images)
    names = [(name, frame) for name, frame, _ in now]
    for file in record.files_of("annotated"):
        new[file.path] = _with_ids(root, file, _of_some(read_table(root, file.path), names, image_ids), mark)
    msgspec.structs.replace(record, files=[new.get(file.path, file) for file in record.files], mark=mark).write(root)


def _images_of(root: str, record: PartRecord) -> Iterator[tuple[str, int, int]]:
    """Name, frame and id of each image of a part."""
    for file in record.files_of("images"):
        table = read_table(root, file.path)
        yield from zip(*(table[name].to_pylist() for name in ("file_name", "frame", "image_id")), strict=True)


def _of_some(some: pa.Table, names: Sequence[tuple[str, int]], image_ids: _Ids) -> _Ids:
    """The ids of some of the images, which are in the same order: of clips, only stills are annotated."""
    found, at = [], 0
    for key in zip(some["file_name"].to_pylist(), some["frame"].to_pylist(), strict=True):
        while names[at] != key:
            at += 1
        found.append(image_ids[at])
        at += 1
    return np.array(found, np.int64)


def _stands(root: str, file: FileRecord) -> bool:
    return file_record(root, file.path, file.rows) == file


def _with_ids(root: str, file: FileRecord, image_ids: _Ids, mark: str) -> FileRecord:
    table = read_table(root, file.path)
    position = table.schema.get_field_index("image_id")
    table = table.set_column(position, table.schema.field(position), pa.array(image_ids))
    return write_table(root, layout.with_mark(file.path, mark), table, DICTIONARY_COLUMNS[file.path.split("/")[-2]])
