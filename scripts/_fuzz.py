"""Gives the readers damaged files: real ones, with bytes flipped, cut, repeated, and numbers and words of others.

Each target is a process of its own with a bound on its memory and on the time of a file. A file is read, or refused
with an error of the kind that is documented; a crash, a hang, another error or more memory is a finding: its bytes are
kept, and the exit status is 1. The same seed tries the same files.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType

from scripts._fuzz_targets import Target, targets

#: What a file may take: seconds, and bytes beyond what the process had before.
MAX_SECONDS, MAX_MEMORY = 10, 1 << 30
_WORDS = (b"\x00", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"-1", b"1e999", b"NaN", b"null", b"{", b"[",
          b'"', b"\\", b"9" * 30, b"\xed\xa0\x80", b"../", b"{}" * 3, b"true", b"[" * 500)  # fmt: skip


class TooLongError(BaseException):
    """A file takes too long. No reader may take it for a fault of the file: it is no Exception."""


@dataclass(frozen=True)
class Finding:
    """A file that was neither read nor refused."""

    target: str
    why: str
    data: bytes


def mutated(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the seeds, changed in a few places."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        size = len(data)
        if not size:
            return bytes(data)
        at = rng.randrange(size)
        match rng.randrange(9):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at] = rng.randrange(256)
            case 2:
                del data[at : at + rng.randrange(1, 33)]
            case 3:
                data[at:at] = data[at : at + rng.randrange(1, 65)] * rng.choice((1, 2, 100))
            case 4:
                data[at:at] = rng.choice(_WORDS)
            case 5:
                word = rng.choice(_WORDS)
                data[at : at + len(word)] = word
            case 6:
                del data[at:]
            case 7:
                other = rng.choice(seeds)
                start = rng.randrange(len(other))
                data[at : at + rng.randrange(65)] = other[start : start + rng.randrange(65)]
            case _:
                width = rng.choice((2, 4, 8))
                value = rng.choice((0, 1, (1 << 8 * width) - 1, 1 << (8 * width - 1), rng.getrandbits(8 * width)))
                data[at : at + width] = value.to_bytes(width, rng.choice(("little", "big")))
    return bytes(data)


def _attempt(target: Target, data: bytes, folder: Path, allowed: tuple[type[BaseException], ...]) -> str | None:
    """Why it is a finding, if it is."""

    def too_long(_: int, __: FrameType | None) -> None:
        raise TooLongError(f"over {MAX_SECONDS} s")

    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(MAX_SECONDS)
    try:
        target.read(data, folder)
    except allowed:
        return None
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {str(error)[:200]} ({Path(place.filename).name}:{place.lineno})"
    finally:
        signal.alarm(0)
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return None


def _work(name: str, seed: int, first: int, executions: int, seconds: float, answers: Connection) -> None:
    """Tries files, and says the number of each before it is begun: who watches then knows what it died of."""
    faulthandler.disable()
    target = targets()[name]
    for data in target.seeds:
        with tempfile.TemporaryDirectory() as folder:
            if why := _attempt(target, data, Path(folder), ()):
                answers.send((-1, f"refuses what it should read: {why}"))
    held = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (held + MAX_MEMORY, held + MAX_MEMORY))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # libraries complain there about what they read
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for i in range(first, executions):
            if time.monotonic() > deadline:
                break
            answers.send((i, None))
            data = mutated(target.seeds, random.Random(f"{name} {seed} {i}"))
            if why := _attempt(target, data, Path(folder), target.allowed):
                answers.send((i, why))
    answers.send((None, None))


def fuzz(name: str, seed: int, executions: int, seconds: float) -> tuple[int, list[Finding]]:
    """Tries a target; returns how many files were tried, and the findings."""
    context = multiprocessing.get_context("fork")
    found: list[Finding] = []
    at, deadline = -1, time.monotonic() + seconds
    while True:
        ours, theirs = context.Pipe(duplex=False)
        left = max(0.0, deadline - time.monotonic())
        process = context.Process(target=_work, args=(name, seed, at + 1, executions, left, theirs), daemon=True)
        process.start()
        theirs.close()
        why: str | None = None
        try:
            while True:
                if not ours.poll(3 * MAX_SECONDS):
                    why = "hangs, and no signal reaches it"
                    process.kill()
                    break
                number, text = ours.recv()
                if number is None:
                    process.join()
                    ours.close()
                    return at + 1, found
                at = max(at, number)
                if text is not None:
                    found.append(_finding(name, seed, number, text))
        except EOFError:
            process.join()
            why = f"the process ended with {process.exitcode}"
        process.join()
        ours.close()
        found.append(_finding(name, seed, at, why or "ended"))
        if len(found) > 100:
            return at + 1, found


def _finding(name: str, seed: int, number: int, why: str) -> Finding:
    seeds = targets()[name].seeds
    return Finding(name, why, mutated(seeds, random.Random(f"{name} {seed} {number}")) if number >= 0 else seeds[0])


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__, allow_abbrev=False)
    parser.add_argument("target", nargs="*", help=f"some of: {', '.join(targets())} (all)")
    parser.add_argument("--seconds", type=float, default=1200.0, metavar="S", help="for each target (%(default)g)")
    parser.add_argument("--executions", type=int, default=1_000_000, metavar="N", help="for each (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(%(default)s)")
    parser.add_argument("--findings", default="fuzz-findings", metavar="DIR", help="where they go (%(default)s)")
    options = parser.parse_args()
    status, rows = 0, []
    for name in options.target or targets():
        begun = time.monotonic()
        count, found = fuzz(name, options.seed, options.executions, options.seconds)
        kinds: dict[str, Finding] = {}
        for finding in found:
            # The same error from the same line is one kind.
            kinds.setdefault(re.sub(r": .*\(", " (", finding.why, flags=re.S), finding)
        for i, finding in enumerate(kinds.values()):
            folder = Path(options.findings)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name.replace(' ', '-')}-{i}"
            path.write_bytes(finding.data)
            print(f"{name}: {finding.why} ({path})", file=sys.stderr, flush=True)
            status = 1
        rows.append(f"| {name} | {count:,} | {time.monotonic() - begun:.0f} | {len(kinds)} |")
        print(rows[-1], flush=True)
    print(f"\n`scripts/fuzz --seed {options.seed}`, {date.today()}\n\n| target | files | seconds | kinds of findings |")
    print("|---|---|---|---|\n" + "\n".join(rows))
    return status


if __name__ == "__main__":
    sys.exit(main())
