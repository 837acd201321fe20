"""Runs on a runner elsewhere: over Beam's Job API, in workers that our boot program starts.

The job server is Beam's own in Python, as a process of its own (`portable_job_service`); for Flink's see `test_flink`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from beam_jobs.engines import completed
from beam_jobs.engines.faults import reason_in
from beam_jobs.engines.worker_environment import process_environment
from beam_jobs.errors import UsageError
from beam_jobs.runs import progress
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from beam_jobs.transforms.detect import SharedPool
from tests.clips import make_clip, make_sound
from tests.pictures import write_pictures

ROOT = Path(__file__).resolve().parent.parent
FAKE = "--model=tests.fake_detectors:colours"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures in `in`, two bad ones among them, their truth, and a local run with its evaluation in `local`."""
    folder = tmp_path_factory.mktemp("elsewhere")
    names = write_pictures(folder / "in", 60)
    (folder / "in" / "bad.jpg").write_bytes(b"no picture")
    (folder / "in" / "empty.png").write_bytes(b"")
    truth = {
        "images": [{"id": i + 1, "file_name": name, "width": 40, "height": 30} for i, name in enumerate(names)],
        "annotations": [
            {"id": i + 1, "image_id": i + 1, "category_id": i % 3 + 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            for i in range(len(names))
        ],
        "categories": [{"id": i, "name": name} for i, name in enumerate(("red", "green", "blue"), start=1)],
    }
    (folder / "truth.json").write_text(json.dumps(truth))
    done = detect(folder, "local")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    """Beam's flags for a job server with two workers."""
    words = [sys.executable, "-m", "tests.portable_job_service", "2"]
    with subprocess.Popen(
        words, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"--job_endpoint=localhost:{process.stdout.readline().strip()}"
        workers = psutil.Process(process.pid).children(recursive=True)
        process.stdin.close()
        process.wait()
        # They notice that nobody needs them any more.
        assert not psutil.wait_procs(workers, timeout=15)[1]


def words_of(folder: Path, output: str, *words: str, model: str = FAKE) -> list[str]:
    return [
        *(sys.executable, "-m", "beam_jobs", "detect", model, f"--input={folder}/in", f"--output={folder / output}"),
        *("--part_size=7", f"--ground_truth={folder}/truth.json", *words),
    ]


def detect(folder: Path, output: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = words_of(folder, output, *words)
    known = os.environ | environment
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=known, timeout=300)


def contents(run: Path) -> dict[str, bytes]:
    """All that a run and its evaluation say, but for when, how fast and where to."""
    folders = ("images", "detections", "failures", "coco", "evaluation")
    files = [path for folder in folders for path in sorted((run / folder).rglob("*")) if path.is_file()]
    own = ("metrics.json", "report.html")  # they name the run
    found = {str(path.relative_to(run)): path.read_bytes() for path in files if path.name not in own}
    metrics = json.loads((run / "evaluation" / "metrics.json").read_text())
    return {**found, "metrics": json.dumps([metrics["metrics"], metrics["counts"], metrics["errors"]]).encode()}


def test_the_same_bytes_as_locally(folder, service):
    done = detect(folder, "out", "--runner=PortableRunner", service)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^job +beam-detect-\w+$", done.stdout, re.MULTILINE)
    manifest = Manifest.read(str(folder / "out"))
    assert (manifest.status, manifest.counts.inputs, manifest.counts.failed) == ("succeeded", 62, 2)
    # Both workers were at work, with one process each.
    assert (manifest.detector.processes, manifest.detector.loads) == (2, 2)
    assert contents(folder / "out") == contents(folder / "local")
    assert not (folder / "out" / progress.FOLDER).exists()


@pytest.mark.slow
def test_clips_have_the_same_bytes_as_locally(tmp_path, service):
    make_clip(tmp_path / "in/a.mp4", 230, options={"bf": "2"}, audio=True)
    make_clip(tmp_path / "in/b.avi", 20, options={"bf": "2"})
    (tmp_path / "in/sound.mp4").write_bytes(make_sound(tmp_path / "sound.mp4").read_bytes())
    found = []
    for output, words in (("local", []), ("out", ["--runner=PortableRunner", service])):
        command = [sys.executable, "-m", "beam_jobs", "detect", FAKE, f"--input={tmp_path}/in", "--part_size=2"]
        command += [f"--output={tmp_path / output}", "--annotate", "--annotate_every=50", "--track", *words]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert list(check_run(str(tmp_path / output))) == []
        folders = ("images", "detections", "failures", "tracks", "coco", "annotated")
        files = [path for folder in folders for path in sorted((tmp_path / output / folder).rglob("*.*"))]
        found.append({str(path.relative_to(tmp_path / output)): path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert {"annotated/a.mp4", "annotated/b.avi.mp4", "annotated/a.mp4#000050.jpg"} <= found[0].keys()
    assert Manifest.read(str(tmp_path / "out")).counts.images == 250


@pytest.mark.slow
def test_an_error_of_a_worker_is_one_line_of_python(folder, service):
    model = "tests.fake_detectors:only_with_marker"
    # Workers have the environment of the service that starts them, which has no marker.
    done = detect(
        folder, "refused", "--runner=PortableRunner", service, f"--model={model}", BEAM_DETECT_TEST_MARKER="1"
    )
    assert done.returncode == 2
    *_, last = done.stderr.strip().splitlines()
    assert last == f"beam-detect: error: --model {model}: the factory raised ValueError: no weights here"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_asks_and_leaves_the_job_running(folder, service):
    command = words_of(folder, "left", "--runner=PortableRunner", service, model="--model=tests.fake_detectors:Slow")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    left = folder / "left"
    wait_for(lambda: progress.read_progress(str(left)).pictures > 0)
    process.send_signal(signal.SIGINT)
    said = read_until(ours, "leave it running] ")
    assert "Cancel the job beam-detect-" in said
    assert "2 failed" in said or "of 62 pictures" in said
    os.write(ours, b"n\n")
    said = read_until(ours, None)
    assert process.wait() == 130
    assert "is left running. The job goes on;" in " ".join(said.split())
    os.close(ours)
    # It is complete in the end.
    wait_for(lambda: (left / "run.json").exists())
    assert Manifest.read(str(left)).counts.inputs == 62


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def read_until(terminal: int, text: str | None) -> str:
    said = b""
    with contextlib.suppress(OSError):  # which is how a terminal ends
        while text is None or text.encode() not in said:
            chunk = os.read(terminal, 4096)
            if not chunk:
                break
            said += chunk
    return said.decode()


def test_what_the_user_gives_wins(tmp_path):
    jar = tmp_path / "mine.jar"
    jar.touch()
    given = ["--runner=FlinkRunner", "--flink_master=[local]", f"--flink_job_server_jar={jar}", "--parallelism=3"]
    added = completed(given)[len(given) :]
    assert not [
        flag for flag in added if flag.startswith(("--flink_job_server_jar", "--parallelism", "--flink_master"))
    ]
    assert {"--environment_type=PROCESS", "--flink_version=1.20", "--execution_mode_for_batch=BATCH"} <= set(added)
    own = [*given, "--environment_type=EXTERNAL", "--environment_config=localhost:5", "--job_name=mine"]
    added = completed(own)[len(own) :]
    assert not [flag for flag in added if flag.startswith(("--environment", "--job_name"))]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--flink_master=localhost:1"], "no Flink cluster answers at http://localhost:1"),
        (["--flink_master=[local]"], "there is no java"),
        (["--flink_master=[local]", "--job_server_java_launcher=/bin/true"], "there is no mvn"),
        (["--flink_master=[local]", "--requirements_file=r.txt"], "--requirements_file has no use here"),
    ],
)
def test_what_is_missing_is_said(words, message, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match=re.escape(message)):
        completed(["--runner=FlinkRunner", *words])


def test_workers_get_no_secrets_but_know_the_way():
    variables = {"AWS_SECRET_ACCESS_KEY": "hidden", "AWS_PROFILE": "mine", "HOME": "/home/me"}
    flag = process_environment(variables)[1]
    config = json.loads(flag.removeprefix("--environment_config="))
    assert "hidden" not in flag
    assert set(config["env"]) == {"AWS_PROFILE", "BEAM_DETECT_WORKER_PYTHON", "PYTHONPATH"}
    assert os.access(config["command"], os.X_OK)


def test_a_pool_grows_with_its_users():
    class Pool:
        size = 1

        def grow(self, processes: int) -> None:
            self.size = max(self.size, processes)

        def close(self) -> None:
            self.size = 0

    def closed_by(stack, pool):
        stack.callback(pool.close)
        return pool

    pool = Pool()
    shared = SharedPool(lambda stack: closed_by(stack, pool), grow_to=3)
    sizes = [shared.acquire().size for _ in range(4)]
    assert sizes == [1, 2, 3, 3]
    for _ in sizes:
        shared.release()
    assert pool.size == 0


JAVA = """java.util.concurrent.ExecutionException: java.lang.RuntimeException: Error received from SDK harness for \
instruction 4: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1501, in process
    return self.do_fn_invoker.invoke_process(windowed_value)
  File "/app/beam_jobs/runs/parts.py", line 160, in _account
    raise JobError(
beam_jobs.errors.JobError: Part 3 does not add up: 7 inputs.

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "apache_beam/runners/worker/sdk_worker.py", line 312, in _execute
    response = task()
beam_jobs.errors.JobError: Part 3 does not add up: 7 inputs. [while running 'WriteParts/CommitPart']

\tat java.base/java.util.concurrent.CompletableFuture.reportGet(CompletableFuture.java:396)
\tat org.apache.beam.sdk.util.MoreFutures.get(MoreFutures.java:59)
Caused by: java.lang.RuntimeException: Error received from SDK harness for instruction 4
\t... 7 more
"""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (JAVA, "Part 3 does not add up: 7 inputs."),
        ("beam_jobs.errors.JobError: Part 1: no. [while running 'x']", "Part 1: no."),
        ("a.B: Job failed.\n\tat a.B.c(B.java:1)\nCaused by: a.NoSlots: no slots left\n\t... 3 more", "no slots left"),
        ("Pipeline x failed in state FAILED: unknown error", "Pipeline x failed in state FAILED: unknown error"),
        ("", ""),
    ],
)
def test_the_reason_of_a_failure(text, reason):
    assert reason_in(text) == reason
