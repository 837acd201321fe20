"""The cache of fetched and converted models on this machine.

`models/NAME/` is an entry: what a builder made, and a `manifest.json` with what it is, the recipe it was made by, and
the size and sha256 of every file. An entry is built beside its place and renamed, under a lock; it is checked whenever
it is used. So whatever kills a builder, and whatever happens to the files, an entry is read whole or made again. Files
beside it that start with `.NAME.` are the builder's own, such as an unfinished download.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
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


def models_folder() -> Path:
    """Where the entries are; it need not exist."""
    return cache_folder() / "models"


def ensure(
    name: str,
    recipe: str,
    build: Callable[[Path], None],
    report: Report,
    accept: Callable[[Path], bool] = lambda _: True,
    about: str = "",
    made_of: str = "",
) -> Path:
    """The folder of the whole cache entry `name`, made by `build(empty folder)` when there is none.

    Safe in several processes at once: one builds, the others wait for it and say so.

    Args:
        recipe: identifies what the entry is made from and how; an entry of another recipe is made again.
        accept: says of a whole entry whether it is the one that is wanted; else it is made again.
        about: what it is, for people, where the name does not tell.
        made_of: the entry that it is made of, if it is; removing that removes this too.

    Raises:
        UsageError: the cache cannot be written, or what `build` raises.
    """
    entry = models_folder() / name

    def is_there() -> bool:
        return fault_of(entry, recipe) is None and accept(entry)

    if is_there():
        return entry
    with locked(name, report):
        if not is_there():  # nobody made it while this process waited
            _replace(entry, {"recipe": recipe, "about": about, "made_of": made_of}, build, report)
    return entry


def remove(name: str, report: Report) -> int:
    """Removes the entry `name`, what is made of it, and what its builders left; gives the number of bytes that had.

    Raises:
        UsageError: the cache cannot be written.
    """
    entry = models_folder() / name
    size = sum(remove(other, report) for other in entries() if said_of(other).get("made_of") == name)
    with locked(name, report):
        found = [entry] * entry.is_dir() + _leftovers(name)
        size += sum(size_of(path) for path in found)
        for path in found:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return size


def has_leftovers(name: str) -> bool:
    """Whether builders of the entry `name` left something, such as an unfinished download."""
    return bool(_leftovers(name))


def _leftovers(name: str) -> list[Path]:
    return [path for path in models_folder().glob(f".{glob.escape(name)}.*") if path.suffix != ".lock"]


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder."""
    return path.stat().st_size if path.is_file() else sum(p.stat().st_size for p in path.rglob("*") if p.is_file())


def entries() -> list[str]:
    """The names of the entries that are there, whole or not."""
    return sorted(path.parent.name for path in models_folder().glob(f"[!.]*/{_MANIFEST}"))


def entry_of(path: str) -> str:
    """The name of the entry in which a path lies; empty when it lies in none."""
    try:
        return Path(path).relative_to(models_folder()).parts[0]
    except (ValueError, IndexError):
        return ""


def said_of(name: str) -> dict[str, str]:
    """What was said of an entry when it was made: `about` and `made_of`, as in `ensure`; empty when nobody can tell."""
    try:
        manifest = json.loads((models_folder() / name / _MANIFEST).read_bytes())
        return {key: str(manifest.get(key, "")) for key in ("about", "made_of")}
    except (OSError, ValueError, AttributeError):
        return {}


def is_cached(name: str) -> bool:
    """Whether there is an entry of this name: a glance, not a check."""
    return (models_folder() / name / _MANIFEST).is_file()


@contextmanager
def locked(name: str, report: Report) -> Iterator[None]:
    """Holds the lock of the entry `name`.

    Raises:
        UsageError: the cache cannot be written, then or within the block.
    """
    models = models_folder()
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _file_locked(models / f".{name}.lock", name, report):
            yield
    except OSError as error:
        reason = "no space is left" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UsageError(
            f"{name} cannot be kept in the cache folder {cache_folder()}: {reason}. "
            "Make it writable, with room for the model, or let BEAM_DETECT_CACHE name another folder."
        ) from error


def _replace(entry: Path, said: Mapping[str, str], build: Callable[[Path], None], report: Report) -> None:
    def temporary() -> Path:
        return entry.with_name(f".{entry.name}.{uuid.uuid4().hex}.tmp")

    _remove_leftovers(entry)
    if entry.exists():
        report(f"the cached {entry.name} is damaged, outdated or unfinished: making it again")
    new = temporary()
    new.mkdir()
    try:
        build(new)
        (new / _MANIFEST).write_text(json.dumps({**said, "files": describe(new)}, indent=1))
        if entry.exists():
            entry.rename(temporary())
        new.rename(entry)
    finally:
        _remove_leftovers(entry)


def _remove_leftovers(entry: Path) -> None:
    """Removes what dead builders left; under the lock nobody else is building."""
    for path in entry.parent.glob(f".{glob.escape(entry.name)}.*.tmp"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _file_locked(path: Path, name: str, report: Report) -> Iterator[None]:
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


def describe(folder: Path) -> dict[str, dict[str, int | str]]:
    """Size and sha256 (hex) of every file below a folder, by its relative name, in order of the names."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in files
    }


def files_of(entry: Path) -> dict[str, dict[str, int | str]]:
    """What the manifest of a whole entry says, as `describe` does."""
    files: dict[str, dict[str, int | str]] = json.loads((entry / _MANIFEST).read_bytes())["files"]
    return files


def fault_of(entry: Path, recipe: str | None = None) -> str | None:
    """Why the entry cannot be used, in a few words; None when every file is as it was made, by `recipe` if given."""
    try:
        manifest = json.loads((entry / _MANIFEST).read_bytes())
        if recipe not in (None, manifest["recipe"]):
            return "it was made by another version of this program"
        for name, said in manifest["files"].items():
            path = entry / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != said["size"]:
                return f"{name} has {size:,} bytes, not {said['size']:,}"
            if (found := sha256_of(path)) != said["sha256"]:
                return f"{name} has the sha256 {found}, not {said['sha256']}"
    except FileNotFoundError:
        return "it is not there"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"it cannot be read ({type(error).__name__})"
    return None


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
