"""Feeds a pool from a stream of groups: so many in flight; TFRecord files opened, and clips done, as they turn up."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from typing import NamedTuple

from beam_jobs import storage
from beam_jobs.errors import InputError
from beam_jobs.formats import tfrecord
from beam_jobs.formats.rows import Place, RowsBuilder
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.reading import why_unreadable
from beam_jobs.processes.work import PictureSettings, Reply, Tally, Work
from beam_jobs.storage import display_name

#: A group of records ends at whichever comes first.
GROUP_RECORDS, GROUP_BYTES = 16, 16 << 20


class PartRows(NamedTuple):
    """Encoded rows, and the part of the plan that they belong to."""

    part: int
    rows: bytes


class Feeder:
    """Hands groups to a pool and yields their rows as they come back, in whatever order.

    What is in flight is bounded by number for files, and by bytes as well for records, whose bytes come with them.

    Args:
        all_records: every file is taken for a TFRecord file, without a look at it.
        max_bytes: a longer record is refused.
        gives_ranges: frames of clips are not done, but left for `take_ranges`.
    """

    def __init__(self, pool: DetectorPool, *, all_records: bool, max_bytes: int, gives_ranges: bool = False) -> None:
        self._pool = pool
        self._gives_ranges = gives_ranges
        self._all_records = all_records
        self._max_bytes = max_bytes
        # Two groups a process: the next one is there when one is done.
        self._in_flight = 2 * pool.size
        self._pending: dict[Future[list[Reply]], int] = {}
        #: The first of them is the one that is being read.
        self._containers: deque[tuple[int, Work]] = deque()
        #: Frames of clips, which are groups of their own.
        self._ranges: deque[tuple[int, Work]] = deque()
        self._ready: deque[PartRows] = deque()

    @staticmethod
    def of(pool: DetectorPool, settings: PictureSettings, *, gives_ranges: bool = False) -> Feeder:
        """The feeder of a job with these settings."""
        all_records = settings.input_format == "tfrecord"
        return Feeder(pool, all_records=all_records, max_bytes=settings.max_bytes, gives_ranges=gives_ranges)

    def holds(self, part: int) -> bool:
        """Whether more may come of the groups of a part that were put so far."""
        waiting = (part for part, _ in (*self._containers, *self._ranges))
        return part in (*self._pending.values(), *waiting, *(rows.part for rows in self._ready))

    def put(self, part: int, group: Sequence[Work]) -> Iterator[PartRows]:
        """Takes a group; yields rows that are ready. Waits while too much is in flight."""
        if self._all_records and not any(work.is_frames for work in group):
            self._containers.extend((part, work) for work in group)
        else:
            yield from self._submit(part, group)
        yield from self._open_containers()
        yield from self._submit_ranges()

    def take_ranges(self) -> list[tuple[int, Work]]:
        """The frames of clips that have turned up, with their parts, for others to do."""
        taken = list(self._ranges)
        self._ranges.clear()
        return taken

    def drain(self) -> Iterator[PartRows]:
        """Yields the rows of all that is left."""
        while self._pending or self._containers or (self._ranges and not self._gives_ranges):
            yield from self._open_containers()
            yield from self._submit_ranges()
            if self._pending:
                yield from self._collect()

    def _submit(self, part: int, group: Sequence[Work]) -> Iterator[PartRows]:
        while len(self._pending) >= self._in_flight:
            yield from self._collect()
        self._pending[self._pool.submit(group)] = part

    def _collect(self) -> Iterator[PartRows]:
        done, _ = wait(self._pending, return_when=FIRST_COMPLETED)
        for future in done:
            part = self._pending.pop(future)
            for reply in future.result():
                self._containers.extend((part, work) for work in reply.containers)
                self._ranges.extend((part, work) for work in reply.ranges)
                self._ready.append(PartRows(part, reply.rows))
        yield from self._give()

    def _submit_ranges(self) -> Iterator[PartRows]:
        while self._ranges and not self._gives_ranges:
            part, work = self._ranges[0]  # held until it is in flight: `holds` is asked meanwhile
            yield from self._submit(part, (work,))
            self._ranges.popleft()

    def _open_containers(self) -> Iterator[PartRows]:
        while self._containers:
            yield from self._records(*self._containers[0])
            self._containers.popleft()
            yield from self._give()

    def _give(self) -> Iterator[PartRows]:
        while self._ready:
            yield self._ready.popleft()

    def _records(self, part: int, work: Work) -> Iterator[PartRows]:
        """Reads a TFRecord file: its records go to the pool; what cannot be read of it is settled here, and ready then.

        Yields what comes back meanwhile.
        """
        rows = RowsBuilder("", {})
        tally = Tally()
        self._pool.add(Tally(tfrecord_files=1))
        count = 0
        group: list[Work] = []
        size = 0
        opened = True

        def fail(place: Place, name: str, error: InputError) -> None:
            rows.failure(replace(work.key, file_name=name), place, display_name(work.key.uri), error)
            tally.failures[error.code] += 1

        try:
            with storage.open_read(work.key.uri) as stream:
                for count, record in enumerate(tfrecord.read_records(stream, max_bytes=self._max_bytes), start=1):
                    one = Work(replace(work.key, record=count - 1), work.input, None)
                    if isinstance(record, InputError):
                        fail(one.place, one.name, record)
                        continue
                    group.append(replace(one, data=record))
                    size += len(record)
                    if len(group) == GROUP_RECORDS or size > GROUP_BYTES:
                        yield from self._submit(part, group)
                        group, size = [], 0
        except OSError as error:
            refused = InputError("expand", *why_unreadable(error))
            if count == 0:
                opened = False
                fail(work.place, work.name, refused)
            else:
                # What was read so far stands; the rest counts as one record.
                rest = Work(replace(work.key, record=count), work.input)
                fail(rest.place, rest.name, refused)
                count += 1
        if group:
            yield from self._submit(part, group)
        if opened:
            rows.container(work.input, count)
        self._pool.add(tally)
        self._ready.append(PartRows(part, rows.encode()))
