"""Inputs of the same content (`--dedupe`): found when the plan is made, so that each content is detected once.

Files of one size may be the same, and only these are read: their sha256 decides. A TFRecord file is left alone, and so
is what cannot be read: it fails for itself. The tables are SQLite's, on disk, as those of the plan.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from beam_jobs import storage
from beam_jobs.formats import tfrecord

T = TypeVar("T")

#: Files that are looked at at a time: enough to wait for a bucket; hashing leaves the interpreter to the others.
_THREADS = 16
_BLOCK = 1 << 20
_ROWS = 4096


def find_twins(database: sqlite3.Connection, table: str, max_bytes: int) -> int:
    """Sets the column `first` to the first `row` of the same content; returns how many rows follow another.

    The table has the columns `row` (its order, unique), `uri`, `size` and `first`, which is the row itself so far.

    Args:
        max_bytes: larger files are not read.
    """
    database.execute("CREATE TABLE contents(row INTEGER PRIMARY KEY, uri BLOB, size INTEGER, sha256 BLOB)")
    database.execute(f"INSERT INTO contents SELECT row, uri, size, NULL FROM {table}")
    fill_in(database, "contents", "size", "size IS NULL", _size)
    database.execute("CREATE INDEX contents_size ON contents(size)")
    shared = "SELECT size FROM contents GROUP BY size HAVING count(*) > 1"
    fill_in(database, "contents", "sha256", f"size <= {max_bytes} AND size IN ({shared})", sha256_of)
    database.execute(
        f"""UPDATE {table} SET first = same.first FROM
              (SELECT row, min(row) OVER (PARTITION BY sha256) AS first FROM contents WHERE sha256 IS NOT NULL) AS same
            WHERE same.row = {table}.row"""
    )
    database.execute("DROP TABLE contents")
    (twins,) = database.execute(f"SELECT count(*) FROM {table} WHERE first < row").fetchone()
    return int(twins)


def fill_in(database: sqlite3.Connection, table: str, column: str, where: str, look: Callable[[str], T | None]) -> None:
    """Writes what `look` says of each file of a table, with columns `row` and `uri`, into a column of it."""
    database.execute(f"CREATE TABLE todo AS SELECT row, uri FROM {table} WHERE {where}")
    with ThreadPoolExecutor(_THREADS, "twins") as threads:
        for rows in _batches(database.execute("SELECT row, uri FROM todo")):
            seen = threads.map(look, [os.fsdecode(uri) for _, uri in rows])
            database.execute("BEGIN")
            database.executemany(
                f"UPDATE {table} SET {column} = ? WHERE row = ?",
                [(value, row) for (row, _), value in zip(rows, seen, strict=True)],
            )
            database.execute("COMMIT")
    database.execute("DROP TABLE todo")


def _batches(cursor: sqlite3.Cursor) -> Iterator[list[tuple[int, bytes]]]:
    while rows := cursor.fetchmany(_ROWS):
        yield rows


def _size(uri: str) -> int | None:
    try:
        return storage.size(uri)
    except OSError:
        return None


def sha256_of(uri: str) -> bytes | None:
    """The sha256 of a file that can be read, and is no TFRecord file."""
    try:
        with storage.open_read(uri) as stream:
            head = stream.read(tfrecord.HEAD_BYTES)
            if tfrecord.looks_like_tfrecord(head):
                return None
            digest = hashlib.sha256(head)
            for block in iter(partial(stream.read, _BLOCK), b""):
                digest.update(block)
    except OSError:
        return None
    return digest.digest()
