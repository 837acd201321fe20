"""A standalone Flink cluster on the loopback address: one JobManager and some TaskManagers, each a process.

    flink-cluster start [--flink 1.20] [--port 8081] [--taskmanagers 2] [--slots 1]
    flink-cluster status [--port 8081]
    flink-cluster stop [--port 8081]

It is there for tests and for trying things out; it keeps no state and nobody restarts its processes. Configuration,
logs and process ids are in the cache (`flink/cluster-PORT/`). What runs on it, workers of a job too, ends with it.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from beam_jobs.detectors.cache import cache_folder
from beam_jobs.errors import UsageError
from scripts._flink_libraries import RELEASES, flink_home, java

START_SECONDS, STOP_SECONDS = 90, 15

JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"

#: What Flink's own scripts open on Java 17: its serialisers look into classes of Java's.
_OPENED = "java.lang java.lang.reflect java.io java.net java.nio java.text java.time java.util java.util.concurrent"
_OPENED += " java.util.concurrent.atomic java.util.concurrent.locks sun.nio.ch"
JAVA_17 = [
    "--add-exports=java.base/sun.net.util=ALL-UNNAMED",
    "--add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED",
    *(f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED.split()),
]

LOG4J = """rootLogger.level = INFO
rootLogger.appenderRef.console.ref = console
appender.console.name = console
appender.console.type = Console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d{HH:mm:ss,SSS} %-5p %c{1} - %m%n
"""


class Process(NamedTuple):
    """A process that was started: its id, and when (clock ticks since boot), as ids are given again."""

    pid: int
    started: int

    def runs(self) -> bool:
        """Whether it is still that process."""
        return _started(self.pid) == self.started


def main() -> int:
    """Does what the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="flink-cluster", description="A Flink cluster on this machine.")
    parser.add_argument("command", choices=["start", "stop", "status"])
    parser.add_argument("--flink", choices=list(RELEASES), default="1.20", help="the release (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8081, help="of the web page and REST (default: %(default)s)")
    parser.add_argument("--taskmanagers", type=int, default=2, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--slots", type=int, default=1, metavar="N", help="of each (default: %(default)s)")
    options = parser.parse_args()
    if min(options.taskmanagers, options.slots) < 1:
        parser.error("--taskmanagers and --slots must be at least 1")
    try:
        folder = cache_folder() / "flink" / f"cluster-{options.port}"
        return {"start": start, "stop": stop, "status": status}[options.command](folder, options)
    except UsageError as error:
        print(f"flink-cluster: error: {error}", file=sys.stderr)
        return 2


def start(folder: Path, options: argparse.Namespace) -> int:
    """Starts the cluster and waits until all its TaskManagers are there."""
    if any(process.runs() for process in _processes(folder)):
        raise UsageError(f"a cluster runs on port {options.port} already: flink-cluster stop --port {options.port}")
    if not _is_free(options.port):
        raise UsageError(f"port {options.port} is taken by something else: --port names another one.")
    launcher, home = java(), flink_home(options.flink)
    _configure(folder, options)
    started: list[Process] = []
    try:
        for name, main_class in [("jobmanager", JOB_MANAGER)] + [("taskmanager", TASK_MANAGER)] * options.taskmanagers:
            label = name if main_class == JOB_MANAGER else f"{name}-{len(started)}"
            started.append(_launch(launcher, home, folder, label, main_class))
            (folder / "processes.json").write_text(json.dumps(started))
        _wait_until_ready(folder, options, started)
    except BaseException:
        stop(folder, options)
        raise
    print(f"Flink {RELEASES[options.flink].version} on http://localhost:{options.port},", end=" ")
    print(f"{options.taskmanagers} TaskManagers with {options.slots} slots each; logs in {folder}")
    return 0


def stop(folder: Path, options: argparse.Namespace) -> int:
    """Ends all processes of the cluster, and those that they started, and waits for them."""
    running = [process for process in _processes(folder) if process.runs()]
    everything = [*running, *(below for process in running for below in _descendants(process.pid))]
    for signum in (signal.SIGTERM, signal.SIGKILL):
        for process in everything:
            if process.runs():
                os.kill(process.pid, signum)
        deadline = time.monotonic() + STOP_SECONDS
        while any(process.runs() for process in everything) and time.monotonic() < deadline:
            time.sleep(0.05)
    (folder / "processes.json").unlink(missing_ok=True)
    if options.command == "stop":
        print(f"stopped {len(running)} processes of Flink" if running else f"no cluster runs on port {options.port}")
    return 0


def status(folder: Path, options: argparse.Namespace) -> int:
    """Says what runs; the exit status is 0 if a cluster does, else 1."""
    running = [process for process in _processes(folder) if process.runs()]
    seen = _overview(options.port) if running else None
    if not seen:
        print(f"no cluster runs on port {options.port}" if not running else f"{len(running)} processes, but no answer")
        return 1
    print(
        f"Flink {seen['flink-version']} on http://localhost:{options.port}, {seen['taskmanagers']} TaskManagers,",
        end=" ",
    )
    print(f"{seen['slots-available']} of {seen['slots-total']} slots free, {seen['jobs-running']} jobs running")
    return 0


def _configure(folder: Path, options: argparse.Namespace) -> None:
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    with socket.socket() as one:
        one.bind(("localhost", 0))
        rpc_port = one.getsockname()[1]
    settings = {
        "jobmanager.rpc.address": "localhost",
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": "localhost",
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.host": "localhost",
        "taskmanager.bind-host": "localhost",
        "taskmanager.memory.process.size": "1280m",
        "taskmanager.numberOfTaskSlots": options.slots,
        "parallelism.default": options.taskmanagers * options.slots,
        "rest.address": "localhost",
        "rest.bind-address": "localhost",
        "rest.port": options.port,
        "io.tmp.dirs": folder / "tmp",
        # Without a strategy a killed TaskManager fails the job.
        "restart-strategy.type": "fixed-delay",
        "restart-strategy.fixed-delay.attempts": 3,
        "restart-strategy.fixed-delay.delay": "1 s",
    }
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))
    (folder / "log4j.properties").write_text(LOG4J)


def _launch(launcher: str, home: Path, folder: Path, label: str, main_class: str) -> Process:
    memory, settings = _resources(launcher, home, folder, "TM" if main_class == TASK_MANAGER else "JM")
    words = [launcher, *memory, *JAVA_17, f"-Dlog4j.configurationFile=file:{folder}/log4j.properties"]
    words += ["-classpath", f"{home}/lib/*", main_class, "--configDir", str(folder), *settings]
    with (folder / f"{label}.log").open("w") as log:
        # A session of its own: a Ctrl-C here is not for it.
        child = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder / "tmp", start_new_session=True
        )
    return Process(child.pid, _started(child.pid) or 0)


def _resources(launcher: str, home: Path, folder: Path, kind: str) -> tuple[list[str], list[str]]:
    """Java's memory flags and Flink's settings of a process, as Flink computes them from its configuration."""
    jars = f"{home}/bin/bash-java-utils.jar:{home}/lib/*"
    words = [launcher, "-classpath", jars, "org.apache.flink.runtime.util.bash.BashJavaUtils"]
    done = subprocess.run(
        [*words, f"GET_{kind}_RESOURCE_PARAMS", "--configDir", str(folder)], capture_output=True, text=True
    )
    prefix = "BASH_JAVA_UTILS_EXEC_RESULT:"
    lines = [line.removeprefix(prefix).split() for line in done.stdout.splitlines() if line.startswith(prefix)]
    if done.returncode or not lines:
        raise UsageError(f"Flink cannot compute its memory: {(done.stderr or done.stdout).strip()[-500:]}")
    return lines[0], lines[1] if len(lines) > 1 else []


def _wait_until_ready(folder: Path, options: argparse.Namespace, started: list[Process]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        seen = _overview(options.port)
        if seen and seen["taskmanagers"] == options.taskmanagers:
            return
        if not all(process.runs() for process in started) or time.monotonic() > deadline:
            logs = "\n".join(path.read_text(errors="replace")[-800:] for path in sorted(folder.glob("*.log")))
            raise UsageError(f"the cluster did not start ({folder} has its logs):\n{logs}")
        time.sleep(0.2)


def _overview(port: int) -> dict[str, object] | None:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/overview", timeout=5) as answer:
            return json.load(answer)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("localhost", port))
        except OSError:
            return False
    return True


def _processes(folder: Path) -> list[Process]:
    try:
        return [Process(*one) for one in json.loads((folder / "processes.json").read_text())]
    except (FileNotFoundError, ValueError):
        return []


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: the state, the parent, …; nothing for a process that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _started(pid: int) -> int | None:
    fields = _stat(pid)
    return None if not fields or fields[0] == "Z" else int(fields[19])


def _descendants(pid: int) -> Iterator[Process]:
    parents = {int(path.name): _stat(int(path.name))[1:2] for path in Path("/proc").iterdir() if path.name.isdecimal()}
    pending = [pid]
    while pending:
        parent = pending.pop()
        for child, of in parents.items():
            if of == [str(parent)] and (started := _started(child)) is not None:
                pending.append(child)
                yield Process(child, started)


if __name__ == "__main__":
    sys.exit(main())
