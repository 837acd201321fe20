"""Jobs for Dataflow, as its endpoint gets them; what is refused before; the Flex Template."""

from __future__ import annotations

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
from google.cloud.dataflow import JobType

from beam_jobs import storage
from beam_jobs.cli import flags
from beam_jobs.cli.detect_job import match_inputs, not_here
from beam_jobs.cli.flex_template import flags_of, metadata
from beam_jobs.cli.main import main
from beam_jobs.errors import UsageError
from beam_jobs.runs import layout
from beam_jobs.runs.manifest import Manifest
from tests.dataflow_stand_in import JOB_ID, dataflow_stand_in, do_job, pipeline_file, read_pipeline
from tests.pictures import write_pictures
from tests.test_detect import promised

TEMPLATE = Path(__file__).parent.parent / "scripts" / "dataflow"
FAKE = "--model=tests.fake_detectors:colours"
IMAGE = "europe-docker.pkg.dev/project/repository/beam-detect:1"
CLOUD = ["--runner=DataflowRunner", "--project=some-project", "--region=europe-west1"]


@pytest.fixture(autouse=True)
def options_of_file_systems():
    yield
    storage.set_options([])


def words_for(tmp_path: Path, port: int, *more: str) -> list[str]:
    staging = tmp_path / "staging"
    staging.mkdir(exist_ok=True)
    return [
        "detect",
        f"--input={tmp_path}/in",
        f"--output={tmp_path}/out",
        FAKE,
        *CLOUD,
        f"--temp_location={staging}",
        f"--staging_location={staging}",
        "--no_auth",
        f"--dataflow_endpoint=http://localhost:{port}",
        *more,
    ]


def test_the_job_that_dataflow_gets(tmp_path, capsys):
    write_pictures(tmp_path / "in", 30)
    more = [
        f"--sdk_container_image={IMAGE}",
        "--machine_type=n2-standard-8",
        "--max_num_workers=20",
        "--experiments=one,two",
        "--dataflow_service_options=worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver",
        "--part_size=7",
        "--no_wait",
    ]
    with dataflow_stand_in() as stand_in:
        assert main(words_for(tmp_path, stand_in.port, *more)) == 0
    (job,) = stand_in.jobs
    assert stand_in.other_requests == []  # nobody waited for it

    assert job["path"].startswith("/v1b3/projects/some-project/locations/europe-west1/jobs")
    assert JobType(job["type"]) == JobType.JOB_TYPE_BATCH
    assert re.fullmatch(r"beam-detect-[0-9-]+", job["name"])
    environment = job["environment"]
    (pool,) = environment["workerPools"]
    assert pool["workerHarnessContainerImage"] == IMAGE
    assert [each["containerImage"] for each in pool["sdkHarnessContainerImages"]] == [IMAGE]
    assert pool["machineType"] == "n2-standard-8"
    assert pool["autoscalingSettings"] == {"maxNumWorkers": 20}  # the algorithm is Dataflow's own choice
    assert pool["numThreadsPerWorker"] == 4
    assert {"one", "two", "use_runner_v2", "no_use_multiple_sdk_containers"} <= set(environment["experiments"])
    assert "use_multiple_sdk_containers" not in environment["experiments"]
    assert environment["serviceOptions"] == ["worker_accelerator=type:nvidia-tesla-t4;count:1;install-nvidia-driver"]
    assert not pool.get("packages")  # all is in the image
    sent = environment["sdkPipelineOptions"]["options"]
    assert (sent["project"], sent["region"], sent["sdk_location"]) == ("some-project", "europe-west1", "container")

    transforms = read_pipeline(pipeline_file(job)).components.transforms.values()
    steps = {transform.unique_name for transform in transforms}
    for step in ("ReadPlan/Groups", "DetectObjects/Detect", "WriteParts/CommitPart", "FinishRun/Complete"):
        assert step in steps

    said = capsys.readouterr().out
    assert job["name"] in said
    assert f"https://console.cloud.google.com/dataflow/jobs/europe-west1/{JOB_ID}?project=some-project" in said
    assert not (tmp_path / "out" / layout.MANIFEST).exists()

    # The launcher has ended. What it submitted makes the run whole, and the same as a local one.
    do_job(pipeline_file(job))
    local = ["detect", f"--input={tmp_path}/in", f"--output={tmp_path}/local", FAKE, "--part_size=7"]
    assert main(local) == 0
    assert (tmp_path / "out" / layout.SUCCESS).exists()
    assert promised(tmp_path / "out") == promised(tmp_path / "local")
    there, here = (Manifest.read(str(tmp_path / name)) for name in ("out", "local"))
    assert (there.status, there.counts, there.model) == ("succeeded", here.counts, here.model)
    assert there.stage_s.keys() == here.stage_s.keys()


def test_what_the_user_gives_wins(tmp_path, monkeypatch):
    monkeypatch.setenv("BEAM_DETECT_IMAGE", IMAGE)
    write_pictures(tmp_path / "in", 1)
    more = [
        "--sdk_container_image=mine",
        "--experiments=use_multiple_sdk_containers",
        "--number_of_worker_harness_threads=9",
        "--job_name=my-own",
        "--no_wait",
    ]
    with dataflow_stand_in() as stand_in:
        assert main(words_for(tmp_path, stand_in.port, *more)) == 0
    (job,) = stand_in.jobs
    (pool,) = job["environment"]["workerPools"]
    assert (job["name"], pool["workerHarnessContainerImage"], pool["numThreadsPerWorker"]) == ("my-own", "mine", 9)
    assert "no_use_multiple_sdk_containers" not in job["environment"]["experiments"]


@pytest.mark.slow
def test_a_launcher_that_waits_ends_as_a_local_run_does(tmp_path, capsys):
    write_pictures(tmp_path / "in", 5)
    more = [f"--sdk_container_image={IMAGE}"]
    with dataflow_stand_in(does_jobs=True) as stand_in:
        assert main(words_for(tmp_path, stand_in.port, *more)) == 0
    assert stand_in.other_requests
    assert "pictures      5" in capsys.readouterr().out
    assert (tmp_path / "out" / layout.SUCCESS).exists()


GOOD = {
    "--project": "some-project",
    "--region": "europe-west1",
    "--temp_location": "gs://bucket/tmp",
    "--sdk_container_image": IMAGE,
    "--input": "gs://bucket/in",
    "--output": "gs://bucket/out",
    "--model": "tests.fake_detectors:colours",
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--project": None}, "needs --project"),
        ({"--project": "Not/OK"}, "Not/OK"),
        ({"--region": None}, "needs --region"),
        ({"--temp_location": None}, "needs --temp_location gs://"),
        ({"--temp_location": "/tmp"}, "/tmp"),
        ({"--sdk_container_image": None}, "needs --sdk_container_image IMAGE"),
        ({"--job_name": "Not_OK"}, "Not_OK"),
        ({"--input": "photos"}, "--input photos is on this machine"),
        ({"--output": "out"}, "--output out is on this machine"),
        ({"--model": "."}, "--model . is on this machine"),
        (
            {"--dataflow_service_options": "worker_accelerator=type:a", "--resource_hints": "accelerator=type:a"},
            "ask for GPUs twice",
        ),
    ],
)
def test_refused_before_anything_is_asked_of_the_cloud(changed, said, capsys):
    words = [f"{name}={value}" for name, value in {**GOOD, **changed}.items() if value is not None]
    assert main(["detect", "--runner=DataflowRunner", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_the_lines_of_a_list_are_looked_at_too(tmp_path):
    (tmp_path / "list").write_text(f"{tmp_path}/a.jpg\n")
    beam_args = ["--runner=DataflowRunner"]
    options, _ = flags.parse(["detect", "--output=gs://bucket/out", f"--input_list={tmp_path}/list", *beam_args])
    with pytest.raises(UsageError, match=f"--input_list: the input {tmp_path}/a.jpg is on this machine"):
        list(not_here(options, beam_args, match_inputs(options)))


def test_the_local_engine_cannot_go_on_without_its_launcher(tmp_path, capsys):
    assert main(["detect", f"--input={tmp_path}", f"--output={tmp_path}/out", FAKE, "--no_wait"]) == 2
    assert "name a --runner" in capsys.readouterr().err


def test_no_wait_on_another_runner_gives_a_whole_run(tmp_path, capsys):
    names = write_pictures(tmp_path / "in", 6)
    truth = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names, start=1)],
        "annotations": [],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    words = [f"--input={tmp_path}/in", f"--ground_truth={tmp_path}/truth.json", FAKE, "--no_wait", "--workers=1"]
    runner = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    assert main(["detect", *words, f"--output={tmp_path}/out", runner]) == 0
    assert (tmp_path / "out" / layout.SUCCESS).exists()
    # The evaluation is for afterwards, with the command that was printed.
    said = capsys.readouterr().out
    command = said.partition("then: beam-detect ")[2].splitlines()[0]
    assert main(shlex.split(command)) == 0
    assert (tmp_path / "out" / "evaluation" / "metrics.json").exists()
    assert main(["detect", *words, f"--output={tmp_path}/out", runner, "--overwrite"]) == 0


def test_the_template_has_the_flags_of_the_command_line():
    checked_in = (TEMPLATE / "metadata.json").read_text()
    assert checked_in == metadata(), "run scripts/dataflow/dump-metadata"
    parameters = {each["name"]: each for each in json.loads(checked_in)["parameters"]}
    assert {"input", "output", "model", "min_score", "annotate"} <= parameters.keys()
    assert [name for name, each in parameters.items() if not each["isOptional"]] == ["output"]
    # A value of each kind that a console would send is understood.
    sample = {"BOOLEAN": "true", "NUMBER": "1", "TEXT": "gs://bucket/1"}
    for name, each in parameters.items():
        value = each["enumOptions"][0]["value"] if each["paramType"] == "ENUM" else sample[each["paramType"]]
        value = {
            "tile": "640",
            "tile_overlap": "0.5",
            "start": "00:01:00",
            "end": "90.5",
            "annotate_frames": "1,2",
        }.get(name, value)
        words = list(flags_of([f"--{name}={value}"]))
        given = [] if name == "output" else ["--output=gs://bucket/out"]
        options, rest = flags.parse(["detect", *given, *words])
        assert rest == []
        assert getattr(options, name) not in (None, False, [])


def test_the_launcher_of_the_template_writes_the_job_and_ends(tmp_path, monkeypatch):
    # As Google's launcher calls it: parameters with values, and a file that the job is written to.
    monkeypatch.setenv("BEAM_DETECT_IMAGE", IMAGE)
    write_pictures(tmp_path / "in", 3)
    _, *words = words_for(tmp_path, 1, f"--template_location={tmp_path}/staging/job_object", "--job_name=from-template")
    words += ["--annotate=true", "--dedupe=false", "--min_score=0.25", '--labels={"goog-dataflow-template": "flex"}']
    monkeypatch.setattr("sys.argv", ["launch.py", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(TEMPLATE / "launch.py"), run_name="__main__")
    assert ended.value.code == 0
    job = json.loads((tmp_path / "staging" / "job_object").read_text())
    assert (job["name"], job["labels"]) == ("from-template", {"goog-dataflow-template": "flex"})
    assert job["environment"]["workerPools"][0]["workerHarnessContainerImage"] == IMAGE
    do_job(pipeline_file(job))
    manifest = Manifest.read(str(tmp_path / "out"))
    assert (manifest.status, manifest.counts.annotated, manifest.job["min_score"]) == ("succeeded", 3, 0.25)
