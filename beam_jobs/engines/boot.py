"""A worker of a job: asks the runner that started it what the job is, then serves it until either of them ends.

This is what Beam's containers do at their start (https://s.apache.org/beam-fn-api-container-contract), without staged
files: the package is installed where the workers are. What it, its libraries and the detector's processes print goes
to a file of its own, as a runner need not read a pipe; the file goes with the worker if nothing was printed.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from beam_jobs.processes.parent import end_with_parent

#: Names the folder of the log files; without it they are in `beam-detect-workers` below the system's temporary folder.
LOG_FOLDER_VARIABLE = "BEAM_DETECT_WORKER_LOGS"

_PROVISION_SECONDS = 60


def main(words: Sequence[str] | None = None) -> None:
    """Serves one job. Returns when the runner has no more work."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--id", required=True)
    parser.add_argument("--provision_endpoint", required=True)
    parser.add_argument("--semi_persist_dir", default=tempfile.gettempdir())
    # Older runners pass the other endpoints here as well; the provision service gives them, too.
    options, _ = parser.parse_known_args(words)
    worker_id = options.id.strip("'")  # Beam's Prism quotes it
    log = _log_to_file(worker_id)

    def end(*_: object) -> NoReturn:
        _remove_empty(log)
        os._exit(128 + signal.SIGTERM)  # at once: Beam's threads would go on

    signal.signal(signal.SIGTERM, end)  # is how runners end a worker
    end_with_parent()
    info = _provision(options.provision_endpoint, worker_id)
    os.environ.update(_variables(info, worker_id, options.semi_persist_dir))
    # It logs all options of the job, and among them may be keys of file systems.
    logging.getLogger("apache_beam.runners.worker.sdk_worker_main").setLevel(logging.WARNING)
    from apache_beam.runners.worker import sdk_worker_main

    sdk_worker_main.main([])
    _remove_empty(log)


def _log_to_file(worker_id: str) -> Path:
    """Sends standard output and standard error to a file; returns its path."""
    folder = Path(os.environ.get(LOG_FOLDER_VARIABLE) or Path(tempfile.gettempdir(), "beam-detect-workers"))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"worker-{worker_id.replace(os.sep, '_')}-{os.getpid()}.log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    return path


def _remove_empty(log: Path) -> None:
    with contextlib.suppress(OSError):
        if not log.stat().st_size:
            log.unlink()


def _provision(endpoint: str, worker_id: str) -> Any:
    import grpc
    from apache_beam.portability.api import beam_provision_api_pb2, beam_provision_api_pb2_grpc
    from apache_beam.runners.worker.channel_factory import GRPCChannelFactory
    from apache_beam.runners.worker.worker_id_interceptor import WorkerIdInterceptor

    with GRPCChannelFactory.insecure_channel(endpoint) as channel:
        service = beam_provision_api_pb2_grpc.ProvisionServiceStub(
            grpc.intercept_channel(channel, WorkerIdInterceptor(worker_id))
        )
        request = beam_provision_api_pb2.GetProvisionInfoRequest()
        return service.GetProvisionInfo(request, timeout=_PROVISION_SECONDS, wait_for_ready=True).info


def _variables(info: Any, worker_id: str, folder: str) -> dict[str, str]:
    """The environment variables by which Beam's worker knows its job."""
    from google.protobuf import json_format, text_format

    variables = {
        "WORKER_ID": worker_id,
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "SEMI_PERSISTENT_DIRECTORY": folder,
        "LOGGING_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.logging_endpoint),
        "CONTROL_API_SERVICE_DESCRIPTOR": text_format.MessageToString(info.control_endpoint),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }
    if info.status_endpoint.url:
        variables["STATUS_API_SERVICE_DESCRIPTOR"] = text_format.MessageToString(info.status_endpoint)
    return variables


if __name__ == "__main__":
    main()
