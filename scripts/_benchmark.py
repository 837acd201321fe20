"""How fast the job is beside the loop that people write, and how much memory it takes.

The contenders run over the same pictures, each in processes of its own, in turn, `--rounds` times; what they find is
compared, too.

- Steady rate: pictures a second once the model is open. Of the job it is all inputs over the whole detect stage: Beam's
  fixed cost, writing the tables, and waiting for the slower detector process are in it.
- Start-up: all other seconds of the process, from its start to its exit: imports, opening the model, the first call; of
  the job also the plan before and the COCO files after.
- Memory: the largest sum of PSS over the process tree. PSS shares the pages that processes have in common among them;
  RSS would count them once a process, and USS not at all.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any, Protocol

import numpy as np
import psutil
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageOps

from beam_jobs.cli.demo import PHOTOGRAPHS
from beam_jobs.detectors import catalogue
from beam_jobs.runs import manifest as manifests
from beam_jobs.runs.manifest import Manifest

#: Sizes that are common in COCO: the longer side has 640 pixels.
SIZES = ((640, 480), (640, 427), (640, 480), (480, 640), (640, 360), (427, 640))
#: About the bytes of COCO's own files.
JPEG_QUALITY = 92

MIN_SCORE = 0.05
#: What threads of another number may change in a score or box; the rest is another detection.
SCORE_TOLERANCE, BOX_TOLERANCE = 1e-3, 0.5

#: These would take the loop's default threads away from it, and are not the job's to inherit either.
THREAD_VARIABLES = (
    "MKL_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
)

#: Of each path: one row a detection, of category, score, xmin, ymin, xmax, ymax in pixels.
Found = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a contender.

    Args:
        steady_s: seconds of the steady part.
        total_s: seconds of the whole process.
        found: what it saw.
        work_ms: milliseconds of a core a picture, by kind of work, where the contender can tell.
    """

    steady_s: float
    total_s: float
    found: Found
    work_ms: dict[str, float]


class Contender(Protocol):
    """Something that detects on the pictures of a list, in processes of its own."""

    @property
    def name(self) -> str: ...

    def run(self, listing: Path, output: Path) -> Run:
        """Does the pictures of `listing`, one path a line; `output` does not exist yet."""
        ...


@dataclass(frozen=True, slots=True)
class PlainLoop:
    """`_plain_loop.py`."""

    saved_model: str
    name: str = "plain loop"

    def run(self, listing: Path, output: Path) -> Run:
        """One run."""
        script = Path(__file__).with_name("_plain_loop.py")
        total_s = call([str(script), self.saved_model, str(listing), str(output)])
        said = json.loads(output.read_text())
        return Run(said["steady_s"], total_s, {each["path"]: _in_pixels(each) for each in said["found"]}, {})


@dataclass(frozen=True, slots=True)
class Job:
    """`beam-detect detect`.

    Args:
        flags: further flags of it.
    """

    model: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The command, as far as it matters here."""
        return " ".join(("beam-detect", *self.flags))

    def command(self, listing: Path, output: Path) -> list[str]:
        """The words after `python`."""
        words = ["-P", "-m", "beam_jobs", "detect", f"--model={self.model}", f"--min_score={MIN_SCORE}"]
        return [*words, f"--input_list={listing}", f"--output={output}", *self.flags]

    def run(self, listing: Path, output: Path) -> Run:
        """One run."""
        total_s = call(self.command(listing, output))
        manifest = Manifest.read(str(output))
        if manifest.counts.failed:
            raise SystemExit(
                f"benchmark: pictures failed: {manifest.counts.failures}; the comparison would not be fair."
            )
        found: Found = {path: np.empty((0, 6)) for path in _column(output / "images", "file_name")}
        names = _column(output / "detections", "file_name")
        columns = ("category_id", "score", "xmin", "ymin", "xmax", "ymax")
        rows = np.array([_column(output / "detections", name) for name in columns], np.float64).T
        # The rows of a picture are next to each other.
        starts = [i for i, name in enumerate(names) if i == 0 or names[i - 1] != name]
        for start, end in zip(starts, [*starts[1:], len(names)], strict=True):
            found[names[start]] = rows[start:end]
        return Run(manifest.stage_s["detect"], total_s, found, _work_ms(manifest))


def _work_ms(manifest: Manifest) -> dict[str, float]:
    """Where the detector processes' time went during the detect stage, a picture."""
    steps = {name: seconds for name, seconds in manifest.work_s.items() if name != "load" and seconds}
    rest = manifest.stage_s["detect"] * manifest.detector.processes - sum(steps.values())
    return {name: seconds * 1e3 / manifest.counts.images for name, seconds in {**steps, "rest": rest}.items()}


def _column(table: Path, name: str) -> list[Any]:
    column: list[Any] = pq.read_table(table, columns=[name])[name].to_pylist()
    return column


def _in_pixels(each: dict[str, Any]) -> NDArray[np.float64]:
    """The rows of a picture of the loop's: the boxes are normalised ymin, xmin, ymax, xmax there."""
    size = np.array([each["width"], each["height"]] * 2)
    boxes = np.array(each["boxes"], np.float64).reshape(-1, 4)[:, [1, 0, 3, 2]] * size
    boxes = boxes.clip(0, size)
    # The job leaves boxes out that have no area inside the picture.
    full = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    rows: NDArray[np.float64] = np.column_stack([each["classes"], each["scores"], boxes])[full]
    return rows


@dataclass(slots=True)
class Agreement:
    """How far two contenders found the same, at `MIN_SCORE` or more.

    Args:
        matched: detections that both have.
        unmatched: detections that only one of them has.
        box, score: the largest difference among the matched, in pixels and in score.
    """

    matched: int = 0
    unmatched: int = 0
    box: float = 0.0
    score: float = 0.0


def compare(ours: Found, theirs: Found) -> Agreement:
    """Pairs the detections of each picture: same class, nearest box, within the tolerances.

    What lies within the tolerance of `MIN_SCORE` may be missing on one side.
    """
    result = Agreement(unmatched=len(ours.keys() ^ theirs.keys()))
    for path in ours.keys() & theirs.keys():
        left = list(theirs[path])
        single = []
        for row in ours[path]:
            near = [i for i, other in enumerate(left) if _is_same(row, other)]
            if near:
                other = left.pop(min(near, key=lambda i: _box_difference(row, left[i])))
                # Of two that both lack the job's threshold nobody asks.
                result.matched += max(row[1], other[1]) >= MIN_SCORE
                result.box = max(result.box, _box_difference(row, other))
                result.score = max(result.score, abs(row[1] - other[1]))
            else:
                single.append(row)
        result.unmatched += sum(row[1] >= MIN_SCORE + SCORE_TOLERANCE for row in [*single, *left])
    return result


def _is_same(row: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    near = abs(row[1] - other[1]) <= SCORE_TOLERANCE and _box_difference(row, other) <= BOX_TOLERANCE
    return bool(row[0] == other[0] and near)


def _box_difference(row: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(np.abs(row[2:] - other[2:]).max())


def make_pictures(folder: Path, count: int, seed: int) -> list[Path]:
    """`count` JPEGs of COCO's sizes in `folder`: scikit-image's photographs, each cropped, lit and turned differently.

    The same `seed` gives the same pictures, and more of them begin with those that fewer are.
    """
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise SystemExit("benchmark: the pictures are made of scikit-image's photographs: pip install scikit-image.")
    photographs = [Image.open(Path(found.origin).parent / "data" / name).convert("RGB") for name in PHOTOGRAPHS]

    def make(i: int) -> Path:
        path = folder / f"{i:06}.jpg"
        variation(photographs[i % len(photographs)], np.random.default_rng((seed, i))).save(path, quality=JPEG_QUALITY)
        return path

    # Pillow works outside of Python's lock.
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        return list(threads.map(make, range(count)))


def variation(photograph: Image.Image, random: np.random.Generator) -> Image.Image:
    """A part of 70% or more of the largest crop of the right shape, perhaps mirrored, lighter or darker."""
    width, height = SIZES[random.integers(len(SIZES))]
    scale = min(photograph.width / width, photograph.height / height) * random.uniform(0.7, 1)
    left = random.uniform(0, photograph.width - width * scale)
    top = random.uniform(0, photograph.height - height * scale)
    box = (left, top, left + width * scale, top + height * scale)
    picture = photograph.resize((width, height), Image.Resampling.BICUBIC, box)
    if random.random() < 0.5:
        picture = ImageOps.mirror(picture)
    return ImageEnhance.Brightness(picture).enhance(random.uniform(0.7, 1.3))


def call(words: Sequence[str], watch: Callable[[int], None] | None = None) -> float:
    """Runs this Python with `words`; returns the seconds it took. `watch(pid)` is called again and again meanwhile."""
    environment = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *words], stdout=said, stderr=said, env=environment)
        try:
            while watch is not None and process.poll() is None:
                watch(process.pid)
                time.sleep(0.1)
            status = process.wait()
        finally:
            process.kill()
        seconds = time.perf_counter() - start
        if status != 0:
            said.seek(0)
            raise SystemExit(f"benchmark: {' '.join(words)} ended with {status}:\n{said.read()[-2000:]}")
    return seconds


def peak_memory(words: Sequence[str]) -> int:
    """The largest PSS, in bytes, of the process tree of this Python with `words`, looked at ten times a second."""
    peak = 0

    def watch(pid: int) -> None:
        nonlocal peak
        peak = max(peak, tree_pss(pid))

    call(words, watch)
    return peak


def tree_pss(pid: int) -> int:
    """The PSS, in bytes, of a process and of those that it started."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            try:
                total += process.memory_full_info().pss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue  # it ended while we looked
    except psutil.NoSuchProcess:
        pass
    return total


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


def speed_table(contenders: Sequence[Contender], runs: Sequence[Sequence[Run]], pictures: int) -> list[str]:
    """Medians with the least and the greatest value; ratios are to the first contender."""
    lines = [
        "| | steady, pictures/s | times the loop | start-up, s | in all, s |",
        "|---|---|---|---|---|",
    ]
    base = [run.steady_s for run in runs[0]]
    for contender, of_it in zip(contenders, runs, strict=True):
        steady = [run.steady_s for run in of_it]
        # The rounds are pairs: what slows the machine for a while slows both.
        ratios = [mine / its for mine, its in zip(base, steady, strict=True)]
        cells = (
            spread((pictures / seconds for seconds in steady), 1),
            f"{median(base) / median(steady):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
            spread((run.total_s - run.steady_s for run in of_it), 1),
            spread((run.total_s for run in of_it), 1),
        )
        lines.append(f"| {contender.name} | {' | '.join(cells)} |")
    return lines


def work_table(contenders: Sequence[Contender], runs: Sequence[Sequence[Run]]) -> list[str]:
    """Where the time of the contenders that tell went."""
    told = [
        (contender.name, of_it) for contender, of_it in zip(contenders, runs, strict=True) if of_it and of_it[0].work_ms
    ]
    if not told:
        return []
    steps = list(told[0][1][0].work_ms)
    lines = [f"| a detector process's ms a picture | {' | '.join(steps)} |", f"|---{'|---' * len(steps)}|"]
    for name, of_it in told:
        cells = (f"{median(run.work_ms.get(step, 0.0) for run in of_it):.1f}" for step in steps)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, "", "The rest is all else in the steady part: rows, tables, Beam, waiting at either end."]


def spread(values: Iterable[float], digits: int) -> str:
    """The median, and the least and the greatest."""
    values = list(values)
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def agreement_line(name: str, agreement: Agreement) -> str:
    """What `compare` came to, for people."""
    return (
        f"{name} and the loop have {agreement.matched:,} detections in common, {agreement.unmatched:,} only one of them"
        f" has; largest differences {agreement.box:.2g} px and {agreement.score:.2g} in score."
    )


def memory_table(job: Job, counts: Sequence[int], pictures: Path, work: Path, seed: int) -> list[str]:
    """Peak memory of the job, once for each number of pictures."""
    made = make_pictures(pictures, max(counts), seed)
    lines = ["| pictures | peak memory of the process tree, MB (PSS) | times the first |", "|---|---|---|"]
    first = 0
    for count in counts:
        peak = peak_memory(
            job.command(write_list(work / f"memory-{count}.txt", made[:count]), work / f"memory-{count}")
        )
        first = first or peak
        lines.append(f"| {count:,} | {peak / 1e6:,.0f} | {peak / first:.2f} |")
        say(lines[-1])
    return lines


def heading() -> list[str]:
    """The machine, the day and the versions."""
    machine = manifests.machine()
    memory = psutil.virtual_memory().total / 2**30
    versions = ", ".join(f"{name} {version}" for name, version in manifests.versions().items())
    return [
        f"{date.today().isoformat()}, {machine['processor']}, {machine['cores']} cores, {memory:.0f} GiB,"
        f" {machine['system']}; load before: {os.getloadavg()[0]:.1f}.",
        f"beam-detect {manifests.program_version()}, {versions}.",
    ]


def write_list(path: Path, pictures: Iterable[Path]) -> Path:
    """A list of pictures as a file; returns `path`."""
    path.write_text("".join(f"{picture}\n" for picture in pictures))
    return path


def say(line: str) -> None:
    """Tells whoever waits."""
    print(f"benchmark: {line}", file=sys.stderr, flush=True)


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
            inputs = make_pictures(pictures, options.pictures or 400, options.seed)
            source = f"made of scikit-image's photographs (seed {options.seed})"
        if not inputs:
            raise SystemExit(f"benchmark: there are no pictures in {options.images}.")
        size = sum(path.stat().st_size for path in inputs) / len(inputs)
        spec = catalogue.resolve(options.model, label_map=None, threads=1, engine="tensorflow")
        contenders: list[Contender] = [PlainLoop(spec.location), job]
        runs = speed(contenders, write_list(work / "pictures.txt", inputs), work, options.rounds)
        lines += [
            f"{len(inputs):,} pictures {source}, {size / 1e3:.0f} kB each on average; {spec.name};"
            f" medians of {options.rounds} (least–greatest), in turn.",
            "",
            *speed_table(contenders, runs, len(inputs)),
            "",
            *work_table(contenders, runs),
            "",
        ]
        for contender, of_it in zip(contenders[1:], runs[1:], strict=True):
            lines += [agreement_line(contender.name, compare(of_it[0].found, runs[0][0].found))]
    if options.memory is not None:
        say("measuring memory")
        lines += ["", *memory_table(job, options.memory or [500, 5000], pictures, work, options.seed)]
    return lines


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints the report, and writes it where that is asked for."""
    parser = argparse.ArgumentParser(
        prog="benchmark", description="Measures the job beside the plain loop, on the same pictures, in one sitting."
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="runs of each; 0 for none (%(default)s)")
    parser.add_argument("--pictures", type=int, metavar="N", help="how many pictures (400; all of --images)")
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
        "--memory", type=int, nargs="*", metavar="N", help="also the job's peak memory for so many pictures (500 5000)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="beam-detect-benchmark-") as work:
        report = "\n".join(benchmark(options, Path(work))) + "\n"
    print(report, end="")
    if options.output:
        options.output.write_text(report)


if __name__ == "__main__":
    main()
