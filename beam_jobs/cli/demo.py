"""`beam-detect demo`: the default detector on a few photographs, and what it saw."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from beam_jobs.cli import detect, flags
from beam_jobs.cli.summary import outputs
from beam_jobs.errors import UsageError
from beam_jobs.runs.manifest import Manifest

#: Photographs that scikit-image's wheel carries, with things in them that COCO has a class for.
PHOTOGRAPHS = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")


def run(options: argparse.Namespace) -> int:
    """Does the demo; returns the exit status of the run."""
    folder = photographs()
    words = ["detect", "--output", options.output, "--annotate", "--overwrite", "--root", str(folder)]
    words += [f"--input={folder / name}" for name in PHOTOGRAPHS]
    if options.verbose:
        words.append("--verbose")
    parsed, beam_args = flags.parse(words)
    status = detect.run(parsed, beam_args, ["beam-detect", *words])
    print()
    print("\n".join(outputs(options.output, Manifest.read(options.output))))
    return status


def photographs() -> Path:
    """The folder with the photographs."""
    # Found without importing scikit-image, which takes a second.
    found = importlib.util.find_spec("skimage")
    if found is None or found.origin is None:
        raise UsageError("The demo needs scikit-image's photographs: pip install 'beam-detect[demo]'.")
    return Path(found.origin).parent / "data"
