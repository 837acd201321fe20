"""Having another form of a model made, in a Python of its own that has TensorFlow; what came of it. No TensorFlow here.

The program is `python -m PROGRAM WORK TARGET`: the order is in WORK, and in TARGET it leaves the form and a verdict, or
the verdict alone.
"""

from __future__ import annotations

import os
import pickle
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
import numpy as np

from beam_jobs.detectors import cache
from beam_jobs.detectors.base import DetectorSpec, Picture
from beam_jobs.detectors.fetch import run_quietly
from beam_jobs.detectors.scenes import scenes
from beam_jobs.errors import DECODE_ERRORS, UsageError

VERDICT = "verdict.json"
#: What the names of the cache's entries with forms begin with.
FROZEN, LITERT = "frozen-", "litert-"

#: Files of an order.
_SPEC, _PICTURES = "spec.pickle", "pictures.npz"
#: Below the patience of a pool with a process that opens its detector.
_SECONDS = 840.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What making a form came to: why it is not used, or None, and then it is there.

    Args:
        made_by: the version of this program.
        cut_short: how often it took too long, or its process was killed.
    """

    reason: str | None
    made_by: str = ""
    cut_short: int = 0

    @property
    def stands(self) -> bool:
        """Whether a job goes by it: another version of this program may do better, and so may a second try."""
        return self.reason is None or (self.made_by == program_version() and self.cut_short != 1)


def make(program: str, spec: DetectorSpec, pictures: Sequence[Picture], folder: Path, cut_short: int = 0) -> None:
    """Has the module `program` make a form of `spec` in the folder, or leave a verdict against it there.

    Args:
        pictures: what the form is tried on, uint8 [height, width, 3], besides two made ones.
        cut_short: how often that has been tried, and has come to no verdict.

    Raises:
        UsageError: the model itself is refused.
    """
    work = folder / "work"
    work.mkdir()
    (work / _SPEC).write_bytes(pickle.dumps(spec))
    np.savez(work / _PICTURES, *scenes(), *pictures)
    command = [sys.executable, "-P", "-m", program, str(work), str(folder)]
    try:
        status, said = run_quietly(command, work, _SECONDS, _environment())
        failure = f"making it ended with status {status}: {(said.strip().splitlines() or ['?'])[-1][:300]}"
    except TimeoutError:
        status, said, failure = None, "", f"making it took longer than {_SECONDS:g} s"
    if status == 1:
        raise UsageError(said.strip().splitlines()[-1] if said.strip() else failure)
    shutil.rmtree(work)
    if status != 0:
        for path in folder.iterdir():
            path.unlink()
        verdict = Verdict(reason=failure, made_by=program_version(), cut_short=cut_short + 1)
        (folder / VERDICT).write_bytes(msgspec.json.encode(verdict))


def answer(make_form: Callable[[DetectorSpec, Sequence[Picture], Path], Verdict], work: Path, target: Path) -> None:
    """What such a program does: makes what is ordered in `work`; exits with 1 if the model is refused."""
    spec: DetectorSpec = pickle.loads((work / _SPEC).read_bytes())
    with np.load(work / _PICTURES) as pictures:
        try:
            verdict = make_form(spec, list(pictures.values()), target)
        except UsageError as error:
            print(error, file=sys.stderr)
            raise SystemExit(1) from error
    verdict = msgspec.structs.replace(verdict, made_by=program_version())
    (target / VERDICT).write_bytes(msgspec.json.encode(verdict))


def verdict_of(name: str) -> Verdict | None:
    """The verdict in an entry of the cache, whoever made it; None where there is none that can be read."""
    if not name.startswith((FROZEN, LITERT)):
        return None
    try:
        return msgspec.json.decode((cache.models_folder() / name / VERDICT).read_bytes(), type=Verdict)
    except (OSError, *DECODE_ERRORS):
        return None


def cut_short(name: str) -> int:
    """How often making the form in an entry of the cache came to no verdict."""
    earlier = verdict_of(name)
    return earlier.cut_short if earlier is not None else 0


def program_version() -> str:
    """Of this program."""
    return version("beam-detect")


def tensorflow_version() -> str:
    """Of what such a program would use."""
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "unknown"


def _environment() -> Mapping[str, str]:
    # The package's own place is named, since -P keeps the current folder out.
    search = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, search)), "TF_CPP_MIN_LOG_LEVEL": "3"}
