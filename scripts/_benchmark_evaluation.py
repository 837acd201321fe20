"""How fast `beam-detect evaluate` is beside pycocotools and hotcoco used directly, and how much memory each takes.

The contenders solve the same made-up problem (`_coco_problem.py`), each in a process of its own, in turn, `--rounds`
times; that their 12 numbers are the same is checked in every round.

- Wall: the whole process, from its start to its exit, to a tenth of a second: interpreter, imports, reading the files.
  beam-detect also writes what it found about each detection, and its curves; the others print 12 numbers.
- CPU: seconds of all cores. Where others use the machine it tells more than the wall does.
- Memory: the largest sum of PSS over the process tree, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from scripts import _coco_problem
from scripts._benchmark_measuring import call, heading, say, spread, tree_pss

#: The same program for both: hotcoco's names are pycocotools'. Only the two files and what is written are arguments.
_DIRECTLY = """
import json, sys
{imports}
truth = COCO(sys.argv[1])
evaluation = COCOeval(truth, truth.loadRes(sys.argv[2]), "bbox")
evaluation.evaluate()
evaluation.accumulate()
evaluation.summarize()
with open(sys.argv[3], "w") as file:
    json.dump(list(map(float, evaluation.stats)), file)
"""
_IMPORTS = {
    "pycocotools": "from pycocotools.coco import COCO\nfrom pycocotools.cocoeval import COCOeval",
    "hotcoco": "from hotcoco import COCO, COCOeval",
}
OURS = "beam-detect evaluate"
CONTENDERS = (OURS, *_IMPORTS)


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a contender.

    Args:
        wall_s, cpu_s: seconds of the process.
        peak: bytes.
        numbers: COCO's twelve.
    """

    wall_s: float
    cpu_s: float
    peak: int
    numbers: tuple[float, ...]


def run(name: str, problem: Path, output: Path) -> Run:
    """One run of a contender; `output` does not exist yet."""
    truth, results = problem / "instances.json", problem / "results.json"
    if name == OURS:
        words = ["-P", "-m", "beam_jobs", "evaluate", f"--ground_truth={truth}", f"--detections={results}"]
        words.append(f"--output={output}")
    else:
        words = ["-c", _DIRECTLY.format(imports=_IMPORTS[name]), str(truth), str(results), str(output)]
    peak = 0

    def watch(pid: int) -> None:
        nonlocal peak
        peak = max(peak, tree_pss(pid))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall_s = call(words, watch)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if name == OURS:
        numbers = json.loads((output / "metrics.json").read_text())["metrics"].values()
    else:
        numbers = json.loads(output.read_text())
    return Run(wall_s, cpu_s, peak, tuple(numbers))


def compete(problem: Path, work: Path, rounds: int, slow_rounds: int) -> dict[str, list[Run]]:
    """The runs of each contender: all of them once a round, in turn, and every other round the other way about."""
    runs: dict[str, list[Run]] = {name: [] for name in CONTENDERS}
    for round_ in range(rounds):
        names = [name for name in CONTENDERS if name != "pycocotools" or round_ < slow_rounds]
        for name in names if round_ % 2 == 0 else reversed(names):
            last = run(name, problem, work / f"{round_}-{name.replace(' ', '-')}")
            say(f"round {round_ + 1}, {name}: {last.wall_s:.1f} s, {last.peak / 1e6:,.0f} MB")
            runs[name].append(last)
    return {name: of_it for name, of_it in runs.items() if of_it}


def table(runs: dict[str, list[Run]]) -> list[str]:
    """Medians with the least and the greatest value; times are how often beam-detect's go into the others'."""
    lines = [
        "| | runs | wall, s | CPU, s | peak memory, MB (PSS) | wall, times ours | memory, times ours |",
        "|---|---|---|---|---|---|---|",
    ]
    ours = runs[OURS]
    for name, of_it in runs.items():
        cells = (
            str(len(of_it)),
            spread((one.wall_s for one in of_it), 1),
            spread((one.cpu_s for one in of_it), 1),
            spread((one.peak / 1e6 for one in of_it), 0),
            f"{median(one.wall_s for one in of_it) / median(one.wall_s for one in ours):.2f}",
            f"{median(one.peak for one in of_it) / median(one.peak for one in ours):.2f}",
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def agreement(runs: dict[str, list[Run]]) -> str:
    """Whether all runs came to the same numbers."""
    if len({one.numbers for of_it in runs.values() for one in of_it}) == 1:
        return "The 12 numbers of all runs are identical."
    differences = [
        abs(a - b)
        for of_it in runs.values()
        for one in of_it
        for a, b in zip(one.numbers, runs[OURS][0].numbers, strict=True)
    ]
    return f"The 12 numbers DIFFER, by {max(differences):.3g} at most."


def growth_table(first: Sequence[Run], images: int, more: dict[int, list[Run]]) -> list[str]:
    """How time and memory of beam-detect grow with the images."""
    lines = [
        "| images | times the first | wall, s | times the first | CPU, s | peak memory, MB (PSS) | times the first |",
        "|---|---|---|---|---|---|---|",
    ]
    wall, peak = (median(getattr(one, name) for one in first) for name in ("wall_s", "peak"))
    for count, runs in {images: list(first), **more}.items():
        cells = (
            f"{count / images:g}",
            spread((one.wall_s for one in runs), 1),
            f"{median(one.wall_s for one in runs) / wall:.2f}",
            spread((one.cpu_s for one in runs), 1),
            spread((one.peak / 1e6 for one in runs), 0),
            f"{median(one.peak for one in runs) / peak:.2f}",
        )
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return lines


def benchmark(options: argparse.Namespace, work: Path) -> list[str]:
    """The lines of the report."""
    lines = heading()
    first, *others = options.images
    problem, described = _problem(first, options.seed, work)
    runs = compete(problem, work, options.rounds, options.pycocotools_rounds)
    lines += [f"{described}; medians of the runs (least–greatest), in turn.", "", *table(runs), "", agreement(runs)]
    more: dict[int, list[Run]] = {}
    for count in others:
        problem, described = _problem(count, options.seed, work)
        more[count] = [run(OURS, problem, work / f"{count}-{round_}") for round_ in range(options.rounds)]
        say(f"{described}: {', '.join(f'{one.wall_s:.1f} s' for one in more[count])}")
    if more:
        lines += ["", *growth_table(runs[OURS], first, more)]
    return lines


def _problem(images: int, seed: int, work: Path) -> tuple[Path, str]:
    """A problem in a folder of its own, and what it is."""
    say(f"making the problem of {images:,} images")
    folder = work / f"problem-{images}"
    folder.mkdir()
    truths, found = _coco_problem.write(folder, images, seed)
    return folder, f"{images:,} images, {truths:,} truths, {found:,} detections (seed {seed})"


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the report, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="benchmark-evaluation",
        description="Measures evaluate beside pycocotools and hotcoco, on the same problem, in one sitting.",
    )
    parser.add_argument(
        "--images",
        type=int,
        nargs="+",
        default=[5000],
        metavar="N",
        help="how many; with further numbers, how beam-detect alone grows (5000)",
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="runs of each (%(default)s)")
    parser.add_argument(
        "--pycocotools_rounds",
        type=int,
        default=1,
        metavar="N",
        help="in so many of the rounds pycocotools, which takes minutes, runs too (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the problem (%(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    with tempfile.TemporaryDirectory(prefix="beam-detect-benchmark-") as work:
        report = "\n".join(benchmark(options, Path(work))) + "\n"
    print(report, end="")
    if options.output:
        options.output.write_text(report)


if __name__ == "__main__":
    main()
