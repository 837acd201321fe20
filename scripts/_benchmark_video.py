"""How fast clips are: the job beside the loop that tutorials teach, and beside the same frames as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from beam_jobs.detectors import catalogue
from scripts._benchmark_contenders import Contender, Job, Run, Script
from scripts._benchmark_measuring import say, spread, tree_pss
from scripts._benchmark_pictures import frames_of, make_clip, write_list

#: Minutes of the clips whose memory is compared, 30 frames a second.
MEMORY_MINUTES = (1, 10)


def clip_lines(job: Job, work: Path, frames: int, rounds: int) -> list[str]:
    """Rates over a clip of so many frames: medians of `rounds`, all once a round, in turn."""
    say("making the clip")
    clip = make_clip(work / "clip.mp4", frames)
    folder = work / "frames"
    folder.mkdir()
    of_clip = write_list(work / "clip.txt", [clip])
    of_frames = write_list(work / "frames.txt", frames_of(clip, folder))
    saved_model = catalogue.resolve(job.model, label_map=None, threads=1, engine="tensorflow").location
    rivals: list[tuple[str, Contender, Path]] = [
        ("loop over the clip", Script("loop", "_plain_video_loop.py", saved_model), of_clip),
        (f"{job.name}, the clip", job, of_clip),
        (f"{job.name}, its frames as JPEGs", job, of_frames),
    ]
    runs: list[list[Run]] = [[] for _ in rivals]
    for round_ in range(rounds):
        order = list(range(len(rivals)))
        for i in order if round_ % 2 == 0 else reversed(order):
            name, rival, listing = rivals[i]
            runs[i].append(rival.run(listing, work / f"video-{round_}-{i}"))
            say(f"round {round_ + 1}, {name}: {runs[i][-1].steady_s:.1f} s of {runs[i][-1].total_s:.1f} s")
    return [
        f"A clip of {frames:,} frames of 640×360, H.264; {job.model}; medians of {rounds} (least–greatest), in turn.",
        "",
        *_table([name for name, _, _ in rivals], runs, frames),
    ]


def _table(names: Sequence[str], runs: Sequence[Sequence[Run]], frames: int) -> list[str]:
    lines = [
        "| | steady, frames/s | times the loop | decode, CPU ms | start-up, s | in all, s |",
        "|---|---|---|---|---|---|",
    ]
    loop = median(run.steady_s for run in runs[0])
    for name, of_it in zip(names, runs, strict=True):
        cells = (
            spread((frames / run.steady_s for run in of_it), 1),
            f"{loop / median(run.steady_s for run in of_it):.2f}",
            f"{median(run.work_ms['decode'] for run in of_it):.2f}" if of_it[0].work_ms else "",
            spread((run.total_s - run.steady_s for run in of_it), 1),
            spread((run.total_s for run in of_it), 1),
        )
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def memory_lines(job: Job, work: Path, minutes: Sequence[int] = MEMORY_MINUTES) -> list[str]:
    """Peak memory of the job over a short clip and a long one, once each."""
    lines = ["| minutes | peak memory, MB (PSS of all processes) | times the first |", "|---|---|---|"]
    first = 0
    for each in minutes:
        clip = make_clip(work / f"minutes-{each}.mp4", each * 60 * 30)
        peak = 0

        def watch(pid: int) -> None:
            nonlocal peak
            peak = max(peak, tree_pss(pid))

        job.run(write_list(work / f"minutes-{each}.txt", [clip]), work / f"minutes-{each}", watch)
        first = first or peak
        lines.append(f"| {each} | {peak / 1e6:,.0f} | {peak / first:.2f} |")
        say(lines[-1])
    return lines
