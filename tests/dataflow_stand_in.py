"""A stand-in of Dataflow's endpoint on this machine: it keeps the jobs that are posted to it, and can do them here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.fn_api_runner import FnApiRunner

JOB_ID = "2026-11-26_00_00_00-1234567890"


@dataclass
class StandIn:
    """What was asked of it: each job that was posted, and the number of other requests."""

    port: int
    jobs: list[dict[str, Any]] = field(default_factory=list)
    other_requests: list[str] = field(default_factory=list)
    does_jobs: bool = False


@contextmanager
def dataflow_stand_in(*, does_jobs: bool = False) -> Iterator[StandIn]:
    """Serves on a free port. With `does_jobs` a job is done, by Beam's own runner, before its state is told."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert re.fullmatch(r"/v1b3/projects/[^/]+/locations/[^/]+/jobs(\?.*)?", self.path)
            stand_in.jobs.append({"path": self.path, **job})
            self._answer({"id": JOB_ID, "name": job["name"], "currentState": "JOB_STATE_PENDING"})

        def do_GET(self) -> None:
            stand_in.other_requests.append(self.path)
            if "/messages" in self.path:
                self._answer({})
                return
            state = "JOB_STATE_RUNNING"
            if does_jobs:
                do_job(pipeline_file(stand_in.jobs[-1]))
                state = "JOB_STATE_DONE"
            self._answer({"id": JOB_ID, "name": stand_in.jobs[-1]["name"], "currentState": state})

        def _answer(self, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("localhost", 0), Handler) as server:
        stand_in = StandIn(server.server_address[1])
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            server.shutdown()
            thread.join()


def pipeline_file(job: dict[str, Any]) -> Path:
    """The staged pipeline of a job."""
    return Path(job["environment"]["sdkPipelineOptions"]["options"]["pipelineUrl"])


def read_pipeline(path: Path) -> Any:
    """A staged pipeline."""
    return beam_runner_api_pb2.Pipeline.FromString(path.read_bytes())


def do_job(path: Path, worker: str | None = None) -> None:
    """Does what a staged pipeline says, with its containers replaced.

    Args:
        worker: the command that starts a worker process in their place; None to work in this process.
    """
    pipeline = read_pipeline(path)
    urn = python_urns.EMBEDDED_PYTHON if worker is None else python_urns.SUBPROCESS_SDK
    for environment in pipeline.components.environments.values():
        environment.urn = urn
        environment.payload = (worker or "").encode()
        del environment.dependencies[:]
    result = FnApiRunner().run_via_runner_api(pipeline, PipelineOptions())
    result.wait_until_finish()
