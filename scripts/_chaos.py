"""Breaks real runs, has them go on until they are done, and compares them with a run that met no fault.

Each trial is a run over small pictures with a detector that takes 5 ms for one, in parts of 10, with annotated
pictures. A fault meets it at a moment of its seed; then it is resumed. In the end all that is promised to be the same
must be, the manifest must know every file, and `beam-detect check` must find nothing. Otherwise the trial is named,
its folder stays, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from statistics import median

# Here, so that the runs need not do it.
import apache_beam.runners.portability.fn_api_runner  # noqa: F401

import beam_jobs.cli.detect
import beam_jobs.transforms.detect
import beam_jobs.transforms.in_order  # noqa: F401
from beam_jobs import storage
from beam_jobs.errors import UsageError
from beam_jobs.runs.manifest import machine
from scripts._chaos_faults import LOCAL, STORE, store_faults
from scripts._chaos_runs import BrokenError, Trial, contents, environment_of
from tests.pictures import write_pictures
from tests.store_server import BUCKET, KEY_ID, SECRET, TOKEN, running

_WORDS = ("--model=scripts._chaos_detector:make", "--part_size=10", "--workers=2", "--annotate")
_SECONDS = 0.005


@dataclass
class Result:
    """What came of the trials of a fault: seconds and pictures that it cost, and what was broken."""

    lost: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """A line of the table."""
        runs = len(self.lost) + len(self.broken)
        lost, again = (f"{median(self.lost):.1f}", f"{median(self.again):.1%}") if self.lost else ("–", "–")
        return f"| {name} | {runs} | {len(self.lost)} | {lost} | {again} |"


class Harness:
    """Makes trials below a folder.

    Args:
        seeds: trials of each fault.
        pause: for how long processes are stopped.
    """

    def __init__(self, folder: Path, pictures: int, seeds: int, pause: float) -> None:
        self.folder = folder
        self.pictures = pictures
        self.seeds = seeds
        self.pause = pause
        write_pictures(folder / "in", pictures)

    def clean(self, name: str, inputs: str, output: str, environment: Mapping[str, str]) -> Trial:
        """A run without faults; its `seconds` are what it took."""
        folder = self.folder / name
        folder.mkdir()
        everything = {**environment_of(folder, _SECONDS), **environment}
        trial = Trial(folder, inputs, output, random.Random(0), 0.0, 0.0, self.pause, _WORDS, everything)
        trial.ended(trial.start(), 0)
        trial.check_whole()
        trial.seconds = trial.spent
        return trial

    def meet(
        self,
        name: str,
        fault: Callable[[Trial, Mapping[str, str]], None],
        clean: Trial,
        output: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Result:
        """Has as many runs meet a fault as there are seeds."""
        result, expected = Result(), contents(clean.output)
        for seed in range(self.seeds):
            folder = self.folder / f"{name.replace(' ', '-').replace('/', '-').replace(':', '')}-{seed}"
            folder.mkdir()
            rng = random.Random(f"{name} {seed}")
            everything = {**environment_of(folder, _SECONDS), **(environment or {})}
            place = seed / self.seeds
            where = f"{output}/{folder.name}" if output else str(folder / "disk" / "out")
            trial = Trial(folder, clean.inputs, where, rng, clean.seconds, place, self.pause, _WORDS, everything)
            try:
                fault(trial, expected)
            except (BrokenError, UsageError, OSError) as error:
                result.broken.append(f"{name}, seed {seed}: {error} ({folder})")
                print(result.broken[-1], file=sys.stderr, flush=True)
            else:
                result.lost.append(max(0.0, trial.spent - clean.seconds))
                result.again.append(trial.detected() / self.pictures - 1)
                shutil.rmtree(folder)
        return result


def run(options: argparse.Namespace) -> int:
    """Does the trials, prints the table; returns the exit status."""
    begun = time.monotonic()
    results: dict[str, Result] = {}
    folder = Path(tempfile.mkdtemp(prefix="beam-detect-chaos-"))
    folder.chmod(0o755)
    with ExitStack() as stack:
        harness = Harness(folder, options.pictures, options.seeds, options.pause)
        clean = harness.clean("clean", str(folder / "in"), str(folder / "clean" / "out"), {})
        for name, fault in LOCAL.items():
            if _wanted(options, name):
                if name == "disk full" and os.getuid() != 0:
                    print(f"{name}: left out, only root can make a small disk", file=sys.stderr)
                    continue
                results[name] = harness.meet(name, fault, clean)
                print(results[name].row(name), flush=True)
        if _wanted(options, STORE):
            store = stack.enter_context(running("s3"))
            keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
            environment = {**store.environment, **keys, "AWS_MAX_ATTEMPTS": "4", "AWS_RETRY_MODE": "standard"}
            os.environ.update(environment)
            for path in sorted((folder / "in").iterdir()):
                storage.write_atomic(f"s3://{BUCKET}/in/{path.name}", path.read_bytes())
            inputs, output = f"s3://{BUCKET}/in", f"s3://{BUCKET}/out"
            clean = harness.clean("clean-s3", inputs, f"{output}/clean", environment)
            results[STORE] = harness.meet(STORE, partial(store_faults, store=store), clean, output, environment)
            print(results[STORE].row(STORE), flush=True)
    broken = [text for result in results.values() for text in result.broken]
    if not broken:
        shutil.rmtree(folder)
    here = machine()
    print(
        f"\n`scripts/chaos --seeds {options.seeds} --pictures {options.pictures} --pause {options.pause:g}`,"
        f" {date.today()}, {here['cores']} cores of {here['processor']}: {time.monotonic() - begun:.0f} s; a"
        f" run without faults takes {clean.seconds:.1f} s.\n"
    )
    print("| fault | runs | recovered | seconds lost (median) | share done again (median) |\n|---|---|---|---|---|")
    print("\n".join(result.row(name) for name, result in results.items()))
    return 1 if broken else 0


def _wanted(options: argparse.Namespace, name: str) -> bool:
    return not options.only or any(words in name for words in options.only)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/chaos", description=__doc__, allow_abbrev=False)
    parser.add_argument("--seeds", type=int, default=20, metavar="N", help="trials of each fault (%(default)s)")
    parser.add_argument("--pictures", type=int, default=200, metavar="N", help="of each run (%(default)s)")
    parser.add_argument("--pause", type=float, default=30.0, metavar="S", help="of SIGSTOP (%(default)g)")
    parser.add_argument("--only", action="append", metavar="WORDS", help="faults whose name has these words in it")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
