"""Having a checkpoint exported: by the API, in its environment, into the zoo's layout."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from beam_jobs.detectors import cache
from beam_jobs.detectors.od_api import environment
from beam_jobs.detectors.od_api.checkpoint import Checkpoint, find_checkpoint
from beam_jobs.errors import UsageError

_PROGRAM = Path(__file__).with_name("export_program.py")
RECORD = "export.json"


def export(source: Checkpoint, folder: Path, report: cache.Report, *, verbose: bool = False) -> None:
    """Exports into the empty `folder`: `saved_model/`, `checkpoint/`, `pipeline.config`, a label map, `export.json`.

    Args:
        verbose: show all that the API and TensorFlow say.

    Raises:
        UsageError: the environment cannot be made, or the API cannot export this; its reason.
    """
    python = environment.ensure(report)
    label_map = "" if source.label_map is None else str(source.label_map.absolute())
    arguments = [str(source.config.absolute()), str(source.prefix.absolute()), str(folder), label_map]
    about = run_program(python, [str(_PROGRAM), *arguments], report, verbose=verbose)
    shutil.copyfile(source.config, folder / "pipeline.config")
    if source.label_map is not None:
        shutil.copyfile(source.label_map, folder / "label_map.pbtxt")
    checkpoint = folder / "checkpoint"
    checkpoint.mkdir()
    for path in source.files:
        shutil.copyfile(path, checkpoint / path.name)
    (checkpoint / "checkpoint").write_text(f'model_checkpoint_path: "{source.prefix.name}"\n')
    about |= {"checkpoint": source.prefix.name, "fingerprint": source.fingerprint(), "pins": environment.recipe()}
    (folder / RECORD).write_text(json.dumps(about, indent=1, sort_keys=True) + "\n")


def exported(config: Path, checkpoint: Path, report: cache.Report) -> tuple[Path, str]:
    """The exported folder of a config and a checkpoint in the cache, made first when it is missing; its fingerprint.

    Raises:
        UsageError: as `find_checkpoint` and `export`.
    """
    source = find_checkpoint(str(config), str(checkpoint), None)
    fingerprint = source.fingerprint()
    made_by = hashlib.sha256(f"{fingerprint} {environment.recipe()} {cache.sha256_of(_PROGRAM)}".encode()).hexdigest()
    entry = cache.ensure(
        f"exported-{fingerprint[:16]}",
        made_by,
        lambda to: export(source, to, report),
        report,
        about=f"the export of {config.absolute().parent.name}",
    )
    return entry, fingerprint


def run_program(python: Path, command: Sequence[str], report: cache.Report, *, verbose: bool) -> dict[str, Any]:
    """Runs a program that talks as `export_program.py` does; reports its steps, and gives what it says at the end.

    Whatever ends this function ends the program too, with its children.

    Args:
        command: the program and its arguments; the descriptor that it talks to is put between them.

    Raises:
        UsageError: it says that it cannot, or ends without a word.
    """
    # It has no use for a GPU, and pins of its own that may not fit the driver.
    settings = os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "0" if verbose else "3"}
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as said, open(ours) as lines:
        try:
            process = subprocess.Popen(
                [str(python), "-I", command[0], str(theirs), *command[1:]],
                env=settings,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr if verbose else said,
                stderr=sys.stderr if verbose else said,
                pass_fds=[theirs],
                start_new_session=True,
            )
        finally:
            os.close(theirs)
        try:
            last = _listen(lines, report)
            status = process.wait()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if isinstance(about := last.get("done"), dict) and status == 0:
            return about
        if reason := last.get("error"):
            raise UsageError(f"The Object Detection API cannot export this: {reason.rstrip('.')}.")
        said.seek(0)
        ended = said.read().decode(errors="replace").strip().splitlines()[-1:] or [f"exit status {status}"]
        if status < 0:
            ended = [f"killed by signal {-status}, perhaps for want of memory"]
        raise UsageError(f"The Object Detection API ended without a word: {ended[0][:300]} (--verbose shows more).")


def _listen(lines: IO[str], report: cache.Report) -> dict[str, Any]:
    """Reports each step until the program ends; gives the last thing that it said."""
    last: dict[str, Any] = {}
    for line in lines:
        last = json.loads(line)
        if step := last.get("step"):
            report(f"{step} …")
    return last
