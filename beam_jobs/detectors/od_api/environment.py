"""The environment of the Object Detection API: made once in the cache, from pins with hashes.

`requirements.in` says what is wanted, the two other lists what that comes to: `scripts/lock` makes them. Packages that
the API names but does not need to export are left out.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from beam_jobs.detectors import cache
from beam_jobs.detectors.fetch import run_quietly, without_addresses
from beam_jobs.errors import UsageError

NAME = "object-detection-api"

_HERE = Path(__file__).parent
_BUILD, _REQUIREMENTS = _HERE / "requirements-build.txt", _HERE / "requirements.txt"
#: The one package that has no wheel.
_FROM_SOURCE = "tf-models-research-object-detection"
_SECONDS = 3600.0
_NEEDED_BYTES = 4 << 30
_NETWORK = re.compile(
    r"NewConnectionError|NameResolutionError|Failed to establish|Temporary failure|ConnectTimeout|ReadTimeout|"
    r"ProxyError|SSLError|Connection (refused|reset|aborted)|Network is unreachable|from versions: none"
)
_REMEDY = "A model that is exported already needs none: give --model its SavedModel."


def ensure(report: cache.Report) -> Path:
    """The environment's Python, made first when there is none or a file of it is not as it was.

    Raises:
        UsageError: there is no Python 3.11, the packages cannot be fetched, or there is no room for them.
    """
    return cache.ensure(NAME, recipe(), lambda folder: _build(folder, report), report) / "bin" / "python"


def recipe() -> str:
    """sha256 (hex) of the pins."""
    return hashlib.sha256(_BUILD.read_bytes() + _REQUIREMENTS.read_bytes()).hexdigest()


def _build(folder: Path, report: cache.Report) -> None:
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise UsageError(
            f"The Object Detection API's packages are there for Linux on x86-64, and this is {sys.platform} on "
            f"{platform.machine()}. {_REMEDY}"
        )
    python = find_python()
    if (free := shutil.disk_usage(folder).free) < _NEEDED_BYTES:
        raise UsageError(
            f"The Object Detection API's environment needs {_NEEDED_BYTES >> 30} GiB in {cache.cache_folder()}, which "
            f"has {free / (1 << 30):.1f}. Make room, or let BEAM_DETECT_CACHE name another folder."
        )
    report("making the environment of the Object Detection API (500 MB to fetch, 2.3 GB, some minutes, once) …")
    _run(folder, [str(python), "-I", "-m", "venv", str(folder)])
    pip = [str(folder / "bin" / "python"), "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # Compiled when it is first used, which is less than there is; and not with the paths of this temporary folder.
    pip += ["--no-input", "--no-compile", "--no-deps", "--require-hashes", "--only-binary", ":all:"]
    _run(folder, [*pip, "--requirement", str(_BUILD)])
    # Built with what has just been installed: isolation would fetch today's newest tools instead.
    source = ["--no-binary", _FROM_SOURCE, "--no-build-isolation"]
    _run(folder, [*pip, *source, "--requirement", str(_REQUIREMENTS)])


def find_python() -> Path:
    """A Python 3.11: the running one, or `python3.11` on PATH.

    Raises:
        UsageError: there is none; the API's TensorFlow 2.15 and its packages fit no other.
    """
    running = platform.python_version_tuple()[:2]
    if running == ("3", "11"):
        return Path(sys.executable)
    found = shutil.which("python3.11")
    if found is not None and run_quietly([found, "-I", "-c", "import venv, ensurepip"], Path("/"), 60)[0] == 0:
        return Path(found)
    what = "no python3.11 is on PATH" if found is None else f"{found} does not run, or has no venv (python3.11-venv)"
    raise UsageError(
        f"The Object Detection API runs on Python 3.11 only, and {what} (this is "
        f"{'.'.join(running)}). Install Python 3.11. {_REMEDY}"
    )


def _run(folder: Path, command: Sequence[str]) -> None:
    # Settings for this program's own Python are none for that one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    what = "The Object Detection API's environment cannot be made"
    try:
        status, said = run_quietly(command, folder, _SECONDS, environment)
    except TimeoutError:
        raise UsageError(f"{what}: it took longer than {_SECONDS:g} s. Check the network and try again.") from None
    if status == 0:
        return
    if "No space left on device" in said or "Disk quota exceeded" in said:
        raise UsageError(
            f"{what}: no space is left in {cache.cache_folder()} or in the folder of temporary files. It takes "
            f"{_NEEDED_BYTES >> 30} GiB; BEAM_DETECT_CACHE and TMPDIR name other folders."
        )
    if _NETWORK.search(said):
        raise UsageError(f"{what}: pip cannot reach its index. Check the network and pip's settings. {_REMEDY}")
    lines = [line for line in said.splitlines() if line.strip()]
    telling = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    reason = without_addresses((telling or lines[-1:] or [f"exit status {status}"])[0], "the index")
    raise UsageError(f"{what}: {reason}. Check the network and pip's settings. {_REMEDY}")
