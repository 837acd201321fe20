"""The plan of a run: its inputs, sorted by name, with ids, cut into parts. Made before anything runs.

The sorting is SQLite's, on disk, so that the number of inputs is not bounded by memory. Names compare by their UTF-8
bytes.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs import storage
from beam_jobs.errors import JobError
from beam_jobs.formats.coco_ids import ImageIds
from beam_jobs.matching import Found
from beam_jobs.records import ImageKey
from beam_jobs.runs import layout
from beam_jobs.runs.documents import read_document
from beam_jobs.runs.ids import Claim, Settled, proposed_id, settle
from beam_jobs.runs.twins import find_twins

#: Parts that one file of the plan holds, a row group each.
PARTS_A_SLICE = 100
#: A part ends before it has more than this many bytes of input, so that large TFRecord files do not share one.
MAX_PART_BYTES = 1 << 30
PLAN_VERSION = 1

_INPUTS = pa.schema(
    [
        pa.field("input", pa.int64(), nullable=False),
        pa.field("image_id", pa.int64(), nullable=False),
        pa.field("file_name", pa.string(), nullable=False),
        # Bytes, not text: a local path need not be UTF-8.
        pa.field("uri", pa.binary(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("mtime_ns", pa.int64()),
        pa.field("first", pa.int64(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class PlannedInput:
    """An input of the plan: its position, its key, and what is known of the file (None where that costs a request).

    Args:
        first: the position of the first input with the same content, which others follow: its own without --dedupe.
    """

    input: int
    key: ImageKey
    size: int | None
    mtime_ns: int | None
    first: int


class Renamed(msgspec.Struct, frozen=True):
    """A name whose image id was taken, and the id that it has instead."""

    file_name: str
    image_id: int


class Plan(msgspec.Struct, frozen=True):
    """`_plan/plan.json`: what was planned, and for which job.

    Args:
        inputs: how many inputs there are.
        parts: how many inputs each part has, in order.
        repeated_inputs: how many paths were named more than once; each is done once.
        renamed: names that did not get the id they asked for.
        job: the job's description; a run is resumed only by the same.
    """

    version: int
    inputs: int
    parts: list[int]
    repeated_inputs: int
    renamed: list[Renamed]
    job: dict[str, Any]

    @staticmethod
    def read(root: str) -> Plan:
        """The plan of the run in `root`. Raises as `read_document` does."""
        return read_document(root, layout.PLAN, Plan)


class Before(Protocol):
    """What earlier runs had, for a run that goes with them."""

    def counts(self) -> Mapping[str, int]:
        """How many inputs they had, by what became of them."""

    def held_ids(self) -> Iterator[int]:
        """Image ids that nobody else may have."""

    def write_superseded(self, root: str, planned: str) -> None:
        """Writes which inputs the run in `root` supersedes, given the table of those that it has."""


class Planner:
    """Collects inputs on disk, then gives them their order, ids and parts. A context manager: it has a temporary file.

    Args:
        image_ids: ids by name, of a ground truth; None for digests.
    """

    def __init__(self, image_ids: ImageIds | None = None) -> None:
        self._image_ids = image_ids
        self._before: Before | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="beam-detect-plan-")
        self._database = sqlite3.connect(Path(self._folder.name) / "plan.sqlite", isolation_level=None)
        # Nobody reads this file after a crash.
        for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-65536"):
            self._database.execute(f"PRAGMA {setting}")
        self._database.execute(f"PRAGMA temp_store_directory='{self._folder.name}'")
        self._database.execute("CREATE TABLE found(file_name TEXT, uri BLOB, size INTEGER, mtime_ns INTEGER)")
        self.inputs = 0
        self.bytes = 0
        self.repeated_inputs = 0
        #: Those whose content another has that is before them.
        self.twins = 0
        self.renamed: list[Renamed] = []

    def __enter__(self) -> Planner:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._database.close()
        self._folder.cleanup()

    def add(self, found: Iterable[Found]) -> None:
        """Takes inputs, in any order."""
        rows = ((f.file_name, os.fsencode(f.uri), f.size, f.mtime_ns) for f in found)
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO found VALUES (?, ?, ?, ?)", rows)
        self._database.execute("COMMIT")

    def leave_out(self, compare: Callable[[sqlite3.Connection], Before]) -> None:
        """Leaves out what an earlier run has done. Before `arrange`.

        Args:
            compare: deletes such inputs from the table `found`.
        """
        self._before = compare(self._database)

    @property
    def since(self) -> Mapping[str, int]:
        """How many inputs earlier runs had, by what became of them; empty if there are no such runs."""
        return {} if self._before is None else self._before.counts()

    def arrange(self, limit: int | None = None) -> None:
        """Sorts the inputs, gives ids, and leaves out all but the first `limit`."""
        run = self._database.execute
        run(
            "CREATE TABLE planned(row INTEGER PRIMARY KEY, file_name TEXT, uri BLOB, size INTEGER, mtime_ns INTEGER,"
            " frame INTEGER, image_id INTEGER, claim INTEGER, first INTEGER)"
        )
        (total,) = run("SELECT count(*) FROM found").fetchone()
        # The default collation compares UTF-8 bytes.
        ordered = run(
            "SELECT file_name, uri, max(size), max(mtime_ns) FROM found GROUP BY 1, 2 ORDER BY 1, 2 LIMIT ?",
            (-1 if limit is None else limit,),
        )
        self._insert_planned(ordered)
        (distinct,) = run("SELECT count(*) FROM (SELECT 1 FROM found GROUP BY file_name, uri)").fetchone()
        self.repeated_inputs = total - distinct
        run("DROP TABLE found")
        self.inputs, self.bytes = run("SELECT count(*), coalesce(sum(size), 0) FROM planned").fetchone()
        if self._before is not None:
            ids = ((-1 - i, image_id, int(Claim.HELD)) for i, image_id in enumerate(set(self._before.held_ids())))
            run("BEGIN")
            self._database.executemany("INSERT INTO planned(row, image_id, claim) VALUES (?, ?, ?)", ids)
            run("COMMIT")
        self.renamed = [_renamed(settled) for settled in settle(self._database, "planned")]
        run("DELETE FROM planned WHERE row < 0")

    def dedupe(self, max_bytes: int) -> None:
        """Puts inputs behind the first that has the same content. Ids stay. Reads files that are of one size.

        Args:
            max_bytes: larger files are taken for different ones.
        """
        self.twins = find_twins(self._database, "planned", max_bytes)
        self._database.execute("CREATE INDEX planned_first ON planned(first, row)")

    def __iter__(self) -> Iterator[PlannedInput]:
        order = "first, row" if self.twins else "row"
        rows = self._database.execute(
            f"SELECT row, first, image_id, file_name, uri, size, mtime_ns FROM planned ORDER BY {order}"
        )
        leader = 0
        for position, (row, first, image_id, file_name, uri, size, mtime_ns) in enumerate(rows):
            leader = position if first == row else leader
            yield PlannedInput(position, ImageKey(image_id, os.fsdecode(uri), file_name), size, mtime_ns, leader)

    def write(self, root: str, part_size: int, job: Mapping[str, Any]) -> Plan:
        """Writes the plan below `root`, `part_size` inputs a part; `plan.json` comes last."""
        parts: list[int] = []
        writer = _SliceWriter(root)
        # A part without inputs makes tables without rows: who reads two runs as one finds both.
        none: list[list[PlannedInput]] = [[]] if self._before is not None and not self.inputs else []
        for part in chain(_parts(self, part_size), none):
            writer.add(part)
            parts.append(len(part))
        writer.close()
        if self._image_ids is not None:
            self._image_ids.save(storage.join(root, layout.IMAGE_IDS))
        if self._before is not None:
            self._before.write_superseded(root, "planned")
        plan = Plan(PLAN_VERSION, self.inputs, parts, self.repeated_inputs, self.renamed, dict(job))
        storage.write_atomic(storage.join(root, layout.PLAN), msgspec.json.format(msgspec.json.encode(plan)))
        return plan

    def _insert_planned(self, ordered: Iterable[tuple[str, bytes, int | None, int | None]]) -> None:
        def rows() -> Iterator[tuple[Any, ...]]:
            for row, (file_name, uri, size, mtime_ns) in enumerate(ordered):
                image_id, claim = proposed_id(file_name, 0, self._image_ids)
                yield row, file_name, uri, size, mtime_ns, 0, image_id, int(claim), row

        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO planned VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows())
        self._database.execute("COMMIT")


def read_part(root: str, part: int) -> list[PlannedInput]:
    """The inputs of a part, in the order of the plan.

    Raises:
        FileNotFoundError: the plan is not there.
        JobError: it is damaged.
    """
    path = layout.plan_slice(part // PARTS_A_SLICE)
    data = storage.read_bytes(storage.join(root, path))
    try:
        table = pq.ParquetFile(io.BytesIO(data), pre_buffer=False).read_row_group(
            part % PARTS_A_SLICE, use_threads=False
        )
        return _planned(table)
    # Whatever Arrow makes of it (ArrowInvalid, OSError, IndexError …), or a column that is missing or of another kind.
    except Exception as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise JobError(f"{path} is damaged ({what}). The run cannot go on: --overwrite replaces it.") from error


def _planned(table: pa.Table) -> list[PlannedInput]:
    return [
        PlannedInput(
            r["input"],
            ImageKey(r["image_id"], os.fsdecode(r["uri"]), r["file_name"]),
            r["size"],
            r["mtime_ns"],
            r.get("first", r["input"]),  # plans of before --dedupe have no such column
        )
        for r in table.to_pylist()
    ]


def _parts(inputs: Iterable[PlannedInput], part_size: int) -> Iterator[list[PlannedInput]]:
    part: list[PlannedInput] = []
    size = 0
    for planned in inputs:
        size += planned.size or 0
        if part and (len(part) == part_size or size > MAX_PART_BYTES):
            yield part
            part, size = [], planned.size or 0
        part.append(planned)
    if part:
        yield part


class _SliceWriter:
    """Files of the plan, each with `PARTS_A_SLICE` row groups: a reader of one part need not read the plan."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._number = 0
        self._open()

    def add(self, part: list[PlannedInput]) -> None:
        if self._parts == PARTS_A_SLICE:
            self.close()
            self._number += 1
            self._open()
        rows = [
            (p.input, p.key.image_id, p.key.file_name, os.fsencode(p.key.uri), p.size, p.mtime_ns, p.first)
            for p in part
        ]
        columns = zip(*rows, strict=True) if rows else [()] * len(_INPUTS)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _INPUTS, strict=True)]
        self._writer.write_table(pa.table(arrays, schema=_INPUTS), row_group_size=max(1, len(part)))
        self._parts += 1

    def close(self) -> None:
        self._writer.close()
        storage.write_atomic(storage.join(self._root, layout.plan_slice(self._number)), self._sink.getvalue())

    def _open(self) -> None:
        self._parts = 0
        self._sink = io.BytesIO()
        self._writer = pq.ParquetWriter(self._sink, _INPUTS, compression="zstd")


def _renamed(settled: Settled) -> Renamed:
    return Renamed(settled.file_name, settled.image_id)
