"""One detector process, watched while it works, and the line to it.

Each process has a line of its own, so that one that is killed in the middle of a sentence garbles nobody else's: the
pools of the standard library, and those built on its queues, share one pipe among their processes and wait for ever on
half a message. Nor is this `multiprocessing.Process`: a plain command neither runs the caller's main module again nor
shares its signals.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

from beam_jobs.errors import InputError, JobError, UsageError
from beam_jobs.processes.messages import Ready, Refused, Setup
from beam_jobs.processes.place import Place, memory_file
from beam_jobs.processes.spent import rss
from beam_jobs.processes.work import Reply, Work

#: A process that has not opened its detector after this many seconds is given up.
MAX_LOAD_SECONDS = 900.0
#: How often a process is looked at, its memory and its time, while it does not answer.
WATCH_SECONDS = 0.1

_GONE = (EOFError, BrokenPipeError, ConnectionResetError)


class LostError(Exception):
    """The process ended, or was ended, while it was at the picture `position` of its group."""

    def __init__(self, position: int, code: str, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.error = InputError("infer", code, message)


class DetectorProcess:
    """One detector process and the line to it. Used by one thread; `kill` may be called from any."""

    def __init__(self, environment: Mapping[str, str], verbose: bool) -> None:
        self.shares_calls = False
        ours, theirs = socket.socketpair()
        place = memory_file()
        with theirs:
            output = None if verbose else subprocess.DEVNULL
            descriptors = [theirs.fileno(), place]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "beam_jobs.processes.child", *map(str, descriptors)],
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                # A Ctrl-C in the terminal is for the launcher, which ends its processes itself.
                start_new_session=True,
            )
        self._connection = Connection(ours.detach())
        self._place = Place(place)
        os.close(place)

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def open(self, setup: Setup) -> Ready:
        """Sends the setup and waits for the detector."""
        message = self._ask(setup, MAX_LOAD_SECONDS)
        assert isinstance(message, Ready)
        self.shares_calls = message.shares_calls
        return message

    def run(self, works: tuple[Work, ...], max_seconds: float, max_memory: int) -> Reply:
        """Has a group done, giving each picture `max_seconds`, and the process `max_memory` bytes."""
        message = self._ask(works, max_seconds, max_memory)
        assert isinstance(message, Reply)
        return message

    def kill(self) -> None:
        """Ends the process and waits for it."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Ends the process and gives the line back. For the one thread that uses it."""
        self.kill()
        self._connection.close()
        self._place.close()

    def _ask(self, question: object, seconds: float, max_memory: int | None = None) -> object:
        """The answer; what the process is at may take it so many seconds, a picture if these are pictures."""
        self._place.set((0,))
        try:
            self._connection.send(question)
            while not self._connection.poll(WATCH_SECONDS):
                at = self._place.get()
                if max_memory is not None and rss(self._process.pid) > max_memory:
                    self.kill()
                    message = "The detector process held more memory than --max_memory_mb allows."
                    raise LostError(at.position, "out_of_memory", message)
                if time.monotonic() >= at.since + seconds * at.pictures:
                    self.kill()
                    message = f"The detector process was still at it after {seconds * at.pictures:g} seconds."
                    raise LostError(at.position, "timed_out", message)
            answer = self._connection.recv()
        except _GONE:
            raise self._died(self._place.get().position) from None
        if isinstance(answer, Refused):
            raise (UsageError if answer.usage else JobError)(answer.message)
        return answer

    def _died(self, position: int) -> LostError:
        # The line breaks a moment before the process is gone.
        deadline = time.monotonic() + 5
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        status = self._process.poll()
        if status is not None and status < 0:
            how = f"was ended by {signal.Signals(-status).name}"
        else:
            how = f"ended with status {status}"
        return LostError(position, "crashed", f"The detector process {how}.")
