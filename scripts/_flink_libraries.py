"""Flink itself: the jars of PyPI's `apache-flink-libraries`, pinned, fetched once and kept in the cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock

from beam_jobs.detectors.cache import cache_folder
from beam_jobs.errors import UsageError


class Release(NamedTuple):
    """A release of Flink, and the sha256 of its source distribution."""

    version: str
    sha256: str


#: By what `--flink` takes.
RELEASES = {
    "1.20": Release("1.20.5", "e6aee62ea1a1fe7b32e28894ad079f3f1a50a372a4caac3df52405267f4228c8"),
    "2.2": Release("2.2.1", "eec27ffa86d01184de7f5ab668c479c83cdb75ebc7fba8091307da4f1a9d3348"),
}


def flink_home(flink: str) -> Path:
    """The folder with Flink's `lib/`, `bin/` and `opt/`; fetches it (230 MB) when it is not there.

    Raises:
        UsageError: it cannot be fetched, or is not what was pinned.
    """
    release = RELEASES[flink]
    folder = cache_folder() / "flink"
    home = folder / release.version
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{release.version}.lock"):
            # Renamed to its place when it is whole.
            if not home.is_dir():
                with tempfile.TemporaryDirectory(prefix=f".{release.version}.", dir=folder) as work:
                    _fetch(release, Path(work))
                    (Path(work) / f"apache_flink_libraries-{release.version}" / "deps").rename(home)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error}. BEAM_DETECT_CACHE names another folder.") from error
    return home


def _fetch(release: Release, work: Path) -> None:
    print(f"flink-cluster: fetching Flink {release.version} (230 MB, once) …", file=sys.stderr, flush=True)
    pin = work / "requirements.txt"
    pin.write_text(f"apache-flink-libraries=={release.version} --hash=sha256:{release.sha256}\n")
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"]
    # pip wants the metadata even of what is only to be downloaded, and makes it in a folder below TMPDIR.
    words = [*pip, "--no-binary", ":all:", "--no-cache-dir", "--require-hashes", "--requirement", str(pin)]
    done = subprocess.run([*words, "--dest", str(work)], capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else "pip failed")
        if "DO NOT MATCH THE HASHES" in done.stderr:
            why = "it is not the file that was pinned (its sha256 differs)"
        raise UsageError(f"apache-flink-libraries {release.version} cannot be fetched with pip: {why}")
    (archive,) = work.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(work, filter="data")
    archive.unlink()


def java() -> str:
    """The `java` that runs Flink.

    Raises:
        UsageError: there is none, or it is too old.
    """
    found = shutil.which("java")
    if found is None:
        raise UsageError(
            "There is no Java: install version 17 (Debian and Ubuntu: apt install openjdk-17-jre-headless)."
        )
    said = subprocess.run([found, "-version"], capture_output=True, text=True).stderr
    version = said.partition('"')[2].partition('"')[0]
    major = version.removeprefix("1.").split(".")[0]
    if not major.isdecimal() or int(major) < 11:
        raise UsageError(f"{found} is Java {version or 'of no known version'}: Flink needs 11 or 17.")
    return found
