"""Gives the readers damaged files: real ones, changed by Atheris (libFuzzer), which sees what code a file reaches.

Each target is a process of its own with a bound on its memory and on the time of a file. A file is read, or refused
with an error of the kind that is documented; a crash, a hang, another error or more memory is a finding: its bytes are
kept, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from scripts._fuzz_place import Place
from scripts._fuzz_targets import targets

#: What a file may take: seconds, and bytes beyond what the process had before.
MAX_SECONDS, MAX_MEMORY = 10, 1 << 30
#: What a process may take until it tries its first file.
_START_SECONDS = 600
#: A target with so many findings is left.
_MAX_FINDINGS = 100


@dataclass(frozen=True)
class Finding:
    """A file that was neither read nor refused."""

    why: str
    data: bytes


def fuzz(
    name: str, seed: int, executions: int, seconds: float, factory: str = "scripts._fuzz_targets:targets"
) -> tuple[int, list[Finding]]:
    """Tries a target; returns how many files were tried, and the findings.

    Args:
        factory: the function that makes the targets, as `module:function`.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="beam-detect-fuzz-") as folder:
        place = Place(Path(folder, "place"))
        findings = Path(folder, "findings")
        findings.touch()
        while True:
            left = max(0.0, deadline - time.monotonic())
            words = (factory, name, f"{folder}/place", findings, seed, executions, left, MAX_SECONDS, MAX_MEMORY)
            command = [sys.executable, "-P", "-m", "scripts._fuzz_child", *map(str, words)]
            environment = {**os.environ, "TMPDIR": folder, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            # A Ctrl-C is for us: to the reader that is at work it would be an error of its own.
            with subprocess.Popen(
                command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
            ) as process:
                try:
                    why = _watched(process, place)
                finally:
                    process.kill()
            found = [_finding(line) for line in findings.read_bytes().splitlines()]
            if why is None or len(found) > _MAX_FINDINGS:
                return place.count, found
            if not place.count:
                raise RuntimeError(f"{name}: nothing can be tried: {why}")
            with findings.open("ab") as file:
                file.write(json.dumps({"why": why, "data": base64.b64encode(place.data).decode()}).encode() + b"\n")
            seed += 1  # the same one would end at the same file


def _watched(process: subprocess.Popen[bytes], place: Place) -> str | None:
    """Waits for a process; why it ended, if it was not done."""
    before = count = place.count
    since = time.monotonic()
    while True:
        try:
            _, said = process.communicate(timeout=0.2)
        except subprocess.TimeoutExpired:
            if place.count != count:
                count, since = place.count, time.monotonic()
            elif count == before and time.monotonic() > since + _START_SECONDS:
                process.kill()
                return f"has tried nothing in {_START_SECONDS} s"
            elif count != before and time.monotonic() > since + 3 * MAX_SECONDS:
                process.kill()
                return "hangs, and no signal reaches it"
            continue
        if not process.returncode:
            return None
        return f"the process ended with {process.returncode}: {said.decode(errors='replace')[-300:]}"


def _finding(line: bytes) -> Finding:
    kept = json.loads(line)
    return Finding(kept["why"], base64.b64decode(kept["data"]))


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
