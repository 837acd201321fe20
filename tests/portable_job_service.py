"""A job server for tests: Beam's own in Python, which starts workers as Beam's Java runners start those of PROCESS.

Run as `python -m tests.portable_job_service WORKERS`; it prints its port, and ends with its standard input.
What it has in common with Flink: the job comes over the Job API from another process, and workers are processes that
are started with `--id` and `--provision_endpoint` and the variables of the job. What a bundle is, is its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from apache_beam.portability import common_urns
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability import local_job_service
from apache_beam.runners.portability.fn_api_runner import fn_runner, worker_handlers


@worker_handlers.WorkerHandler.register_environment(
    common_urns.environments.PROCESS.urn, beam_runner_api_pb2.ProcessPayload
)
class ProcessWorkerHandler(worker_handlers.GrpcWorkerHandler):
    def __init__(self, payload: Any, *others: Any) -> None:
        super().__init__(*others)
        self._payload = payload

    def start_worker(self) -> None:
        words = [self._payload.command, f"--id={self.worker_id}", f"--provision_endpoint={self.control_address}"]
        # Nobody reads this pipe: what a worker prints must not fill it.
        self._process = subprocess.Popen(words, env={**os.environ, **self._payload.env}, stdout=subprocess.PIPE)

    def stop_worker(self) -> None:
        self._process.terminate()
        self._process.wait()


class Job(local_job_service.BeamJob):
    def _invoke_runner(self) -> Any:
        self.set_state(local_job_service.beam_job_api_pb2.JobState.RUNNING)
        runner = fn_runner.FnApiRunner(provision_info=self._provision_info)
        runner._num_workers = WORKERS
        return runner.run_via_runner_api(self._pipeline_proto, self.pipeline_options())


if __name__ == "__main__":
    WORKERS = int(sys.argv[1])
    service = local_job_service.LocalJobServicer(beam_job_type=Job)
    print(service.start_grpc_server(), flush=True)
    sys.stdin.read()
    # Workers notice that their parent is gone.
    os._exit(0)
