"""`beam-detect export`: a checkpoint of the Object Detection API becomes a SavedModel in the zoo's layout."""

from __future__ import annotations

import argparse
import errno
import tempfile
import time
from pathlib import Path

from beam_jobs.cli.summary import say
from beam_jobs.detectors import folders, litert_forms, pipeline_config
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.detectors.litert_form import FAMILIES
from beam_jobs.detectors.od_api.checkpoint import find_checkpoint
from beam_jobs.detectors.od_api.export import RECORD, export
from beam_jobs.errors import UsageError


def run(options: argparse.Namespace) -> int:
    """Exports; returns the exit status.

    Raises:
        UsageError: an argument is wrong, or the checkpoint cannot be exported; the reason.
    """
    for name in ("pipeline_config", "checkpoint", "output"):
        if not (value := getattr(options, name)):
            raise UsageError(f"--{name} is required.")
        if "://" in value:
            raise UsageError(f"--{name} {value}: export takes files of this machine; copy it here first.")
    source = find_checkpoint(options.pipeline_config, options.checkpoint, options.label_map)
    if options.engine == "litert":
        _check_family(source.config)
    output = Path(options.output).absolute()
    _check_output(output, options.output, overwrite=options.overwrite)
    start = time.monotonic()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        # Beside its place, and renamed when it is whole.
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as scratch:
            made = Path(scratch) / output.name
            made.mkdir()
            export(source, made, say, verbose=options.verbose)
            if options.engine == "litert":
                _add_litert(made)
            if output.exists():
                output.rename(Path(scratch) / "old")
            made.rename(output)
    except OSError as error:
        reason = "no space is left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UsageError(f"--output {options.output} cannot be written: {reason}.") from error
    say(f"exported in {time.monotonic() - start:.0f} s: beam-detect detect --model {options.output} …")
    return 0


def _check_family(config: Path) -> None:
    family = pipeline_config.parse(config.read_bytes(), str(config)).family
    if family not in FAMILIES:
        raise UsageError(f"--engine litert takes {' and '.join(FAMILIES)}, and {config} says {family}: leave it out.")


def _add_litert(folder: Path) -> None:
    """Adds the LiteRT form to an export, or the reason why there is none."""
    found = folders.find_model(folder)
    spec = DetectorSpec("saved_model", found.name, str(found.model), folders.fingerprint_of(found.model), {})
    if reason := litert_forms.make_beside(spec, say):
        say(f"no LiteRT form, TensorFlow will run it: {reason}")


def _check_output(output: Path, shown: str, *, overwrite: bool) -> None:
    """Refuses what exists, but for an empty folder; with `overwrite` also but for an earlier export."""
    if not output.exists():
        return
    if not output.is_dir():
        raise UsageError(f"--output {shown} is a file: name a folder.")
    if not any(output.iterdir()):
        return
    if not (output / RECORD).is_file():
        raise UsageError(f"--output {shown} is not empty, and what it holds is no export: name another folder.")
    if not overwrite:
        raise UsageError(f"--output {shown} holds an export: name another folder, or give --overwrite.")
