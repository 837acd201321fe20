"""Image ids: which one a name asks for, and who gets it when two ask for the same."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from beam_jobs.formats.coco_ids import ImageIds
from beam_jobs.records import frame_id_of, image_id_of


class Claim(IntEnum):
    """Why a name asks for an id. The lower one gets it; among equals the first in the order of the plan."""

    HELD = 0
    EXACT_NAME = 1
    BASE_NAME = 2
    DIGEST = 3


class Proposal(NamedTuple):
    """An id that a name asks for."""

    image_id: int
    claim: Claim


def proposed_id(file_name: str, frame: int, image_ids: ImageIds | None, video: str | None = None) -> Proposal:
    """The id of the ground truth for the exact name, else for a base name that is unique there, else the digest.

    Args:
        video: the clip that the frame is of, if it is one.
    """
    if image_ids is not None:
        if (exact := image_ids.exact(file_name)) is not None:
            return Proposal(exact, Claim.EXACT_NAME)
        if (by_base := image_ids.by_base(file_name.rpartition("/")[2])) is not None:
            return Proposal(by_base, Claim.BASE_NAME)
    digest = image_id_of(file_name, frame) if video is None else frame_id_of(video, frame)
    return Proposal(digest, Claim.DIGEST)


class Settled(NamedTuple):
    """A row that does not get the id it asked for."""

    row: int
    file_name: str
    image_id: int


def settle(database: sqlite3.Connection, table: str) -> Iterator[Settled]:
    """Makes the ids of a table unique, and says which rows had to change. Works on disk, for any number of rows.

    The table has the columns `row` (its order, unique), `file_name`, `frame`, `image_id` and `claim`. A row that loses
    its id gets the digest of its name with the lowest number that is free.
    """
    database.execute(f"CREATE INDEX {table}_ids ON {table}(image_id)")
    losers = database.execute(
        f"""SELECT row, file_name, frame FROM (
              SELECT row, file_name, frame, row_number() OVER (PARTITION BY image_id ORDER BY claim, row) AS place
              FROM {table}
              WHERE image_id IN (SELECT image_id FROM {table} GROUP BY image_id HAVING count(*) > 1))
            WHERE place > 1 ORDER BY row"""
    ).fetchall()
    taken = f"SELECT 1 FROM {table} WHERE image_id = ?"
    for row, file_name, frame in losers:
        repetition = 1
        while database.execute(taken, (image_id := image_id_of(file_name, frame, repetition),)).fetchone():
            repetition += 1
        database.execute(f"UPDATE {table} SET image_id = ? WHERE row = ?", (image_id, row))
        yield Settled(row, file_name, image_id)
