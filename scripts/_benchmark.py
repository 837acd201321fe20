"""How fast the job is beside what people write and what the machine can do, and how much memory it takes.

The contenders run over the same pictures, each in processes of its own, in turn, `--rounds` times; what they find is
compared, too. After that each does some of them once more for its memory, because looking at it takes time.

- Steady rate: pictures a second once the model is open. Of the job it is all inputs over the whole detect stage: Beam's
  fixed cost, writing the tables, and waiting for the slower detector process are in it.
- Start-up: all other seconds of the process, from its start to its exit: imports, opening the model, the first call; of
  the job also the plan before and the COCO files after.
- Memory: the largest sum of PSS over the process tree. PSS shares the pages that processes have in common among them;
  RSS would count them once a process, and USS not at all.
- The limit: as many processes as cores that decode, resize and run the network in LiteRT, and do nothing else; for a
  model that only TensorFlow runs, the best bare loop over it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from scripts._benchmark_agreement import agreement_line, compare
from scripts._benchmark_contenders import Contender, Job, Run, contenders
from scripts._benchmark_measuring import heading, say, spread, tree_pss
from scripts._benchmark_pictures import make_pictures, write_list
from scripts._benchmark_video import clip_lines, memory_lines

#: Of these a contender's memory is looked at: it has grown to its size by then.
MEMORY_PICTURES = 200


def speed(contenders: Sequence[Contender], listing: Path, work: Path, rounds: int) -> list[list[Run]]:
    """The runs of each contender: all of them once a round, in turn, and every other round the other way about."""
    runs: list[list[Run]] = [[] for _ in contenders]
    for round_ in range(rounds):
        order = list(range(len(contenders)))
        for i in order if round_ % 2 == 0 else reversed(order):
            runs[i].append(contenders[i].run(listing, work / f"run-{round_}-{i}"))
            last = runs[i][-1]
            say(f"round {round_ + 1}, {contenders[i].name}: {last.steady_s:.1f} s of {last.total_s:.1f} s")
    return runs


def with_memory(contender: Contender, listing: Path, output: Path) -> tuple[Run, int]:
    """A run of a contender, and the largest PSS of its process tree in bytes."""
    peak = 0

    def watch(pid: int) -> None:
        nonlocal peak
        peak = max(peak, tree_pss(pid))

    run = contender.run(listing, output, watch)
    say(f"memory, {contender.name}: {peak / 1e6:,.0f} MB")
    return run, peak


def speed_table(
    contenders: Sequence[Contender], runs: Sequence[Sequence[Run]], memory: Sequence[int], pictures: int
) -> list[str]:
    """Medians with the least and the greatest value; the rate also beside the first contender's and the limit's."""
    lines = [
        "| | steady, pictures/s | times the loop | of the limit | start-up, s | in all, s | peak memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    bounds = [of_it for contender, of_it in zip(contenders, runs, strict=True) if contender.is_limit]
    limit = min(bounds, key=lambda of_it: median(run.steady_s for run in of_it))
    for contender, of_it, peak in zip(contenders, runs, memory, strict=True):
        cells = (
            spread((pictures / run.steady_s for run in of_it), 1),
            times(runs[0], of_it),
            times(limit, of_it),
            spread((run.total_s - run.steady_s for run in of_it), 1),
            spread((run.total_s for run in of_it), 1),
            f"{peak / 1e6:,.0f}",
        )
        lines.append(f"| {contender.name} | {' | '.join(cells)} |")
    return lines


def times(base: Sequence[Run], of_it: Sequence[Run]) -> str:
    """The steady rate beside another's; the rounds are pairs, as what slows the machine for a while slows both."""
    ratios = [other.steady_s / run.steady_s for other, run in zip(base, of_it, strict=True)]
    ratio = median(run.steady_s for run in base) / median(run.steady_s for run in of_it)
    return f"{ratio:.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


def work_table(contenders: Sequence[Contender], runs: Sequence[Sequence[Run]]) -> list[str]:
    """Where the time of the contenders that tell went."""
    told = [
        (contender.name, of_it) for contender, of_it in zip(contenders, runs, strict=True) if of_it and of_it[0].work_ms
    ]
    if not told:
        return []
    steps = list(told[0][1][0].work_ms)
    lines = [f"| CPU ms a picture | {' | '.join(steps)} |", f"|---{'|---' * len(steps)}|"]
    for name, of_it in told:
        cells = (f"{median(run.work_ms.get(step, 0.0) for run in of_it):.2f}" for step in steps)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def growth_table(job: Job, counts: Sequence[int], pictures: Path, work: Path, seed: int) -> list[str]:
    """Peak memory and cost of the job, once for each number of pictures."""
    made = make_pictures(pictures, max(counts), seed)
    lines = [
        "| pictures | peak memory, MB (PSS of all processes) | times the first | CPU ms a picture | times the first |",
        "|---|---|---|---|---|",
    ]
    first: tuple[int, float] | None = None
    for count in counts:
        listing = write_list(work / f"grown-{count}.txt", made[:count])
        run, peak = with_memory(job, listing, work / f"grown-{count}")
        cost = sum(run.work_ms.values())
        first = first or (peak, cost)
        lines.append(f"| {count:,} | {peak / 1e6:,.0f} | {peak / first[0]:.2f} | {cost:.1f} | {cost / first[1]:.2f} |")
        say(lines[-1])
    return lines


def benchmark(options: argparse.Namespace, work: Path) -> list[str]:
    """The lines of the report."""
    job = Job(options.model, tuple(options.job_flag))
    lines = heading()
    pictures = work / "pictures"
    pictures.mkdir()
    if options.rounds:
        if options.images:
            inputs = sorted(path for path in options.images.absolute().rglob("[!.]*") if path.is_file())
            inputs, source = inputs[: options.pictures], "given"
        else:
            say("making the pictures")
            inputs = make_pictures(pictures, options.pictures or 1000, options.seed)
            source = f"made of scikit-image's photographs (seed {options.seed})"
        if not inputs:
            raise SystemExit(f"benchmark: there are no pictures in {options.images}.")
        size = sum(path.stat().st_size for path in inputs) / len(inputs)
        rivals = contenders(options.model, options.job_flag)
        listing = write_list(work / "pictures.txt", inputs)
        runs = speed(rivals, listing, work, options.rounds)
        some = write_list(work / "some.txt", inputs[:MEMORY_PICTURES])
        memory = [with_memory(rival, some, work / f"memory-{i}")[1] for i, rival in enumerate(rivals)]
        lines += [
            f"{len(inputs):,} pictures {source}, {size / 1e3:.0f} kB each on average; {options.model};"
            f" medians of {options.rounds} (least–greatest), in turn; memory with the first {MEMORY_PICTURES}.",
            "",
            *speed_table(rivals, runs, memory, len(inputs)),
            "",
            *work_table(rivals, runs),
            "",
        ]
        for contender, of_it in zip(rivals[1:], runs[1:], strict=True):
            if of_it[0].found:
                lines += [agreement_line(contender.name, compare(of_it[0].found, runs[0][0].found))]
    if options.video is not None:
        lines += ["", *clip_lines(job, work, options.video, max(1, options.rounds))]
    if options.memory is not None:
        say("measuring memory")
        lines += ["", *growth_table(job, options.memory or [1000, 20000], pictures, work, options.seed)]
    if options.video_memory:
        lines += ["", *memory_lines(job, work)]
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the report, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="benchmark",
        description="Measures the job beside the plain loop, RunInference and the limit, on the same pictures.",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each; 0 for none (%(default)s)")
    parser.add_argument("--pictures", type=int, metavar="N", help="how many pictures (1000; all of --images)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures of one's own, for the rates")
    parser.add_argument("--model", default="coco-ssd", metavar="MODEL", help="as beam-detect takes it (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the pictures (%(default)s)")
    parser.add_argument(
        "--job_flag",
        action="append",
        default=[],
        metavar="FLAG",
        help="a flag for the job: --job_flag=--workers=1",
    )
    parser.add_argument(
        "--memory",
        type=int,
        nargs="*",
        metavar="N",
        help="also how the job grows, by its number of pictures (1000 20000)",
    )
    parser.add_argument(
        "--video", type=int, nargs="?", const=1000, metavar="N", help="also the rate over a clip of N frames (1000)"
    )
    parser.add_argument("--video_memory", action="store_true", help="also the memory for clips of 1 and 10 minutes")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="beam-detect-benchmark-") as work:
        report = "\n".join(benchmark(options, Path(work))) + "\n"
    print(report, end="")
    if options.output:
        options.output.write_text(report)


if __name__ == "__main__":
    main()
