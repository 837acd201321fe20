"""Sets .venv up from the pinned requirements, then becomes the command that needs it.

python _setup.py NAME SET COMMAND...: NAME starts each message, SET is run, demo or dev, COMMAND is .venv's Python's.
Called by _setup.sh when .venv is not ready; standard library only. Exit status: 2 for a Python that cannot make a
.venv, 3 for a set-up that could not be completed, 130 and the like when interrupted.
"""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
LOCK = VENV / "setup.lock"
UNFINISHED = VENV / "unfinished"

# Each set is the one before and something more, so the last name's requirements bring all of them.
REQUIREMENTS = {
    "run": ["scripts/requirements.txt"],
    "demo": ["scripts/requirements.txt", "scripts/requirements-demo.txt"],
    "dev": ["scripts/requirements.txt", "scripts/requirements-demo.txt", "scripts/requirements-dev.txt"],
}
# What a whole set-up takes with its downloads, in GB.
DISK = 4.5

# What pip's log tells, in the order of asking.
REASONS = [
    (r"No space left on device|Disk quota exceeded", "no disk space left"),
    (r"DO NOT MATCH THE HASHES", "a package is not the one that was pinned (its hash differs)"),
    (
        r"NewConnectionError|Failed to establish a new connection|NameResolutionError|Temporary failure in name"
        r"|ConnectTimeout|ReadTimeout|ConnectionResetError|Connection refused|ProxyError|SSLError|unreachable",
        "no network: the packages cannot be fetched",
    ),
    (r"No matching distribution found for (\S+)", r"there is no \1 for this system"),
]


class SetupError(Exception):
    """Why .venv could not be set up, in one line, and the exit status."""

    def __init__(self, message: str, status: int = 3) -> None:
        super().__init__(message)
        self.status = status


def main() -> None:
    """Set .venv up for a set, and become a command."""
    name, set_, *command = sys.argv[1:]
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, _raise)
    try:
        VENV.mkdir(exist_ok=True)
        with _lock(name):
            if not _is_ready(set_):  # another call may have done it meanwhile
                _set_up(name, set_)
    except SetupError as error:
        _end(f"{name}: {error}", error.status)
    except OSError as error:
        space = error.errno in (errno.ENOSPC, errno.EDQUOT)
        _end(f"{name}: .venv cannot be set up: {'no disk space left' if space else error}", 3)
    except KeyboardInterrupt as error:
        signum = error.args[0] if error.args else signal.SIGINT
        _end(f"{name}: the set-up of .venv was interrupted; the next call does it again", 128 + signum)
    os.execv(PYTHON, [str(PYTHON), *command])


def _set_up(name: str, set_: str) -> None:
    started = time.monotonic()
    version = ".".join(map(str, sys.version_info[:3]))
    whole = _is_whole()
    if whole:
        print(f"{name}: bringing .venv up to date for {set_} …", file=sys.stderr)
    else:
        _clear()
        free = shutil.disk_usage(VENV).free / 1e9
        if free < DISK:
            raise SetupError(f"no disk space: .venv needs {DISK} GB, {free:.1f} GB are free in {ROOT}")
        print(f"{name}: setting up .venv with Python {version} (once; some minutes) …", file=sys.stderr)
    LOG.write_text("")
    UNFINISHED.touch()
    # Taken now: a file that changes meanwhile makes the stamp a stale one.
    stamps = {each: _new_stamp(files) for each, files in REQUIREMENTS.items() if len(files) <= len(REQUIREMENTS[set_])}
    try:
        pip = [str(PYTHON), "-m", "pip"] if whole and _has_pip() else _make_venv()
        _run([*pip, "install", "--require-hashes", "-r", REQUIREMENTS[set_][-1]])
        # Built with the pinned setuptools, which is installed by now; its requirements are, too.
        _run([*pip, "install", "--no-deps", "--no-build-isolation", "--no-index", "--editable", "."])
        for each, stamp in stamps.items():
            (VENV / "new").write_text(stamp)
            (VENV / "new").replace(VENV / f"ready-{each}")
        UNFINISHED.unlink()
    except BaseException:
        if not whole:
            _clear()
        elif "Installing collected packages" not in LOG.read_text():
            UNFINISHED.unlink()  # nothing was changed: what .venv was good for it still is
        raise
    finally:
        shutil.rmtree(VENV / "tmp", ignore_errors=True)
    print(f"{name}: .venv is ready ({time.monotonic() - started:.0f} s)", file=sys.stderr)


def _sums(files: list[str]) -> str:
    """The checksums of what a set is made from, a line a file."""
    return subprocess.run(["cksum", "pyproject.toml", *files], cwd=ROOT, check=True, stdout=-1, text=True).stdout


def _new_stamp(files: list[str]) -> str:
    """The stamp of a set, as `venv_is_ready` of _setup.sh compares it."""
    python = os.environ.get("BEAM_DETECT_PYTHON") or os.path.realpath(sys.executable)
    return f"{ROOT}\n{python}\n{_sums(files)}"


def _stamp(set_: str) -> list[str]:
    """The lines of a set's stamp: root, Python, checksums. Nothing when there is none."""
    try:
        return (VENV / f"ready-{set_}").read_text().splitlines()
    except FileNotFoundError:
        return []


def _is_same_base(stamp: list[str]) -> bool:
    """Whether a stamp is of this place, and of the Python that is asked for."""
    asked = os.environ.get("BEAM_DETECT_PYTHON")
    return PYTHON.exists() and stamp[:1] == [str(ROOT)] and (not asked or stamp[1] == asked)


def _is_ready(set_: str) -> bool:
    stamp = _stamp(set_)
    return _is_same_base(stamp) and stamp[2:] == _sums(REQUIREMENTS[set_]).splitlines() and not UNFINISHED.exists()


def _is_whole() -> bool:
    """Whether .venv can be added to: made here, from the job's present requirements, and not left in the middle."""
    stamp, sums = _stamp("run"), _sums(REQUIREMENTS["run"]).splitlines()
    return _is_same_base(stamp) and stamp[3:] == sums[1:] and not UNFINISHED.exists()


def _clear() -> None:
    # The stamps first: what is left of an interrupted removal is not to be taken for whole.
    for entry in sorted(VENV.iterdir(), key=lambda entry: not entry.name.startswith("ready")):
        if entry in (LOCK, LOG):
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _has_pip() -> bool:
    return any(VENV.glob("lib/python3.*/site-packages/pip"))


def _make_venv() -> list[str]:
    """Make .venv, and give the command that is its pip."""
    # The Python itself, not a link or a launcher that may stand for another one tomorrow.
    base = os.path.realpath(sys.executable)
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        # Debian and Ubuntu keep these in a package of their own. With venv alone, pip can work from outside.
        pip = subprocess.run([base, "-m", "pip", "--python", base, "--version"], capture_output=True)
        if error.name == "venv" or pip.returncode:
            version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
            message = f"{base} has no module {error.name} (Debian and Ubuntu: apt install {version}-venv)"
            raise SetupError(message, 2) from None
        _run([base, "-m", "venv", "--without-pip", str(VENV)])
        return [base, "-m", "pip", "--python", str(PYTHON)]
    _run([base, "-m", "venv", str(VENV)])
    return [str(PYTHON), "-m", "pip"]


def _run(command: list[str]) -> None:
    """Run a step of the set-up; what it says goes to the log, and the reason of a failure comes out of it."""
    # Downloads are unpacked beside where they go: /tmp is often small.
    tmp = VENV / "tmp"
    tmp.mkdir(exist_ok=True)
    settings = {"TMPDIR": str(tmp), "PIP_USER": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    with LOG.open("a") as log:
        # A session of its own: Ctrl-C is ours to pass on. It holds the lock, too: should this process be killed, the
        # next call waits until nobody writes to .venv.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=_lock_fds,
        )
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
    if status:
        raise SetupError(f".venv cannot be set up: {_reason(LOG.read_text(errors='replace'))} (see {LOG})")


def _reason(log: str) -> str:
    for pattern, reason in REASONS:
        if match := re.search(pattern, log):
            return match.expand(reason)
    errors = re.findall(r"^(?:ERROR|error): *(.+)", log, re.MULTILINE)
    return errors[-1] if errors else "a step failed"


_lock_fds: list[int] = []


@contextlib.contextmanager
def _lock(name: str) -> Iterator[None]:
    with LOCK.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"{name}: another call is setting .venv up; waiting for it …", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        _lock_fds[:] = [file.fileno()]
        yield


def _raise(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signum)


def _end(message: str, status: int) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
