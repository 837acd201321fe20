"""The cache of fetched and converted models on this machine.

`models/NAME/` is an entry: what a builder made, and a `manifest.json` with the recipe it was made by and the size and
sha256 of every file. An entry is built beside its place and renamed, under a lock; it is checked whenever it is used.
So whatever kills a builder, and whatever happens to the files, an entry is read whole or made again.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from beam_jobs.errors import UsageError

#: Takes one line for people.
Report = Callable[[str], None]

_MANIFEST = "manifest.json"


def report_to_stderr(line: str) -> None:
    """Prints `line` to the standard error stream."""
    print(line, file=sys.stderr, flush=True)


def cache_folder() -> Path:
    """`$BEAM_DETECT_CACHE`, else `$XDG_CACHE_HOME/beam-detect`, else `~/.cache/beam-detect`; an absolute path."""
    try:
        if own := os.environ.get("BEAM_DETECT_CACHE"):
            return Path(own).expanduser().absolute()
        # Relative values of XDG_CACHE_HOME are to be ignored: XDG Base Directory Specification 0.8.
        shared = os.environ.get("XDG_CACHE_HOME", "")
        return (Path(shared) if os.path.isabs(shared) else Path("~/.cache").expanduser()) / "beam-detect"
    except RuntimeError as error:  # from expanduser
        raise UsageError("There is no home folder to keep models in: let BEAM_DETECT_CACHE name a folder.") from error


def ensure(name: str, recipe: str, build: Callable[[Path], None], report: Report) -> Path:
    """The folder of the whole cache entry `name`, made by `build(empty folder)` when there is none.

    Safe in several processes at once: one builds, the others wait for it and say so.

    Args:
        recipe: identifies what the entry is made from and how; an entry of another recipe is made again.

    Raises:
        UsageError: the cache cannot be written, or what `build` raises.
    """
    models = cache_folder() / "models"
    entry = models / name
    if _is_whole(entry, recipe):
        return entry
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _locked(models / f".{name}.lock", name, report):
            if not _is_whole(entry, recipe):  # nobody made it while this process waited
                _replace(entry, recipe, build, report)
    except OSError as error:
        reason = "no space is left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UsageError(
            f"{name} cannot be kept in the cache folder {cache_folder()}: {reason}. "
            "Make it writable, with 100 MB free, or let BEAM_DETECT_CACHE name another folder."
        ) from error
    return entry


def _replace(entry: Path, recipe: str, build: Callable[[Path], None], report: Report) -> None:
    def temporary() -> Path:
        return entry.with_name(f".{entry.name}.{uuid.uuid4().hex}.tmp")

    _remove_leftovers(entry)
    if entry.exists():
        report(f"the cached {entry.name} is damaged or outdated: making it again")
    new = temporary()
    new.mkdir()
    try:
        build(new)
        (new / _MANIFEST).write_text(json.dumps({"recipe": recipe, "files": _describe(new)}, indent=1))
        if entry.exists():
            entry.rename(temporary())
        new.rename(entry)
    finally:
        _remove_leftovers(entry)


def _remove_leftovers(entry: Path) -> None:
    """Removes what dead builders left; under the lock nobody else is building."""
    for path in entry.parent.glob(f".{entry.name}.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _locked(path: Path, name: str, report: Report) -> Iterator[None]:
    # The system releases the lock of a process that dies, so nobody waits for the dead.
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        report(f"waiting for another process that is preparing {name} …")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _describe(folder: Path) -> dict[str, dict[str, int | str]]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }


def _is_whole(entry: Path, recipe: str) -> bool:
    """Whether the entry was made by `recipe` and every file is as it was made."""
    try:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        return manifest["recipe"] == recipe and all(
            (entry / name).stat().st_size == said["size"] and sha256_of(entry / name) == said["sha256"]
            for name, said in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # gone, unreadable, or not what we write
        return False


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
