"""How fast the job is on a Flink cluster of this machine, beside itself on the local engine.

Each contender runs over a few pictures and over many, in turn, `--rounds` times. The steady rate is what the many have
more, over the seconds that the detect stage takes longer for them; what is left of the stage with the few is start-up:
on Flink Beam's job server, submission, the workers' start and opening the detector.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from beam_jobs.runs.manifest import Manifest
from scripts._benchmark_measuring import call, heading, say, spread
from scripts._benchmark_pictures import make_pictures, write_list


class Contender(NamedTuple):
    """An engine: the flags that choose it."""

    name: str
    flags: tuple[str, ...]


class Rate(NamedTuple):
    """What one round gave: pictures a second once it runs, and the seconds before that."""

    steady: float
    start_s: float


def contenders(options: argparse.Namespace) -> list[Contender]:
    """The local engine, and what it is compared with."""
    if options.beam_flag:
        return [Contender("local", ()), Contender("elsewhere", tuple(options.beam_flag))]
    flink = ("--runner=FlinkRunner", f"--flink_master={options.master}")
    return [
        Contender("local", ()),
        *(Contender(f"Flink, parallelism {n}", (*flink, f"--parallelism={n}")) for n in options.parallelism),
    ]


def measure(contender: Contender, listings: Sequence[Path], counts: Sequence[int], model: str, work: Path) -> Rate:
    """One round of a contender: the few, then the many."""
    seconds = []
    for listing, count in zip(listings, counts, strict=True):
        output = work / f"{contender.name.replace(' ', '-').replace(',', '')}-{count}"
        words = ["-P", "-m", "beam_jobs", "detect", f"--input_list={listing}", f"--model={model}", "--overwrite"]
        call([*words, f"--output={output}", *contender.flags])
        seconds.append(Manifest.read(str(output)).stage_s["detect"])
    few, many = counts
    steady = (many - few) / (seconds[1] - seconds[0])
    return Rate(steady, seconds[0] - few / steady)


def table(rivals: Sequence[Contender], rates: Sequence[Sequence[Rate]]) -> list[str]:
    """Medians with the least and the greatest; ratios are of medians, and of the rounds."""
    lines = ["| | steady, pictures/s | of local | of the first on Flink | start-up, s |", "|---|---|---|---|---|"]
    for rival, own in zip(rivals, rates, strict=True):
        of_first = "–" if own is rates[0] else ratio(own, rates[1])
        steady, start = (spread(values, 1) for values in zip(*own, strict=True))
        lines.append(f"| {rival.name} | {steady} | {ratio(own, rates[0])} | {of_first} | {start} |")
    return lines


def ratio(own: Sequence[Rate], base: Sequence[Rate]) -> str:
    """How many times as fast."""
    rounds = [one.steady / other.steady for one, other in zip(own, base, strict=True)]
    of_medians = median(rate.steady for rate in own) / median(rate.steady for rate in base)
    return f"{of_medians:.2f} ({min(rounds):.2f}–{max(rounds):.2f})"


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, and prints the report."""
    parser = argparse.ArgumentParser(
        prog="benchmark-flink", description="Measures the job on Flink beside the local one."
    )
    parser.add_argument("--master", default="localhost:8081", metavar="HOST:PORT", help="the cluster (%(default)s)")
    parser.add_argument("--parallelism", type=int, nargs="*", default=[1, 2], metavar="N", help="(1 2)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument("--pictures", type=int, default=1000, metavar="N", help="the many have more (%(default)s)")
    parser.add_argument("--few", type=int, default=200, metavar="N", help="how many the few are (%(default)s)")
    parser.add_argument("--model", default="coco-ssd", metavar="MODEL", help="as beam-detect takes it (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the pictures (%(default)s)")
    parser.add_argument(
        "--beam_flag", action="append", default=[], metavar="FLAG", help="another runner in place of Flink: its flags"
    )
    options = parser.parse_args(argv)
    counts = (options.few, options.few + options.pictures)
    rivals = contenders(options)
    rates: list[list[Rate]] = [[] for _ in rivals]
    with tempfile.TemporaryDirectory(prefix="beam-detect-benchmark-") as name:
        work = Path(name)
        (work / "pictures").mkdir()
        say("making the pictures")
        made = make_pictures(work / "pictures", counts[1], options.seed)
        listings = [write_list(work / f"{count}.txt", made[:count]) for count in counts]
        for number in range(options.rounds):
            for rival, own in zip(rivals, rates, strict=True):
                own.append(measure(rival, listings, counts, options.model, work))
                say(f"round {number + 1}, {rival.name}: {own[-1].steady:.1f} pictures/s after {own[-1].start_s:.1f} s")
    print("\n".join([*heading(), "", *table(rivals, rates)]))


if __name__ == "__main__":
    main()
