"""A long run of a detector that costs next to nothing, watched: is anything growing that should not?

Every few seconds it looks at each process of the run: resident memory, open files, threads; at the bytes in the run's
temporary folder. How many pictures were done by then, the run's log tells. In the end it prints the slope of each over
the pictures, per 100,000 of them, without the first tenth of the run, in which everything is being set up; whether the
counts are exact; and the log's warnings but for failures, such as of processes that were lost. The pictures are links
to a few files of different sizes and formats, or to those of a folder, one in 1,000 of them broken.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest, machine
from tests.pictures import RED, encode, picture

_Floats = Sequence[float] | NDArray[np.float64]

#: One in so many is no picture.
_BROKEN = 1000
_KINDS = (("JPEG", 320, 240), ("PNG", 64, 48), ("JPEG", 640, 480), ("WEBP", 200, 200), ("JPEG", 100, 300))


@dataclass(frozen=True)
class Sample:
    """What was seen at a moment (`at`, POSIX time): of each role (launcher, detector 1 …) its process's numbers."""

    at: float
    temporary: int
    rss_mb: Mapping[str, float]
    files: Mapping[str, int]
    threads: Mapping[str, int]


def make_pictures(folder: Path, count: int, originals: Path | None) -> int:
    """Makes the inputs, of the pictures in `originals` if it is given; returns how many of them are broken."""
    folder.mkdir()
    if originals:
        kinds = [path.read_bytes() for path in sorted(originals.iterdir())]
    else:
        kinds = [
            encode(picture(width, height, ((5, 5, width // 2, height // 2), RED)), format)
            for format, width, height in _KINDS
        ]
    for i, data in enumerate(kinds):
        (folder.parent / f"kind{i}").write_bytes(data)
    (folder.parent / "broken").write_bytes(b"\xff\xd8\xff no picture")
    for i in range(count):
        below = folder / f"{i // 10_000:04d}"
        if i % 10_000 == 0:
            below.mkdir()
        source = "broken" if i % _BROKEN == _BROKEN - 1 else f"kind{i % len(kinds)}"
        with suppress(OSError):  # a file has so many links at most
            os.link(folder.parent / source, below / f"{i:08d}")
            continue
        shutil.copy(folder.parent / source, folder.parent / f"{source}.new")
        os.replace(folder.parent / f"{source}.new", folder.parent / source)
        os.link(folder.parent / source, below / f"{i:08d}")
    return count // _BROKEN


def watch(process: subprocess.Popen[bytes], temporary: Path, every: float) -> list[Sample]:
    """Looks at a run until it ends."""
    samples: list[Sample] = []
    launcher = psutil.Process(process.pid)
    while process.poll() is None:
        roles = {"launcher": launcher}
        with suppress(psutil.Error):
            children = sorted(launcher.children(), key=lambda child: int(child.pid))
            roles |= {f"detector {i}": child for i, child in enumerate(children, start=1)}
        seen: dict[str, tuple[float, int, int]] = {}
        for role, one in roles.items():
            with suppress(psutil.Error):
                seen[role] = (one.memory_info().rss / 1e6, one.num_fds(), one.num_threads())
        samples.append(
            Sample(
                time.time(),
                _bytes_below(temporary),
                {role: values[0] for role, values in seen.items()},
                {role: values[1] for role, values in seen.items()},
                {role: values[2] for role, values in seen.items()},
            )
        )
        time.sleep(every)
    return samples


def _bytes_below(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            total += path.stat().st_size
    return total


def slope(pictures: _Floats, values: _Floats) -> float:
    """How much a value grows over 100,000 pictures: least squares."""
    if len(set(np.asarray(pictures).tolist())) < 2:
        return 0.0
    return float(np.polyfit(np.asarray(pictures) / 1e5, np.asarray(values), 1)[0])


def read_log(root: Path) -> list[dict[str, Any]]:
    """The lines of a run's log."""
    return [json.loads(line) for path in sorted(root.glob("log/*.jsonl")) for line in path.read_bytes().splitlines()]


def report(samples: Sequence[Sample], log: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table."""
    progress = [line for line in log if line["code"] == "progress"]
    times = [datetime.fromisoformat(line["time"]).timestamp() for line in progress]
    counts = [float(line["pictures"]) for line in progress]
    detecting = [sample for sample in samples if times[0] <= sample.at <= times[-1]]
    done = np.interp([sample.at for sample in detecting], times, counts)
    detecting = [sample for sample, pictures in zip(detecting, done, strict=True) if pictures >= counts[-1] / 10]
    done = done[done >= counts[-1] / 10]
    rows = ["| | at a tenth | at the end | most | slope over 100,000 pictures |", "|---|---|---|---|---|"]
    if len(detecting) < 3:
        return [*rows, "(too short for slopes)"]

    def row(name: str, values: Sequence[float], unit: str, digits: int = 1) -> None:
        first, last, most = (f"{value:,.{digits}f}{unit}" for value in (values[0], values[-1], max(values)))
        rows.append(f"| {name} | {first} | {last} | {most} | {slope(done, values):+,.2f}{unit} |")

    for role in detecting[0].rss_mb:
        row(f"memory of {role} (RSS)", [sample.rss_mb.get(role, 0.0) for sample in detecting], " MB")
    for role in detecting[0].rss_mb:
        row(f"open files of {role}", [float(sample.files.get(role, 0)) for sample in detecting], "", 0)
        row(f"threads of {role}", [float(sample.threads.get(role, 0)) for sample in detecting], "", 0)
    row("temporary files", [sample.temporary / 1e6 for sample in detecting], " MB")
    window = max(1, len(detecting) // 10)
    at = np.array([sample.at for sample in detecting])
    rates = (done[window:] - done[:-window]) / (at[window:] - at[:-window])
    rows.append(
        f"| pictures a second | {rates[0]:,.1f} | {rates[-1]:,.1f} | {max(rates):,.1f}"
        f" | {slope(done[window:], rates):+,.1f} |"
    )
    return rows


def run(options: argparse.Namespace) -> int:
    """Does the run, prints what was seen; returns the exit status."""
    folder = Path(tempfile.mkdtemp(prefix="beam-detect-endurance-"))
    process: subprocess.Popen[bytes] | None = None
    try:
        broken = make_pictures(folder / "in", options.pictures, options.originals)
        temporary = folder / "tmp"
        temporary.mkdir()
        words = [
            f"--input={folder}/in",
            f"--output={folder}/out",
            f"--model={options.model}",
            f"--workers={options.workers}",
        ]
        environment = {**os.environ, "TMPDIR": str(temporary)}
        process = subprocess.Popen([sys.executable, "-m", "beam_jobs", "detect", *words], env=environment)
        samples = watch(process, temporary, options.every)
        if process.returncode != 0:
            print(f"endurance: the run ended with {process.returncode}", file=sys.stderr)
            return 1
        manifest, here, log = Manifest.read(str(folder / "out")), machine(), read_log(folder / "out")
        counts = manifest.counts
        problems = list(check_run(str(folder / "out")))
        exact = (counts.inputs, counts.images, counts.failed) == (options.pictures, options.pictures - broken, broken)
        print(
            f"`{shlex.join(['scripts/endurance', *sys.argv[1:]])}`, {date.today()},"
            f" {here['cores']} cores of {here['processor']}: {counts.images:,} pictures and {counts.failed:,} failures"
            f" of {counts.inputs:,} inputs ({'exact' if exact else 'WRONG'}), {manifest.stage_s['detect']:,.0f} s,"
            f" {manifest.pictures_per_s:,.0f} pictures/s; {manifest.detector.loads} detectors loaded;"
            f" `beam-detect check` finds {'nothing' if not problems else problems[0]}; {len(samples)} samples.\n"
        )
        print("\n".join(report(samples, log)))
        for line in log:
            if line["level"] != "info" and "attempts" not in line:
                print(f"\n{line}")
        return 0 if exact and not problems else 1
    finally:
        if process is not None and process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/endurance", description=__doc__, allow_abbrev=False)
    parser.add_argument("--pictures", type=int, default=200_000, metavar="N", help="inputs (%(default)s)")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="detector processes (%(default)s)")
    parser.add_argument("--originals", type=Path, metavar="DIR", help="pictures that the inputs are copies of")
    parser.add_argument("--every", type=float, default=5.0, metavar="S", help="seconds between looks (%(default)g)")
    parser.add_argument("--model", default="scripts._chaos_detector:make", help="the detector (%(default)s)")
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
