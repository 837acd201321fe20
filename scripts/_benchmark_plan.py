"""How planning, and a whole run of a detector that costs nothing, grow with the number of inputs.

- Planning: `--inputs N …` names of objects in a bucket, shuffled, in a list, are read, sorted, numbered and written as
  a plan, each N in a process of its own. The names are not looked up, no more than in a job with `--input_list`.
- Runs: `--pictures N …` tiny pictures (hard links of one file), with `scripts._benchmark_plan:nothing` as the detector:
  what is left is what the job itself costs a picture.

CPU: seconds of all processes, which on a machine that others use tells more than the wall does. Memory of planning: the
largest resident set; of a run: the largest sum of PSS over the process tree, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from beam_jobs.detectors.base import DetectorInfo, Picture
from beam_jobs.records import Detections
from beam_jobs.runs.manifest import Manifest
from scripts._benchmark_measuring import call, heading, say, tree_pss

#: Names in one folder of the bucket, and names that are shuffled at a time: the list is made in bounded memory, too.
_FOLDER, _SHUFFLED = 10_000, 1_000_000

_PLAN = """
import json, resource, sys, time
from pathlib import Path
from beam_jobs.matching import match_list
from beam_jobs.runs.plan import Planner

def stage(name, work):
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    took[name] = (time.perf_counter() - start, time.process_time() - cpu)
    return result

took = {}
root = sys.argv[2]
with Planner() as planner:
    stage("read", lambda: planner.add(match_list(sys.argv[1])))
    stage("sort", planner.arrange)
    disk = sum(file.stat().st_size for file in Path(planner._folder.name).iterdir())
    stage("write", lambda: planner.write(root, 500, {}))
print(json.dumps({
    "took": took, "inputs": planner.inputs, "disk": disk,
    "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "plan": sum(file.stat().st_size for file in Path(root).rglob("*.parquet")),
}))
"""


class _Nothing:
    """Finds one box, at no cost."""

    info = DetectorInfo("python")

    def detect(self, pictures: Sequence[Picture]) -> list[Detections]:
        box = np.array([[0, 0, 4, 4]], np.float32)
        return [Detections(box, np.array([0.9], np.float32), np.array([1], np.int32)) for _ in pictures]


def nothing() -> _Nothing:
    """The detector of the runs."""
    return _Nothing()


nothing.categories = {1: "thing"}  # type: ignore[attr-defined]


def main() -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, nargs="*", default=[1_000_000, 2_000_000, 4_000_000], metavar="N")
    parser.add_argument("--pictures", type=int, nargs="*", default=[5_000, 20_000], metavar="N")
    options = parser.parse_args()
    print("\n".join(heading()))
    if options.inputs:
        _head("inputs", "read the list, s", "sort, ids, s", "write the plan, s", "CPU, s", "peak memory, MB",
              "temporary disk, MB", "plan, MB")  # fmt: skip
        for inputs in options.inputs:
            print(_planned(inputs), flush=True)
    if options.pictures:
        _head("pictures", "CPU a picture, ms", "before the first picture, s", "at the end, s", "peak memory, MB",
              "outputs a picture, bytes")  # fmt: skip
        for pictures in options.pictures:
            print(_ran(pictures), flush=True)


def _head(*columns: str) -> None:
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def _planned(inputs: int) -> str:
    say(f"planning {inputs:,} inputs")
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "list.txt"
        _write_list(names, inputs)
        said = Path(folder) / "said.json"
        code = f"import sys; sys.stdout = open({str(said)!r}, 'w')\n{_PLAN}"
        call(["-c", code, str(names), f"{folder}/run"])
        result = json.loads(said.read_text())
    assert result["inputs"] == inputs
    took = result["took"]
    walls = " | ".join(f"{took[stage][0]:.1f}" for stage in ("read", "sort", "write"))
    cpu = sum(cpu for _, cpu in took.values())
    sizes = " | ".join(f"{result[name] / 1e6:,.0f}" for name in ("rss", "disk", "plan"))
    return f"| {inputs:,} | {walls} | {cpu:.1f} | {sizes} |"


def _write_list(path: Path, inputs: int) -> None:
    order = random.Random(1)
    with path.open("w") as file:
        for first in range(0, inputs, _SHUFFLED):
            # Each block holds every so-manieth name, so that the list as a whole is in no order.
            numbers = list(range(first // _SHUFFLED, inputs, -(-inputs // _SHUFFLED)))
            order.shuffle(numbers)
            file.writelines(f"s3://photographs/2026/{n // _FOLDER:06d}/IMG_{n:09d}.jpg\n" for n in numbers)


def _ran(pictures: int) -> str:
    say(f"a run of {pictures:,} pictures")
    with tempfile.TemporaryDirectory() as folder:
        _link_pictures(Path(folder) / "in", pictures)
        peak = 0

        def watch(process: int) -> None:
            nonlocal peak
            peak = max(peak, tree_pss(process))

        command = ["-m", "beam_jobs", "detect", "--model=scripts._benchmark_plan:nothing", f"--input={folder}/in"]
        spent = _cpu_of(lambda: call([*command, f"--output={folder}/out"], watch))
        manifest = Manifest.read(f"{folder}/out")
        assert manifest.counts.images == pictures
        size = sum(file.bytes for file in manifest.files)
    before = sum(manifest.stage_s[stage] for stage in ("model_files", "plan", "model_form", "model_open"))
    ends = f"{before:.1f} | {manifest.stage_s['finalise']:.1f}"
    return f"| {pictures:,} | {spent / pictures * 1e3:.2f} | {ends} | {peak / 1e6:,.0f} | {size / pictures:,.0f} |"


def _link_pictures(folder: Path, pictures: int) -> None:
    one = folder / "0000" / "0000000.png"
    for n in range(pictures):
        path = folder / f"{n // _FOLDER:04d}" / f"{n:07d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if n:
            os.link(one, path)
        else:
            Image.new("RGB", (8, 8)).save(path)


def _cpu_of(work: Callable[[], object]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    started = time.monotonic()
    main()
    say(f"{time.monotonic() - started:.0f} s")
