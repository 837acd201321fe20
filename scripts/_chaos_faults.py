"""The faults: what is done to a run, when, and what must come of it. Each takes a `Trial`, raises `BrokenError`."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq

from beam_jobs import storage
from beam_jobs.runs import layout
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from scripts._chaos_runs import BrokenError, Trial
from tests.pictures import encode, picture
from tests.store_server import Fault as StoreFault
from tests.store_server import Store

#: After Ctrl-C the program is gone within so many seconds.
STOP_SECONDS = 10.0

Clean = Mapping[str, str]


def _some_time(trial: Trial) -> float:
    """A moment of the run; the moments of a fault's trials are spread over all of it."""
    return trial.seconds * (trial.place + trial.rng.random() * 0.05)


def kill_detector(trial: Trial, clean: Clean) -> None:
    """`kill -9` of a detector process. The launcher replaces it: nobody need do anything."""
    running = trial.start()
    running.sleep(_some_time(trial))
    if detectors := running.detectors():
        trial.rng.choice(detectors).kill()
    trial.ended(running, 0)
    trial.check(clean)


def kill_launcher(trial: Trial, clean: Clean) -> None:
    """`kill -9` of the launcher, then `--resume`."""
    running = trial.start()
    running.sleep(_some_time(trial))
    running.signal(signal.SIGKILL)
    trial.ended(running, -signal.SIGKILL, 0)
    trial.resume()
    trial.check(clean)


def stop_detector(trial: Trial, clean: Clean) -> None:
    """SIGSTOP of a detector process, SIGCONT after a while."""
    running = trial.start()
    running.sleep(_some_time(trial))
    if detectors := running.detectors():
        stopped = trial.rng.choice(detectors)
        stopped.suspend()
        running.sleep(trial.pause)
        if stopped.is_running():
            stopped.resume()
    trial.ended(running, 0)
    trial.check(clean)


def stop_launcher(trial: Trial, clean: Clean) -> None:
    """SIGSTOP of the launcher, SIGCONT after a while."""
    running = trial.start()
    running.sleep(_some_time(trial))
    running.signal(signal.SIGSTOP)
    running.sleep(trial.pause)
    running.signal(signal.SIGCONT)
    trial.ended(running, 0)
    trial.check(clean)


def interrupt(trial: Trial, clean: Clean, number: int = signal.SIGINT) -> None:
    """Ctrl-C: it ends within 10 s, says how to go on, and `--resume` does."""
    running = trial.start()
    running.sleep(_some_time(trial))
    running.signal(number)
    status = trial.ended(running, 128 + number, 0, seconds=STOP_SECONDS)
    if status and storage.exists(storage.join(trial.output, layout.PLAN)) and "--resume" not in running.text:
        raise BrokenError(f"does not say how to go on: {running.text[-300:]}")
    if status and (left := os.listdir(trial.environment["TMPDIR"])):
        raise BrokenError(f"left {left[0]} in the temporary folder")
    trial.resume()
    trial.check(clean)


def terminate(trial: Trial, clean: Clean) -> None:
    """SIGTERM: as Ctrl-C."""
    interrupt(trial, clean, signal.SIGTERM)


def kill_at_a_rename(trial: Trial, clean: Clean) -> None:
    """The launcher is killed before or after one of the renames by which files appear: any two steps of a commit."""
    renames = 7 + 6 * sum(path.startswith("images/") for path in clean)
    at, after = int(renames * (trial.place + trial.rng.random() * 0.05)), trial.rng.random() < 0.5

    def prepare() -> None:
        rename, number = os.replace, 0

        def rename_or_end(source: str, target: str) -> None:
            nonlocal number
            number += 1
            if number - 1 == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(source, target)
            if number - 1 == at:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = rename_or_end  # type: ignore[assignment]

    running = trial.start(prepare=prepare)
    trial.ended(running, -signal.SIGKILL, 0)
    trial.resume()
    trial.check(clean)


@contextmanager
def _small_disk(trial: Trial, size: int) -> Iterator[Callable[[int], None]]:
    """A disk of `size` bytes below the output; yields what makes it another size."""
    disk = os.path.dirname(trial.output)
    os.makedirs(disk, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk)
    try:
        yield lambda size: _mount("-o", f"remount,size={size}", disk)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=False)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True, capture_output=True)


def full_disk(trial: Trial, clean: Clean) -> None:
    """The output's disk has no room left (ENOSPC), at each write of a run in turn; then it has, and `--resume`."""
    needed = (sum(path.count("/") > 0 for path in clean) + 40) * 4096  # a page for each file, and some more
    with _small_disk(trial, max(4096, int(needed * 1.4 * (trial.place + trial.rng.random() * 0.05)))) as resize:
        running = trial.start()
        if trial.ended(running, 2, 3, 0) and "No space left" not in running.text:
            raise BrokenError(f"does not say why it ended: {running.text[-300:]}")
        resize(1 << 30)
        trial.resume()
        trial.check(clean)


def read_only_output(trial: Trial, clean: Clean) -> None:
    """The folder may not be written to any more; then it may, and `--resume`."""
    folder = Path(trial.output)
    folder.mkdir(parents=True)
    if trial.place == 0:
        folder.chmod(0o555)
    running = trial.start(prepare=_obey_permissions)
    running.sleep(_some_time(trial))
    folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
    for path in folders:
        path.chmod(0o555)
    if trial.ended(running, 2, 3, 0) and "Permission denied" not in running.text and "permission" not in running.text:
        raise BrokenError(f"does not say why it ended: {running.text[-300:]}")
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        path.chmod(0o755)
    trial.resume()
    trial.check(clean)


def _obey_permissions() -> None:
    """Has root, and what it starts, obey permissions like anybody: without CAP_DAC_OVERRIDE."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    libc.prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP
    libc.capget(header, data)
    for i in range(3):  # effective, permitted, inheritable
        data[i] &= ~(1 << 1)
    libc.capset(header, data)


def folder_vanishes(trial: Trial, clean: Clean) -> None:
    """The output folder is deleted under the run, which may not call that a success; then a new run."""
    running = trial.start()
    running.sleep(_some_time(trial))
    before = running.poll()
    shutil.rmtree(trial.output, ignore_errors=True)
    status = trial.ended(running, 2, 3, 0)
    finished = os.path.exists(os.path.join(trial.output, layout.MANIFEST))
    if before is None and status == 0 and not finished:
        raise BrokenError("a run without its files is called a success")
    if finished and list(check_run(trial.output)):
        raise BrokenError("what is left is called a finished run")
    if not finished:
        shutil.rmtree(trial.output, ignore_errors=True)
        trial.ended(trial.start(), 0)
    trial.check(clean)


def inputs_change(trial: Trial, clean: Clean) -> None:
    """Some inputs are written anew while the run reads them: each is a picture, old or new, or a failure."""
    names = sorted(os.listdir(trial.inputs))
    inputs = Path(shutil.copytree(trial.inputs, trial.folder / "in"))
    changed = trial.rng.sample(names, 20)
    trial.inputs = str(inputs)
    running = trial.start()
    running.sleep(_some_time(trial) * 0.9)
    for name in changed:
        data = encode(picture(400, 300, ((0, 0, 200, 150), (trial.rng.randrange(256), 9, 9))), compress_level=0)
        with (inputs / name).open("wb", buffering=0) as file:
            file.write(data[:100_000])
            time.sleep(0.002)
            file.write(data[100_000:])
    trial.ended(running, 0)
    trial.check_whole()
    counts = Manifest.read(trial.output).counts
    if counts.images + counts.failed != len(names):
        raise BrokenError(f"{counts.images} pictures and {counts.failed} failures of {len(names)} inputs")
    rows = [row for path in sorted(Path(trial.output, "images").iterdir()) for row in pq.read_table(path).to_pylist()]
    for row in rows:
        if row["file_name"] not in changed and (row["width"], row["height"]) != (40, 30):
            raise BrokenError(f"{row['file_name']} is not what it was")
    for path in sorted(Path(trial.output, "failures").iterdir()):
        for row in pq.read_table(path).to_pylist():
            if row["file_name"] not in changed:
                raise BrokenError(f"{row['file_name']} failed: {row['message']}")


def two_at_once(trial: Trial, clean: Clean) -> None:
    """Two jobs are started into one folder: one does it, and the other says so."""
    first = trial.start()
    first.sleep(_some_time(trial) * 0.5)
    second = trial.start()
    statuses = sorted((trial.ended(first, 0, 2), second.wait()))
    if statuses != [0, 2]:
        raise BrokenError(f"ended with {statuses}, not one 0 and one 2")
    trial.check(clean)


def store_faults(trial: Trial, clean: Clean, store: Store) -> None:
    """A bucket answers some requests with 503, 500, a broken connection; or none any more, until `--resume`."""
    kind = trial.rng.choice(["503 SlowDown", "500 InternalError", "reset"])
    method, outage = trial.rng.choice(["GET", "PUT", "*"]), trial.rng.random() < 0.5
    running = trial.start()
    running.sleep(_some_time(trial))
    store.set_faults(
        StoreFault(kind, method, "/in/|/out/" if outage else trial.rng.choice("abcdef"), 1000 if outage else 2)
    )
    if outage:
        running.sleep(4.0)
        store.set_faults()
    status = trial.ended(running, 0, 2, 3)
    store.set_faults()
    if status:
        trial.resume()
    found = Manifest.read(trial.output)
    if found.counts.failed:  # inputs that the store did not give for long are failures, as the README says
        trial.check_whole()
        return
    trial.check(clean)


LOCAL: Mapping[str, Callable[[Trial, Clean], None]] = {
    "kill -9 of a detector process": kill_detector,
    "kill -9 of the launcher": kill_launcher,
    "kill -9 at a rename": kill_at_a_rename,
    "SIGSTOP of a detector process": stop_detector,
    "SIGSTOP of the launcher": stop_launcher,
    "Ctrl-C": interrupt,
    "SIGTERM": terminate,
    "disk full": full_disk,
    "output read-only": read_only_output,
    "output deleted": folder_vanishes,
    "inputs change": inputs_change,
    "two jobs, one folder": two_at_once,
}
STORE = "S3: 503, 500, broken connections"
