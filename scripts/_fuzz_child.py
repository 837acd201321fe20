"""The process that tries damaged files on one target: Atheris makes them, which is libFuzzer for Python.

It knows which lines of this project's readers a file has reached, and damages further what reached new ones. What is
being tried lies in memory that the parent sees as well: if this process dies, the parent knows of what.
"""

from __future__ import annotations

import base64
import faulthandler
import importlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import atheris

from scripts._fuzz_place import Place

#: Rooms whose lines are watched: those that read files.
_ROOMS = ["beam_jobs.detectors", "beam_jobs.formats", "beam_jobs.imaging", "beam_jobs.runs"]
_WORDS = (b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"-1", b"1e999", b"NaN", b"null", b"{", b"[",
          b'"', b"\\", b"9" * 30, b"\xed\xa0\x80", b"../", b"{}" * 3, b"true", b"[" * 500)  # fmt: skip


class TooLongError(BaseException):
    """A file takes too long. No reader may take it for a fault of the file: it is no Exception."""


class Tries:
    """Files that are tried on a target, and what was found so.

    Args:
        place: where the parent sees what is being tried.
        findings: the file that findings are appended to.
        most: of seconds that a file may take.
    """

    def __init__(self, target: Any, place: Place, findings: Path, folder: Path, most: int) -> None:
        self._target = target
        self._place = place
        self._findings = findings
        self._folder = folder
        self._most = most

    def seeds(self) -> None:
        """Tries the seeds, which are to be read."""
        for data in self._target.seeds:
            if why := self._why(data, ()):
                self._note(data, f"refuses what it should read: {why}")

    def one(self, data: bytes) -> None:
        """Tries a file, which is to be read or refused."""
        self._place.set(data)
        if why := self._why(data, self._target.allowed):
            self._note(data, why)

    def _note(self, data: bytes, why: str) -> None:
        with open(self._findings, "ab") as file:
            file.write(json.dumps({"why": why, "data": base64.b64encode(data).decode()}).encode() + b"\n")

    def _why(self, data: bytes, allowed: tuple[type[BaseException], ...]) -> str | None:
        """Why it is a finding, if it is."""

        def too_long(_: int, __: FrameType | None) -> None:
            raise TooLongError(f"over {self._most} s")

        signal.signal(signal.SIGALRM, too_long)
        signal.alarm(self._most)
        try:
            self._target.read(data, self._folder)
        except allowed:
            return None
        except BaseException as error:
            at = traceback.extract_tb(error.__traceback__)[-1]
            return f"{type(error).__name__}: {str(error)[:200]} ({Path(at.filename).name}:{at.lineno})"
        finally:
            signal.alarm(0)
            for path in self._folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        return None


def mutator(seeds: Sequence[bytes]) -> Callable[[bytes, int, int], bytes]:
    """What changes a file: half the time libFuzzer, else numbers at their limits, repetitions, and pieces of others."""

    def changed(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5 or not data:
            return bytes(atheris.Mutate(data, most))
        return _mutated(bytearray(data), seeds, rng)[:most]

    return changed


def _mutated(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    match rng.randrange(6):
        case 0:
            del data[at : at + rng.randrange(1, 33)]
        case 1:
            data[at:at] = data[at : at + rng.randrange(1, 65)] * rng.choice((1, 2, 100))
        case 2:
            data[at:at] = rng.choice(_WORDS)
        case 3:
            word = rng.choice(_WORDS)
            data[at : at + len(word)] = word
        case 4:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            data[at : at + rng.randrange(65)] = other[start : start + rng.randrange(65)]
        case _:
            width = rng.choice((2, 4, 8))
            value = rng.choice((0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), rng.getrandbits(8 * width)))
            data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    return bytes(data)


def main() -> None:
    """Tries files until there were enough, or the time is over; the arguments are those of `_fuzz.py`."""
    factory, name, place_file, findings, seed, executions, seconds, most, memory = sys.argv[1:]
    deadline = time.monotonic() + float(seconds)
    module, function = factory.split(":")
    with atheris.instrument_imports(include=_ROOMS):
        target = getattr(importlib.import_module(module), function)()[name]
    place = Place(Path(place_file))
    folder, corpus = Path(tempfile.mkdtemp()), Path(tempfile.mkdtemp())  # in the parent's folder, which goes with it
    tries = Tries(target, place, Path(findings), folder, int(most))
    tries.seeds()
    for i, data in enumerate(target.seeds):
        (corpus / str(i)).write_bytes(data)
    longest = 4 * max(map(len, target.seeds)) + 4096

    def one(data: bytes) -> None:
        if place.count >= int(executions) or time.monotonic() > deadline:
            os._exit(0)
        tries.one(data)

    # Time, memory and crashes are our own affair: libFuzzer would end at the first.
    flags = [f"-seed={int(seed) + 1}", f"-max_len={longest}", "-timeout=0", "-rss_limit_mb=0", "-malloc_limit_mb=0"]
    flags += [f"-handle_{kind}=0" for kind in ("abrt", "bus", "fpe", "ill", "int", "segv", "term", "xfsz")]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], one, custom_mutator=mutator(target.seeds))
    faulthandler.disable()
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + int(memory), held + int(memory)))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)  # libraries complain there about what they read
    atheris.Fuzz()


if __name__ == "__main__":
    main()
