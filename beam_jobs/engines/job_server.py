"""Beam's job server for Flink: the jar that makes a Flink job of a pipeline. In the cache, or fetched by Maven."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from filelock import FileLock

from beam_jobs.detectors.cache import Report, cache_folder
from beam_jobs.errors import UsageError

_GROUP = "org.apache.beam"
_PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1"


def artifact(flink: str, beam: str) -> str:
    """The jar's name: of a minor version of Flink, as `1.20`, and a version of Beam."""
    return f"beam-runners-flink-{flink}-job-server-{beam}.jar"


def job_server_jar(flink: str, beam: str, report: Report) -> Path:
    """The jar in the cache, fetched there when it is first asked for.

    Maven checks it against the checksum beside it in the repository.

    Raises:
        UsageError: there is no Maven, or it cannot fetch it.
    """
    name = artifact(flink, beam)
    folder = cache_folder() / "flink" / "jars"
    path = folder / name
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{name}.lock"), tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as work:
            if not path.is_file():
                report(f"fetching {name} with Maven (once) …")
                _fetch(f"{_GROUP}:beam-runners-flink-{flink}-job-server:{beam}", Path(work))
                os.replace(Path(work) / name, path)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error}. BEAM_DETECT_CACHE names another folder.") from error
    return path


def _fetch(coordinates: str, folder: Path) -> None:
    given = "or give the jar as --flink_job_server_jar FILE"
    maven = shutil.which("mvn")
    if maven is None:
        raise UsageError(
            f"Beam's job server for Flink, {coordinates}, is fetched by Maven, and there is no mvn: install it (Debian"
            f" and Ubuntu: apt install maven), {given}."
        )
    words = [maven, "--batch-mode", "--strict-checksums", f"{_PLUGIN}:copy", f"-Dartifact={coordinates}"]
    done = subprocess.run(
        [*words, f"-DoutputDirectory={folder}"], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        raise UsageError(f"Maven cannot fetch {coordinates}: {_why(done.stdout)}; try again, {given}.")


def _why(log: str) -> str:
    """Maven's reason, which is the first of its lines of errors, and names the goal before it."""
    lines = [line.removeprefix("[ERROR] ") for line in log.splitlines() if line.startswith("[ERROR] ")]
    first = lines[0] if lines else "it gave no reason"
    return first.partition("(default-cli) on project standalone-pom: ")[2].split(" -> [Help")[0].rstrip(". ") or first
