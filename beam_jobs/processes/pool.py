"""A few detector processes that are watched and replaced."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import NamedTuple

from beam_jobs.detectors.base import DetectorInfo, DetectorSpec
from beam_jobs.errors import InputError, JobError
from beam_jobs.formats.rows import RowsBuilder
from beam_jobs.imaging.video_ranges import FrameRange
from beam_jobs.imaging.video_stream import Progress
from beam_jobs.processes.detector_process import DetectorProcess, LostError
from beam_jobs.processes.gpus import GPU_VARIABLE, visible_gpus
from beam_jobs.processes.messages import Setup
from beam_jobs.processes.picture import SHARING_FRAMES
from beam_jobs.processes.refusals import refuse, refuse_frames, refuse_stream
from beam_jobs.processes.settings import process_settings
from beam_jobs.processes.spent import SPENT_STEPS, memory_of_machine
from beam_jobs.processes.work import PictureSettings, Reply, Tally, Work
from beam_jobs.runs.log import RunLog
from beam_jobs.storage import display_name

#: So many processes in a row that end while they open the detector end the job.
MAX_FAILED_LOADS = 3
#: So many pictures or frames at which processes were lost, and none before that gave a result, end the job: it is the
#: detector's fault, not theirs.
MAX_LOST_AT_FIRST = 16
#: A picture that ends its process is tried again alone; what ends a process twice is a failure. A group whose pictures
#: share calls is tried again whole, so that a process that was killed from outside changes nothing.
ATTEMPTS = 2
#: What the processes may hold together of the machine's memory, by default; and what each may hold in any case: less
#: than that is a small machine's trouble, and no picture's.
MEMORY_SHARE, LEAST_MEMORY = 0.9, 4 << 30


class Load(NamedTuple):
    """A detector that was opened: until when (`time.monotonic`), for how long, and the memory that it took."""

    ended: float
    seconds: float
    bytes: int


class DetectorPool:
    """Runs groups of pictures in `processes` detector processes, each with the detector loaded once.

    Thread-safe. A process that dies or takes too long costs the picture that it was at, after a second attempt of that
    picture alone; the others of its group are done again. Each process has one of the host's GPUs, if there are any.

    Args:
        beam_args: flags of Beam's, which hold the options of remote file systems.
        verbose: let the processes write to the terminal, for people who look for the cause of something.
        log: hears of processes that are opened and lost.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        settings: PictureSettings,
        processes: int,
        *,
        beam_args: Sequence[str] = (),
        verbose: bool = False,
        log: RunLog | None = None,
    ) -> None:
        if processes < 1:
            raise ValueError(f"processes must be at least 1, got {processes}")
        self.log = log or RunLog()
        self.tally = Tally()
        self.loads: list[Load] = []
        #: Processes that were lost at work. They may have left unfinished files.
        self.lost = 0
        #: CPU seconds of the processes, by `SPENT_STEPS`.
        self.cpu_s: dict[str, float] = dict.fromkeys(SPENT_STEPS, 0.0)
        #: The most memory that any of the processes has held, in bytes.
        self.peak_rss = 0
        self._setup = Setup(spec, settings, tuple(sys.path), tuple(beam_args))
        self._verbose = verbose
        self._begun: dict[tuple[Work, ...], Future[list[Reply]]] = {}
        self._tasks: queue.SimpleQueue[tuple[tuple[Work, ...], Future[list[Reply]]] | None] = queue.SimpleQueue()
        self._first: Future[DetectorInfo] = Future()
        self._lock = threading.Lock()
        self._children: set[DetectorProcess] = set()
        self._failed_loads = 0
        self._given_up = 0
        self._streams_are_over = False
        #: What ended the pool, if anything did.
        self.error: Exception | None = None
        self._closed = False
        self._gpus = visible_gpus()
        self._threads: list[threading.Thread] = []
        self.grow(processes)

    @property
    def size(self) -> int:
        """How many processes there are, or are starting."""
        return len(self._threads)

    def pids(self) -> list[int]:
        """The numbers of the processes."""
        with self._lock:
            return sorted(child.pid for child in self._children)

    def grow(self, processes: int) -> None:
        """Adds processes until there are so many. For one thread at a time."""
        for slot in range(self.size, processes):
            thread = threading.Thread(target=self._serve, args=[slot], name=f"detector-{slot}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def ready(self) -> DetectorInfo:
        """Waits until one process has opened the detector, and says what it found.

        Raises:
            UsageError: it is not a detector, or cannot be opened.
            JobError: the processes die while they open it.
        """
        return self._first.result()

    def begin(self, group: Sequence[Work]) -> None:
        """Has a group done for whoever submits the same one later. For one thread, before anything is submitted."""
        self._begun[tuple(group)] = self.submit(group)

    def submit(self, group: Sequence[Work]) -> Future[list[Reply]]:
        """What becomes of a group, in one or more replies. The future raises UsageError or JobError."""
        works = tuple(group)
        if self._begun and (begun := self._begun.pop(works, None)) is not None:
            return begun
        future: Future[list[Reply]] = Future()
        self._tasks.put((works, future))
        return future

    def add(self, tally: Tally) -> None:
        """Counts what was settled outside of a detector process."""
        with self._lock:
            self.tally.add(tally)

    def end_streams(self) -> None:
        """Has the live streams end, as if they had come to their limits: within `SEGMENT_SECONDS`, at a frame."""
        self._streams_are_over = True

    def close(self) -> None:
        """Ends the processes at once, whatever they are doing, and waits for them."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            child.kill()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join(5)

    def _serve(self, slot: int) -> None:
        """One thread a process: it hands out the work, one group at a time, and minds the process meanwhile."""
        child: DetectorProcess | None = None
        try:
            child = self._start(slot)
            while (task := self._tasks.get()) is not None:
                group, future = task
                if self.error is not None or self._closed:
                    future.set_exception(self.error or JobError("The detector processes were stopped."))
                    continue
                try:
                    child, replies = self._run(slot, child, group)
                    future.set_result(replies)
                except Exception as error:
                    self._fail(error)
                    future.set_exception(error)
        except Exception as error:
            self._fail(error)
            self._refuse_rest()
        finally:
            if child is not None:
                self._stop(child)

    def _run(self, slot: int, child: DetectorProcess, group: tuple[Work, ...]) -> tuple[DetectorProcess, list[Reply]]:
        replies: list[Reply] = []
        todo = [(group, 1)]
        while todo:
            works, attempt = todo.pop()
            try:
                reply = child.run(works, self._setup.settings.max_seconds, self._max_memory())
            except LostError as lost:
                self._stop(child)
                at = works[0] if works[0].is_frames else works[lost.position]
                self._log_lost(child, at, lost, last=attempt == ATTEMPTS or at.stream is not None)
                shared, child = child.shares_calls, self._start(slot)
                if (progress := works[0].stream) is not None:
                    reply = self._lost_stream(works[0], progress, max(lost.position, progress.number), lost.error)
                elif len(works) == 1 and (part := works[0].frames) is not None:
                    again, gone = retried(part, attempt, lost.position, SHARING_FRAMES if shared else 1)
                    todo += [((replace(works[0], frames=one),), number) for one, number in again]
                    if gone is None:
                        continue
                    reply = self._lost_reply(replace(works[0], frames=gone), lost.error)
                elif attempt == ATTEMPTS and len(works) == 1:
                    reply = self._lost_reply(works[0], lost.error)
                else:
                    todo += _again(works, attempt, lost.position, shared)
                    continue
            with self._lock:
                self.tally.add(reply.tally)
                for step, seconds in reply.cpu_s.items():
                    self.cpu_s[step] += seconds
                self.peak_rss = max(self.peak_rss, reply.peak_rss)
            replies.append(reply)
            if reply.rest is not None and reply.rest.stream is not None:
                stream = replace(reply.rest.stream, is_over=self._streams_are_over)
                todo.append(((replace(reply.rest, stream=stream),), 1))
        return child, replies

    def _max_memory(self) -> int:
        memory = memory_of_machine() * MEMORY_SHARE
        return self._setup.settings.max_memory or int(min(memory, max(LEAST_MEMORY, memory / self.size)))

    def _lost_reply(self, work: Work, error: InputError) -> Reply:
        with self._lock:
            self._given_up += 1
            if self._given_up >= MAX_LOST_AT_FIRST and not self.tally.pictures:
                raise JobError(
                    f"No picture gave a result: the detector {self._setup.spec.name} lost its process at each of the "
                    f"first {self._given_up}. {error.message} --verbose shows what it says."
                )
        rows = RowsBuilder(self._setup.spec.label, self._setup.spec.categories)
        tally = Tally()
        if work.frames is None:
            refuse(work, work.name, error, rows, tally, attempts=ATTEMPTS)
        else:
            refuse_frames(work, work.frames, error, rows, tally, attempts=ATTEMPTS)
        return Reply(rows.encode(), (), tally)

    def _lost_stream(self, work: Work, progress: Progress, at: int, error: InputError) -> Reply:
        """A failure in the place of what was not written down yet; the stream is read on behind frame `at`."""
        rows = RowsBuilder(self._setup.spec.label, self._setup.spec.categories)
        tally = Tally()
        refuse_stream(work, at, error, rows, tally, progress.number)
        rest = Progress(at + 1, progress.done + 1, progress.since or time.monotonic())
        return Reply(rows.encode(), (), tally, rest=replace(work, stream=rest))

    def _log_lost(self, child: DetectorProcess, work: Work, lost: LostError, *, last: bool) -> None:
        error, uri = lost.error, display_name(work.key.uri)
        with self._lock:
            self.lost += 1
        if not self._closed:
            self.log.warning(error.stage, error.code, error.message, input=uri, process=child.pid, again=not last)

    def _start(self, slot: int) -> DetectorProcess:
        """A process with its detector open. Tries again when one ends on the way there."""
        while True:
            with self._lock:
                if self._closed:
                    raise JobError("The detector processes were stopped.")
                child = DetectorProcess(self._environment(slot), self._verbose)
                self._children.add(child)
            try:
                ready = child.open(self._setup)
            except LostError as lost:
                self._stop(child)
                if not self._closed:
                    self.log.warning("open", lost.error.code, lost.error.message, process=child.pid)
                with self._lock:
                    self._failed_loads += 1
                    if self._failed_loads >= MAX_FAILED_LOADS and not self._closed:
                        raise JobError(
                            f"The detector {self._setup.spec.name} cannot be opened: {lost.error.message} "
                            f"({self._failed_loads} times in a row). --verbose shows what it says."
                        ) from None
            except BaseException:
                self._stop(child)
                raise
            else:
                with self._lock:
                    self._failed_loads = 0
                    self.loads.append(Load(time.monotonic(), ready.load_ms / 1e3, ready.model_bytes))
                    took = round(ready.load_ms / 1e3, 3)
                    self.log.info("open", "opened", f"Opened in {took:g} s.", process=child.pid, seconds=took)
                    if not self._first.done():
                        self._first.set_result(ready.info)
                return child

    def _stop(self, child: DetectorProcess) -> None:
        with self._lock:
            self._children.discard(child)
        child.close()

    def _fail(self, error: Exception) -> None:
        with self._lock:
            self.error = self.error or error
            if not self._first.done():
                self._first.set_exception(self.error)

    def _refuse_rest(self) -> None:
        """Answers what is asked of a pool that cannot start."""
        while (task := self._tasks.get()) is not None:
            task[1].set_exception(self.error)

    def _environment(self, slot: int) -> Mapping[str, str]:
        gpu = {GPU_VARIABLE: self._gpus[slot % len(self._gpus)]} if self._gpus else {}
        return {
            **os.environ,
            **gpu,
            # The child must find this package wherever the parent found it.
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **process_settings(self._setup.spec.threads),
            "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "0" if self._verbose else "3"),
        }


def _again(works: tuple[Work, ...], attempt: int, at: int, shared: bool) -> list[tuple[tuple[Work, ...], int]]:
    """What is done of a group that was lost at one picture, the first last; with the number of the attempt."""
    if not shared:
        others = works[:at] + works[at + 1 :]
        return [((works[at],), attempt + 1), *([(others, attempt)] if others else [])]
    if attempt < ATTEMPTS:
        return [(works, attempt + 1)]
    return [((work,), ATTEMPTS) for work in reversed(works)]


def retried(
    part: FrameRange, attempt: int, at: int, together: int
) -> tuple[list[tuple[FrameRange, int]], FrameRange | None]:
    """What is done again of frames that were lost at one of them, the first last; and what is given up.

    Args:
        at: the number of the frame; one before the first that is due was only decoded on the way there.
        together: frames of which some may share a call are done together, or one by one in the end.

    Returns:
        Ranges with the numbers of their attempts; None if nothing is given up yet.
    """
    if not part.holds(at):
        if attempt < ATTEMPTS:
            return [(part, attempt + 1)], None
        gone, rest = part.past_key(at)
        return [(rest, 1)] if rest else [], gone
    before, these, after = part.around(at, together)
    if before is None and after is None:
        if attempt < ATTEMPTS:
            return [(part, attempt + 1)], None
        singles = these.singles()
        return ([], part) if len(singles) == 1 else ([(one, ATTEMPTS) for one in reversed(singles)], None)
    return [(one, number) for one, number in ((after, 1), (these, 2), (before, 1)) if one is not None], None
