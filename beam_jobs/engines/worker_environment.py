"""How a runner elsewhere starts our workers: processes of this package, installed there as it is here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from beam_jobs.engines.boot import LOG_FOLDER_VARIABLE

#: What workers need of the launcher's environment. What is secret is not among it: it would be part of the job, which
#: engines show. Workers have what their engine was started with, besides.
_CARRIED = (
    LOG_FOLDER_VARIABLE,
    "AWS_CA_BUNDLE",
    "AWS_CONFIG_FILE",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_SHARED_CREDENTIALS_FILE",
    "BEAM_DETECT_CACHE",
    "BEAM_DETECT_MODEL_MIRROR",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_CLOUD_PROJECT",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "STORAGE_EMULATOR_HOST",
    "XDG_CACHE_HOME",
)


def process_environment(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Beam's flags for workers that are processes, started by the `boot` of this package."""
    variables = {name: environment[name] for name in _CARRIED if name in environment}
    variables["BEAM_DETECT_WORKER_PYTHON"] = sys.executable
    # As the launcher finds this package, and a detector of the user's own.
    variables["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path if path)
    command = str(Path(__file__).with_name("boot"))
    config = json.dumps({"command": command, "env": variables}, sort_keys=True)
    return ["--environment_type=PROCESS", f"--environment_config={config}"]
