"""A real Flink cluster of separate processes, and the program's runs on it.

The cluster and what is asked of it by REST are tested with jobs of Flink's own (SQL). A run on it needs Beam's job
server, which Maven fetches: those tests are skipped where Maven cannot.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import psutil
import pytest

from beam_jobs.engines.flink_rest import FlinkRest, Job
from beam_jobs.engines.job_server import job_server_jar
from beam_jobs.engines.running import RunningJob
from beam_jobs.errors import JobError, UsageError
from beam_jobs.runs.manifest import Manifest
from scripts._flink_libraries import flink_home
from tests.test_elsewhere import contents, detect, folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("javac") is None, reason="there is no Java development kit"),
]
__all__ = ["folder"]

ROOT = Path(__file__).resolve().parent.parent

SUBMIT = """
import org.apache.flink.configuration.Configuration;
import org.apache.flink.table.api.*;

class Submit {
    public static void main(String[] words) throws Exception {
        Configuration settings = new Configuration();
        settings.setString("execution.target", "remote");
        settings.setString("rest.address", "localhost");
        settings.setString("rest.port", words[0]);
        settings.setString("parallelism.default", "1");
        settings.setString("restart-strategy.type", "none");
        TableEnvironment tables = TableEnvironment.create(
            EnvironmentSettings.newInstance().withConfiguration(settings).build());
        tables.executeSql("CREATE TABLE numbers (a INT) WITH ('connector'='datagen', 'rows-per-second'='5')");
        tables.executeSql("CREATE TABLE nothing (a INT) WITH ('connector'='blackhole')");
        tables.getConfig().set("pipeline.name", "endless");
        tables.executeSql("INSERT INTO nothing SELECT a FROM numbers");
        tables.getConfig().set("pipeline.name", "failing");
        tables.executeSql("INSERT INTO nothing SELECT 1 / (a - a) FROM numbers");
    }
}
"""


class Cluster(NamedTuple):
    flink: str
    port: int
    processes: list[psutil.Process]

    @property
    def master(self) -> str:
        return f"localhost:{self.port}"


def flink_cluster(command: str, port: int, *words: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "-P", str(ROOT / "scripts" / "_flink_cluster.py"), command, f"--port={port}", *words]
    known = os.environ | {"PYTHONPATH": str(ROOT)}
    # Not through pipes: the cluster's processes would hold them.
    return subprocess.run(script, env=known, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module", params=["1.20", "2.2"])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Two TaskManagers with two slots each."""
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port = one.getsockname()[1]
    before = set(psutil.pids())
    done = flink_cluster("start", port, f"--flink={request.param}", "--slots=2")
    assert done.returncode == 0, done.stderr
    processes = [one for one in psutil.process_iter() if one.pid not in before and "java" in one.name()]
    ours = [one for one in processes if f"cluster-{port}" in " ".join(one.cmdline())]
    assert len(ours) == 3
    yield Cluster(request.param, port, ours)
    everything = [*ours, *(below for one in ours for below in one.children(recursive=True))]
    assert flink_cluster("stop", port).returncode == 0
    # What nobody waits for stays a zombie, where the first process of the system does not.
    assert not [one for one in everything if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert flink_cluster("status", port).returncode == 1


def test_what_it_says_of_itself(cluster):
    said = flink_cluster("status", cluster.port)
    assert said.returncode == 0
    assert f"Flink {cluster.flink}." in said.stdout
    assert "2 TaskManagers, 4 of 4 slots free" in said.stdout
    again = flink_cluster("start", cluster.port)
    assert (again.returncode, "runs on port" in again.stderr) == (2, True)
    with urllib.request.urlopen(f"http://{cluster.master}/") as page:
        assert b"Apache Flink" in page.read()
    # The loopback address only.
    listening = {
        one.laddr.ip.removeprefix("::ffff:")
        for p in cluster.processes
        for one in p.net_connections("tcp")
        if one.status == "LISTEN"
    }
    assert listening == {"127.0.0.1"}


def test_jobs_by_rest(cluster, tmp_path):
    (tmp_path / "Submit.java").write_text(SUBMIT)
    classes = f"{flink_home(cluster.flink)}/lib/*"
    words = ["java", "-classpath", classes, "Submit.java", str(cluster.port)]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    rest = FlinkRest.of(cluster.master)
    assert rest.version().startswith(f"{cluster.flink}.")
    assert rest.slots() == 4
    assert rest.job("another") is None

    wait_for(lambda: state(rest, "endless") == "RUNNING")
    endless = RunningJob(Submitted(rest, "endless"), "endless", rest)
    assert (endless.where, endless.state()) == (f"endless on http://{cluster.master}", "RUNNING")
    assert endless.cancel()
    assert state(rest, "endless") == "CANCELED"
    with pytest.raises(JobError, match=r"^The job endless on http://localhost:\d+ was cancelled\.$"):
        endless.wait()

    wait_for(lambda: state(rest, "failing") == "FAILED")
    with pytest.raises(JobError, match=r"^/ by zero$"):
        RunningJob(Submitted(rest, "failing"), "failing", rest).wait()


class Submitted:
    """What Beam's runner has of a job that somebody else submitted: it waits, and says that it failed."""

    def __init__(self, rest: FlinkRest, name: str) -> None:
        self._rest, self._name = rest, name

    def cancel(self) -> None:
        raise NotImplementedError

    def wait_until_finish(self) -> None:
        wait_for(lambda: state(self._rest, self._name) in ("FAILED", "CANCELED"))
        raise RuntimeError(f"Pipeline {self._name} failed in state FAILED: unknown error")


def state(rest: FlinkRest, name: str) -> str | None:
    job: Job | None = rest.job(name)
    return job.state if job else None


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@pytest.fixture(scope="module")
def with_job_server(cluster: Cluster) -> Cluster:
    try:
        job_server_jar(cluster.flink, beam.__version__, print)
    except UsageError as error:
        pytest.skip(str(error))
    return cluster


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_the_same_bytes_as_locally(with_job_server, folder, parallelism):
    flags = ["--runner=FlinkRunner", f"--flink_master={with_job_server.master}", f"--parallelism={parallelism}"]
    output = f"flink-{with_job_server.flink}-{parallelism}"
    done = detect(folder, output, *flags)
    assert done.returncode == 0, done.stderr
    assert f"on http://{with_job_server.master}" in done.stdout
    assert Manifest.read(str(folder / output)).detector.processes == parallelism
    assert contents(folder / output) == contents(folder / "local")
    # Workers, and their detector processes, end with the job.
    wait_for(lambda: not [below for one in with_job_server.processes for below in one.children()])


def test_too_many_slots_are_refused(cluster, folder):
    flags = ["--runner=FlinkRunner", f"--flink_master={cluster.master}", "--parallelism=5"]
    done = detect(folder, f"many-{cluster.flink}", *flags)
    assert (done.returncode, "has 4 task slots" in done.stderr) == (2, True)
