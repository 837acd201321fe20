"""The resamples of a bootstrap, slice by slice over processes. What comes back is in order: their number is no matter.

Processes, not threads: between its long calls to numpy a resample holds the interpreter a tenth of its time.
"""

from __future__ import annotations

import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import numpy as np

from beam_jobs.errors import JobError
from beam_jobs.evaluation.bootstrap import Differences, Over, Pair, in_turn
from beam_jobs.evaluation.overlaps import Ints
from beam_jobs.processes.parent import end_with_parent

#: Slices that a process has before it, so that it never waits.
_AHEAD = 2
#: Just below the most that glibc takes for a threshold (mallopt(3), M_MMAP_THRESHOLD).
_KEPT = 30 << 20


def over_processes(processes: int, done: Callable[[int], None]) -> Over:
    """What `bootstrap.compare` gives its slices to.

    Args:
        processes: 1 is this one.
        done: is told, after each slice, how many resamples it had.

    Raises:
        JobError: a process died; when the differences are asked for.
    """

    def over(pair: Pair, slices: Iterable[Ints]) -> Iterator[Differences]:
        _keep_blocks()
        for found in in_turn(pair, slices) if processes == 1 else _spread(pair, slices, processes):
            done(len(found.metrics))
            yield found

    return over


def _spread(pair: Pair, slices: Iterable[Ints], processes: int) -> Iterator[Differences]:
    # Spawned: a fork of a process that has threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_hold, initargs=(pair,))
    pending: deque[Future[Differences]] = deque()
    try:
        for weights in slices:
            with _deaf():
                pending.append(pool.submit(_differences, weights))
            if len(pending) > processes * _AHEAD:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise JobError(
            f"One of {processes} processes that took samples died; if memory was short, --workers gives fewer."
        ) from error
    except BaseException:
        # After Ctrl-C nobody waits for the slices that are being done, or for processes that are being started.
        for child in multiprocessing.active_children():
            child.kill()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _deaf() -> Iterator[None]:
    """What is started meanwhile never hears Ctrl-C, which goes to all processes of a terminal: the first ends it.

    This one hears it afterwards: a process that is half started is in no list, and nobody would end it. The mask is for
    the children alone, for a thread of a library may take the signal.
    """
    waiting: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: waiting.append(number)) for number in signals]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in zip(signals, handlers, strict=True):
            signal.signal(number, handler)
        for received in waiting[:1]:
            signal.raise_signal(received)


#: In a process of `_spread`, what the resamples are taken of.
_held: list[Pair] = []


def _hold(pair: Pair) -> None:
    end_with_parent()
    _keep_blocks()
    _held.append(pair)


def _keep_blocks() -> None:
    """The C library keeps blocks as large as the largest that was freed; others it would fetch anew for each resample.

    That would be two fifths of a resample's time.
    """
    np.empty(_KEPT, np.uint8)


def _differences(weights: Ints) -> Differences:
    return _held[0].differences(weights)
