"""How long models take to open: as TensorFlow does it, and in the frozen form that beam-detect keeps.

Each opening is in a process of its own, in turn, `--rounds` times, with the threads of a detector process.

- Opening: from after the import of TensorFlow to the end of the first call. Of the one it is `tf.saved_model.load` and
  a call of the signature; of the other what a detector process does, which looks up the form in the cache, too.
- Making: the one time on a host that the form is made and compared with the original, TensorFlow's import included.
- Steady: the mean of the calls after the first, each with another picture.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from beam_jobs.detectors import catalogue, frozen_form
from beam_jobs.detectors.base import DetectorSpec, Picture
from beam_jobs.detectors.scenes import scenes
from beam_jobs.errors import UsageError
from beam_jobs.imaging.decode import decode
from beam_jobs.runs import manifest as manifests

#: In the order of the table.
_FORMS = ("saved_model", "frozen")


@dataclass(frozen=True, slots=True)
class Opening:
    """One opening in a process of its own.

    Args:
        open_s: seconds to open the model.
        first_s: seconds of the first call; 0 where opening includes it.
        steady_ms: milliseconds of a later call.
    """

    open_s: float
    first_s: float
    steady_ms: float

    @property
    def total_s(self) -> float:
        """Until the first result is there."""
        return self.open_s + self.first_s


def measure(form: str, spec: DetectorSpec, pictures: Sequence[Picture], clock: Callable[[], float]) -> Opening:
    """Opens `spec` in this process. What follows the import of TensorFlow is measured."""
    from beam_jobs.detectors.tensorflow_runtime import set_threads, tf

    if form == "frozen":
        from beam_jobs.detectors import open_detector

        start = clock()
        detector = open_detector(replace(spec, form="frozen"))
        opened = called = clock()

        def call(picture: Picture) -> None:
            detector.detect([picture])
    else:
        from beam_jobs.detectors.api_outputs import KEYS

        set_threads(spec.threads)
        start = clock()
        model = tf.saved_model.load(spec.location)
        signature = model.signatures["serving_default"]
        (name,) = signature.structured_input_signature[1]
        opened = clock()

        def call(picture: Picture) -> None:
            outputs = signature(**{name: tf.constant(picture[np.newaxis])})
            for key in KEYS:
                if key in outputs:
                    outputs[key].numpy()

        call(np.zeros((320, 320, 3), np.uint8))
        called = clock()
    # The first picture of another shape may cost once more.
    call(pictures[0])
    begun = clock()
    for picture in pictures:
        call(picture)
    steady = (clock() - begun) / len(pictures)
    return Opening(opened - start, called - opened, steady * 1e3)


def in_own_process(form: str, spec: DetectorSpec, pictures: Path, clock: str) -> Opening:
    """`measure`, in a new process."""
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    with tempfile.NamedTemporaryFile() as file:
        file.write(pickle.dumps(spec))
        file.flush()
        command = [sys.executable, __file__, "--measure", form, file.name, str(pictures), clock]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode != 0:
        raise SystemExit(f"benchmark-open: {spec.name}, {form}: {done.stderr[-2000:]}")
    return Opening(**json.loads(done.stdout.splitlines()[-1]))


def row(spec: DetectorSpec, making_s: float, runs: dict[str, list[Opening]]) -> str:
    """The line of a model: medians, and the least and greatest ratio of a round."""
    original, frozen = (runs[form] for form in _FORMS)
    ratios = [mine.total_s / its.total_s for mine, its in zip(frozen, original, strict=True)]
    opened, first = (median(getattr(each, name) for each in original) for name in ("open_s", "first_s"))
    cells = (
        spec.name,
        f"{opened:.1f} + {first:.1f}",
        f"{median(each.total_s for each in frozen):.1f}",
        f"{median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
        f"{making_s:.0f}",
        f"{median(each.steady_ms for each in original):.0f}",
        f"{median(each.steady_ms for each in frozen):.0f}",
    )
    return f"| {' | '.join(cells)} |"


def benchmark(options: argparse.Namespace, work: Path) -> list[str]:
    """The lines of the report."""
    clock = "process_time" if options.cpu else "perf_counter"
    pictures = scenes()
    if options.images:
        files = sorted(path for path in options.images.iterdir() if path.is_file())[: options.pictures]
        pictures = [decode(path.read_bytes()).pixels for path in files]
    np.savez(work / "pictures.npz", *pictures)
    machine = manifests.machine()
    versions = ", ".join(f"{name} {version}" for name, version in manifests.versions().items())
    lines = [
        f"{date.today().isoformat()}, {machine['processor']}, {machine['cores']} cores; load before"
        f" {os.getloadavg()[0]:.1f}; {versions}; medians of {options.rounds} in turn; {len(pictures)} pictures;"
        f" seconds of {'CPU' if options.cpu else 'the clock'}.",
        "",
        "| | SavedModel: load + call, s | frozen form, s | ratio | making it, s | ms a picture | frozen, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    specs = [catalogue.resolve(model, label_map=None, threads=options.threads) for model in options.models]
    # A cache of its own: the form is made here, and that is measured.
    os.environ["BEAM_DETECT_CACHE"] = str(work / "cache")
    for spec in specs:
        start = time.monotonic()
        _, verdict = frozen_form.ensure(spec, lambda: pictures[:4], say)
        making_s = time.monotonic() - start
        if verdict.reason:
            lines.append(f"| {spec.name} | {verdict.reason} | | | {making_s:.0f} | | |")
            continue
        runs: dict[str, list[Opening]] = {form: [] for form in _FORMS}
        for round_ in range(options.rounds):
            for form in _FORMS if round_ % 2 == 0 else reversed(_FORMS):
                runs[form].append(in_own_process(form, spec, work / "pictures.npz", clock))
                say(f"{spec.name}, round {round_ + 1}, {form}: {runs[form][-1]}")
        lines.append(row(spec, making_s, runs))
    return lines


def say(line: str) -> None:
    """Tells whoever waits."""
    print(f"benchmark-open: {line}", file=sys.stderr, flush=True)


def main(argv: Sequence[str]) -> None:
    """Measures, prints the report, and writes it where that is asked for."""
    if argv[:1] == ["--measure"]:
        form, spec, stored, clock = argv[1:]
        with np.load(stored) as pictures:
            opening = measure(
                form, pickle.loads(Path(spec).read_bytes()), list(pictures.values()), getattr(time, clock)
            )
        print(json.dumps({"open_s": opening.open_s, "first_s": opening.first_s, "steady_ms": opening.steady_ms}))
        return
    parser = argparse.ArgumentParser(
        prog="benchmark-open", description="Measures how long models take to open, as SavedModels and as frozen forms."
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="SavedModels, as beam-detect's --model takes them")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="openings of each (%(default)s)")
    parser.add_argument("--images", type=Path, metavar="DIR", help="pictures of one's own for the calls, not made ones")
    parser.add_argument("--pictures", type=int, default=8, metavar="N", help="so many of them (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="threads inside a call (%(default)s)")
    parser.add_argument("--cpu", action="store_true", help="seconds of CPU, where the machine does other things, too")
    parser.add_argument("--output", type=Path, metavar="FILE", help="write the report there, too")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="beam-detect-benchmark-") as work:
        try:
            report = "\n".join(benchmark(options, Path(work))) + "\n"
        except UsageError as error:
            raise SystemExit(f"benchmark-open: {error}") from error
    print(report, end="")
    if options.output:
        options.output.write_text(report)


if __name__ == "__main__":
    main(sys.argv[1:])
