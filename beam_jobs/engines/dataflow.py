"""Google Cloud Dataflow: the flags that it needs, and where a job can be seen."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from beam_jobs import storage
from beam_jobs.errors import UsageError

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
    from apache_beam.runners.runner import PipelineResult

_SUBMITTER = "disable_logging_submission_environment"
#: The image of the workers, where `--sdk_container_image` does not name one. Our image sets it to its own name.
IMAGE_VARIABLE = "BEAM_DETECT_IMAGE"
#: Bundles that a worker does at a time. One bundle keeps all detector processes busy but at its end, where the next
#: one is to be there, and a part may have to be written; more would only hold more groups in memory.
THREADS = 4

_CONTAINERS = "use_multiple_sdk_containers"
_PAGE = "https://cloud.google.com/dataflow/docs"


def completed(beam_args: Sequence[str]) -> list[str]:
    """Beam's flags with those added that are ours to know; what is given already stays as it is.

    Raises:
        UsageError: a flag that Dataflow needs is missing or wrong.
    """
    if find_spec("google") is None or find_spec("google.cloud.dataflow") is None:
        raise UsageError("--runner DataflowRunner needs Google's clients: pip install 'beam-detect[dataflow]'.")
    from apache_beam.options.pipeline_options import PipelineOptions

    options = PipelineOptions(list(beam_args))
    _check(options)
    return [*beam_args, *_additions(options)]


def check_paths(
    beam_args: Sequence[str], paths: Iterable[tuple[str, str]], in_image: Iterable[tuple[str, str]]
) -> None:
    """Refuses files and folders that the workers could not open, as `engines.check_paths`."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, WorkerOptions

    options = PipelineOptions(list(beam_args))
    if _is_stand_in(options.view_as(GoogleCloudOptions)):
        return  # its workers, if there are any, are here
    is_our_image = options.view_as(WorkerOptions).sdk_container_image == os.environ.get(IMAGE_VARIABLE)
    for flag, path in (*paths, *(() if is_our_image else in_image)):
        if not storage.is_remote(path):
            raise UsageError(f"{flag} {path} is on this machine, where Dataflow's workers cannot see it: use gs://…")


def described(result: PipelineResult, beam_args: Sequence[str]) -> list[tuple[str, str]]:
    """What is to be said of a job that was submitted, as pairs of a name and a text."""
    from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

    options = PipelineOptions(list(beam_args)).view_as(GoogleCloudOptions)
    if not result.has_job:
        return [("job template", options.template_location)]
    console = "https://console.cloud.google.com/dataflow/jobs"
    job = result.job_id()
    return [
        ("job", f"{options.job_name}, {job}"),
        ("console", f"{console}/{options.region}/{job}?project={options.project}"),
    ]


def _is_stand_in(cloud: GoogleCloudOptions) -> bool:
    """Whether jobs go to a stand-in of Dataflow's on this machine, as Beam sees it."""
    return (urlsplit(cloud.dataflow_endpoint or "").hostname or "").startswith("localhost")


def _check(options: PipelineOptions) -> None:
    from apache_beam.options.pipeline_options import GoogleCloudOptions, WorkerOptions
    from apache_beam.options.pipeline_options_validator import PipelineOptionsValidator

    cloud = options.view_as(GoogleCloudOptions)
    needed = (
        ("project", "PROJECT", "whose Dataflow does the job"),
        ("region", "REGION", "where the workers are, as europe-west1"),
        ("temp_location", "gs://BUCKET/FOLDER", "where Dataflow keeps what it needs meanwhile"),
    )
    for name, value, meaning in needed:
        if not getattr(cloud, name):
            raise UsageError(f"--runner DataflowRunner needs --{name} {value}: {meaning}.")
    # The parts of Beam's check that look at the words alone: the rest asks the cloud, which takes its time.
    if not _is_stand_in(cloud):
        validator = PipelineOptionsValidator(options, None)
        faults = validator.validate_cloud_options(cloud) + validator.validate_gcs_path(cloud, "temp_location")
        if faults:
            raise UsageError(f"--runner DataflowRunner: {' '.join(faults)}")
    if not options.view_as(WorkerOptions).sdk_container_image and not os.environ.get(IMAGE_VARIABLE):
        raise UsageError(
            "--runner DataflowRunner needs --sdk_container_image IMAGE: a container image with beam-detect in it, which"
            " scripts/dataflow/Dockerfile makes."
        )
    accelerators = [
        option for option in cloud.dataflow_service_options or () if option.startswith("worker_accelerator")
    ]
    if accelerators and any(
        hint.startswith(("accelerator=", "beam:resources:accelerator")) for hint in _hints(options)
    ):
        raise UsageError(
            f"--dataflow_service_options {accelerators[0]} and --resource_hints accelerator=… ask for GPUs twice: give"
            f" one of them ({_PAGE}/gpu/use-gpus)."
        )


def _hints(options: PipelineOptions) -> list[str]:
    from apache_beam.options.pipeline_options import StandardOptions

    return list(options.view_as(StandardOptions).resource_hints or ())


def _additions(options: PipelineOptions) -> Iterator[str]:
    from apache_beam.options.pipeline_options import DebugOptions, GoogleCloudOptions, SetupOptions, WorkerOptions

    debug = options.view_as(DebugOptions)
    if not options.view_as(GoogleCloudOptions).job_name:
        yield f"--job_name=beam-detect-{datetime.now():%Y%m%d-%H%M%S-%f}"
    if not options.view_as(WorkerOptions).sdk_container_image:
        yield f"--sdk_container_image={os.environ[IMAGE_VARIABLE]}"
    if options.view_as(SetupOptions).sdk_location == "default":
        yield "--sdk_location=container"  # else the launcher may fetch Beam, to stage what the image has already
    given = [experiment.strip() for each in debug.experiments or () for experiment in each.split(",")]
    if "use_runner_v2" not in given:
        yield "--experiments=use_runner_v2"
    if _SUBMITTER not in given:
        yield f"--experiments={_SUBMITTER}"  # a list of what is installed here, where nothing of it is used
    # Beam's default is a container for each core, each of which would start as many detector processes as cores.
    if not {_CONTAINERS, f"no_{_CONTAINERS}"} & set(given):
        yield f"--experiments=no_{_CONTAINERS}"
    if debug.number_of_worker_harness_threads is None:
        yield f"--number_of_worker_harness_threads={THREADS}"
