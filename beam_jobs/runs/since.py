"""An incremental run (`--since`): of the inputs that are new, or not what they were, since an earlier run.

Its folder and the earlier one are read as one table: `superseded` has the names of which the earlier rows count no
more, because the new run has others, or because the input is gone. The earlier run may be one of this kind itself;
then all of them belong together.

An input is what it was if it has the same size and time of change; where only the size is the same, or they are not
known, the same sha256. The tables are SQLite's, on disk, as those of the plan.
"""

from __future__ import annotations

import io
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.runs import layout
from beam_jobs.runs.launch import Launch
from beam_jobs.runs.manifest import Manifest, table_files
from beam_jobs.runs.parts import read_table
from beam_jobs.runs.plan import Plan, read_part
from beam_jobs.runs.twins import fill_in, sha256_of
from beam_jobs.storage import display_name

SUPERSEDED = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Earlier:
    """The earlier run, and those that it was made since: oldest first.

    Args:
        launch, plan: those of the latest.
    """

    roots: tuple[str, ...]
    launch: Launch
    plan: Plan


def read_earlier(root: str) -> Earlier:
    """The run in `root`, and those before it.

    Raises:
        UsageError: one of them is not there, or not finished.
    """
    roots: list[str] = []
    at: str | None = root
    launches: list[Launch] = []
    while at is not None:
        try:
            Manifest.read(at)
            launches.append(Launch.read(at))
        except (UsageError, FileNotFoundError) as error:
            of = f", which {roots[-1]} was made since" if roots else ""
            raise UsageError(f"--since {root}: there is no finished run in {at}{of}: {error}") from error
        roots.append(at)
        at = launches[-1].request.get("since")
    return Earlier(tuple(reversed(roots)), launches[0], Plan.read(root))


class Comparison:
    """Compares what was found now with what earlier runs had. Works in the tables of a plan's database.

    Args:
        database: has a table `found` with `file_name`, `uri`, `size` and `mtime_ns`.
        max_bytes: of larger files no content is compared.
    """

    def __init__(self, database: sqlite3.Connection, earlier: Earlier, max_bytes: int) -> None:
        self._database = database
        self._earlier = earlier
        database.execute(
            "CREATE TABLE before(row INTEGER PRIMARY KEY, run INTEGER, file_name TEXT, uri BLOB, size INTEGER,"
            " mtime_ns INTEGER, image_id INTEGER, state TEXT, old BLOB, sha256 BLOB, UNIQUE(file_name, uri))"
        )
        for run, root in enumerate(earlier.roots):
            self._take(run, root)
        self._settle(max_bytes)

    def counts(self) -> dict[str, int]:
        """How many inputs are `same`, `changed` and `gone`."""
        rows = self._database.execute("SELECT state, count(*) FROM before GROUP BY state").fetchall()
        return {"same": 0, "changed": 0, "gone": 0, **dict(rows)}

    def held_ids(self) -> Iterator[int]:
        """Image ids of the rows that stand: nobody else may have them."""
        for (image_id,) in self._database.execute("SELECT image_id FROM before WHERE state = 'same'"):
            yield image_id
        for run, root in enumerate(self._earlier.roots):
            if Manifest.read(root).counts.containers:  # the plan has no ids of records and frames
                rows = self._database.execute("SELECT uri FROM before WHERE run = ? AND state = 'same'", (run,))
                standing = {display_name(os.fsdecode(uri)) for (uri,) in rows}
                yield from (image_id for uri, image_id in _images(root, ("uri", "image_id")) if uri in standing)

    def write_superseded(self, root: str, planned: str) -> None:
        """Writes the table `superseded` of a new run, also when it has no rows: who reads both runs finds it.

        Args:
            planned: the table of its inputs; what is not in it stands as it is.
        """
        path = storage.join(root, layout.SUPERSEDED)
        with storage.atomic_writer(path) as file, pq.ParquetWriter(file, SUPERSEDED, compression="zstd") as writer:
            for batch in self._superseded(planned):
                writer.write_batch(batch)

    def _superseded(self, planned: str) -> Iterator[pa.RecordBatch]:
        self._database.execute(
            f"""UPDATE before SET state = 'same' WHERE state = 'changed' AND NOT EXISTS (
                  SELECT 1 FROM {planned} p WHERE p.file_name = before.file_name AND p.uri = before.uri)"""
        )
        rows = self._database.execute(
            "SELECT uri, file_name, state FROM before WHERE state IN ('changed', 'gone') ORDER BY file_name, uri"
        )
        while some := rows.fetchmany(_ROWS):
            uris, names, reasons = zip(*some, strict=True)
            texts = [display_name(os.fsdecode(uri)) for uri in uris]
            yield pa.record_batch([texts, list(names), list(reasons)], schema=SUPERSEDED)

    def _take(self, run: int, root: str) -> None:
        """The inputs of a run take the place of those of the runs before it; what it says is gone, is."""
        self._database.execute("BEGIN")
        for uri, name in superseded_of(root):
            rows = self._database.execute("SELECT row, uri FROM before WHERE file_name = ?", (name,)).fetchall()
            for row, old in rows:
                if display_name(os.fsdecode(old)) == uri:
                    self._database.execute("DELETE FROM before WHERE row = ?", (row,))
        insert = "INSERT INTO before(run, file_name, uri, size, mtime_ns, image_id) VALUES (?, ?, ?, ?, ?, ?)"
        for part in range(len(Plan.read(root).parts)):
            planned = read_part(root, part)
            self._database.executemany(
                insert,
                ((run, p.key.file_name, os.fsencode(p.key.uri), p.size, p.mtime_ns, p.key.image_id) for p in planned),
            )
        self._database.execute("COMMIT")

    def _settle(self, max_bytes: int) -> None:
        run = self._database.execute
        run("CREATE INDEX found_names ON found(file_name, uri)")
        match = "found.file_name = before.file_name AND found.uri = before.uri"
        run(f"UPDATE before SET state = 'gone' WHERE NOT EXISTS (SELECT 1 FROM found WHERE {match})")
        alike = f"{match} AND found.size = before.size AND found.mtime_ns = before.mtime_ns"
        run(f"UPDATE before SET state = 'same' WHERE EXISTS (SELECT 1 FROM found WHERE {alike})")
        # A time that differs, or that nobody knows, says nothing of the content.
        maybe = f"{match} AND coalesce(found.size, before.size, 0) = coalesce(before.size, found.size, 0)"
        run(f"UPDATE before SET state = 'read' WHERE state IS NULL AND EXISTS (SELECT 1 FROM found WHERE {maybe})")
        run(f"UPDATE before SET state = NULL WHERE state = 'read' AND size > {max_bytes}")
        if run("SELECT 1 FROM before WHERE state = 'read' LIMIT 1").fetchone():
            self._read_digests()
            fill_in(self._database, "before", "sha256", "state = 'read' AND old IS NOT NULL", sha256_of)
            run("UPDATE before SET state = 'same' WHERE state = 'read' AND sha256 = old")
        run("UPDATE before SET state = 'changed' WHERE state IS NULL OR state = 'read'")
        run(f"DELETE FROM found WHERE EXISTS (SELECT 1 FROM before WHERE {match} AND before.state = 'same')")

    def _read_digests(self) -> None:
        """What the earlier runs read: sha256 of the pictures whose content is to be compared."""
        for run, root in enumerate(self._earlier.roots):
            asked = "SELECT 1 FROM before WHERE run = ? AND state = 'read' LIMIT 1"
            if not self._database.execute(asked, (run,)).fetchone():
                continue
            self._database.execute("BEGIN")
            self._database.executemany(
                "UPDATE before SET old = ? WHERE file_name = ? AND run = ? AND state = 'read'",
                ((bytes.fromhex(digest), name, run) for name, digest in _images(root, ("file_name", "sha256"))),
            )
            self._database.execute("COMMIT")


def superseded_of(root: str) -> Iterator[tuple[str, str]]:
    """URIs and names that a run supersedes; none if it was not made since another."""
    path = storage.join(root, layout.SUPERSEDED)
    if not storage.exists(path):
        return
    file = pq.ParquetFile(io.BytesIO(storage.read_bytes(path)), pre_buffer=False)  # see `runs.parts.read_table`
    for batch in file.iter_batches(_ROWS, use_threads=False):
        yield from zip(batch["uri"].to_pylist(), batch["file_name"].to_pylist(), strict=True)


def rows_that_stand(root: str, launch: Launch) -> Iterator[tuple[str, int, int]]:
    """Name, frame and image id of each picture of earlier runs that counts beside the run in `root`."""
    later = {uri for uri, _ in superseded_of(root)}
    at = launch.request.get("since")
    while at is not None:
        for uri, name, frame, image_id in _images(at, ("uri", "file_name", "frame", "image_id")):
            if uri not in later:
                yield name, frame, image_id
        later.update(uri for uri, _ in superseded_of(at))
        at = Launch.read(at).request.get("since")


def _images(root: str, columns: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    for path in table_files(Manifest.read(root).files, "images"):
        table = read_table(root, path)
        yield from zip(*(table[column].to_pylist() for column in columns), strict=True)
