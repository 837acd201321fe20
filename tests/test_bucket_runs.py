"""Pictures, models, truths and runs in buckets; see `test_object_stores`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from beam_jobs import storage
from beam_jobs.cli.main import main
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs.check import check_run
from beam_jobs.runs.folder import files_of_parts
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.parts import read_table
from tests.buckets import FAKE, FEW_ATTEMPTS, put_pictures, tree
from tests.clips import make_clip
from tests.pictures import RED, encode, picture
from tests.store_server import BUCKET, KEY_ID, SECRET, TOKEN, Fault, Store

TRUTH = {
    "images": [{"id": 7, "file_name": "a 0.png", "width": 40, "height": 30}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "red"}],
}


def run_in_a_bucket(top: str, tmp_path: Path) -> None:
    """A run of pictures and records, in a bucket and locally: the same bytes, and nothing besides."""
    put_pictures(f"{top}/in")
    data = encode(picture(40, 30, ((1, 1, 9, 9), RED)))
    example = make_example({"image/encoded": data, "image/filename": "r.png"})
    write_records(f"{top}/in/r.tfrecord", [example] * 3)
    storage.write_atomic(f"{top}/truth.json", json.dumps(TRUTH).encode())
    words = [FAKE, f"--input={top}/in", f"--ground_truth={top}/truth.json", "--part_size=2", "--annotate"]
    assert main(["detect", f"--output={top}/out", *words]) == 0
    assert main(["detect", f"--output={tmp_path}/local", *words]) == 0
    remote = tree(f"{top}/out")
    assert remote == tree(f"{tmp_path}/local")
    assert len([name for name in remote if name.startswith("images/")]) == 3

    manifest = Manifest.read(f"{top}/out")
    assert manifest.status == "succeeded"
    assert manifest.counts.images == 8
    assert manifest.known_image_ids == 1
    # What the manifest names is all that there is, but for the log.
    named = {file.path for file in manifest.files} | {"run.json", "_SUCCESS"}
    there = {entry.path[len(top) + 5 :] for entry in storage.walk_remote(f"{top}/out")}
    drawn = {name for name in there if name.startswith("annotated/")}
    logs = sorted(name for name in there if name.startswith("log/"))
    assert there - drawn - set(logs) == named
    lines = [json.loads(line) for name in logs for line in storage.read_bytes(f"{top}/out/{name}").splitlines()]
    assert [line["code"] for line in lines][-1] == "finished"
    assert sum(line["code"] == "committed" for line in lines) == 3
    assert len(drawn) == manifest.counts.annotated == 8
    assert main(["detect", f"--output={top}/out", *words]) == 2, "it holds a run"


def test_a_run_in_a_bucket_has_the_bytes_of_a_local_one(s3: Store, tmp_path: Path) -> None:
    run_in_a_bucket(f"s3://{BUCKET}/{tmp_path.name}", tmp_path)


@pytest.mark.slow
def test_what_else_is_done_with_a_run_in_a_bucket(top: str, tmp_path: Path) -> None:
    run_in_a_bucket(top, tmp_path)
    assert main(["report", f"{top}/out", f"--output={top}/report.html"]) == 0
    assert b"a 0.png" in storage.read_bytes(f"{top}/report.html")
    evaluate = ["evaluate", f"--detections={top}/out", f"--ground_truth={top}/truth.json"]
    assert main([*evaluate, f"--output={top}/metrics"]) == 0
    metrics = json.loads(storage.read_bytes(f"{top}/metrics/metrics.json"))
    assert metrics["metrics"] == json.loads(storage.read_bytes(f"{top}/out/evaluation/metrics.json"))["metrics"]
    assert main(["detect", f"--output={top}/out", FAKE, f"--input={top}/in", "--limit=1", "--overwrite"]) == 0
    assert not [name for name in tree(f"{top}/out") if name.startswith("annotated/")]


def test_clips_in_a_bucket(s3: Store, tmp_path: Path) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    for name in ("a.mp4", "b.avi"):
        clip = make_clip(tmp_path / name, 60, options={"bf": "2"}, audio=name == "a.mp4")
        storage.write_atomic(f"{top}/in/{name}", clip.read_bytes())
    words = [FAKE, f"--input={top}/in", "--annotate", "--annotate_every=25", "--track"]
    for output in (f"{top}/out", f"{tmp_path}/local"):
        assert main(["detect", f"--output={output}", *words]) == 0
        assert list(check_run(output)) == []
    remote = tree(f"{top}/out")
    assert remote == tree(f"{tmp_path}/local")
    assert {"annotated/a.mp4", "annotated/b.avi.mp4", "annotated/b.avi#000025.jpg"} <= remote.keys()
    manifest = Manifest.read(f"{top}/out")
    assert (manifest.counts.images, manifest.annotated_clips) == (120, 2)
    assert main(["report", f"{top}/out", f"--output={tmp_path}/report.html"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "cannot be" not in page
    assert page.count("data:image/jpeg") >= 2


def test_lists_label_maps_and_ids_in_a_bucket(s3: Store, tmp_path: Path) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 1)
    storage.write_atomic(f"{top}/list.txt", f"{top}/in/a 0.png\n{top}/in/none.png\n".encode())
    storage.write_atomic(f"{top}/truth.json", json.dumps(TRUTH).encode())
    storage.write_atomic(f"{top}/names.pbtxt", b"item { id: 1 name: 'scarlet' }")
    files = [f"--input_list={top}/list.txt", f"--image_ids={top}/truth.json", f"--label_map={top}/names.pbtxt"]
    assert main(["detect", FAKE, *files, f"--root={top}/in", f"--output={top}/out"]) == 0
    manifest = Manifest.read(f"{top}/out")
    assert manifest.counts.failures == {"not_found": 1}
    assert manifest.known_image_ids == 1
    assert b'"scarlet"' in storage.read_bytes(f"{top}/out/coco/dataset.json")


def test_options_reach_the_detector_processes_and_secrets_reach_nothing(
    s3: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in")
    options = [f"--s3_endpoint_url={s3.endpoint}", "--s3_region_name=eu-west-1", f"--s3_access_key_id={KEY_ID}"]
    options += ["--s3_secret_access_key", SECRET, f"--s3_session_token={TOKEN}"]
    command = [sys.executable, "-m", "beam_jobs", "detect", FAKE, f"--input={top}/in", f"--output={top}/out"]
    command += ["--verbose", "--annotate", "--workers=2", "--model=tests.fake_detectors:shows_its_command", *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ran = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr.decode()
    manifest = Manifest.read(f"{top}/out")
    assert "--s3_secret_access_key" in manifest.command
    assert f"--s3_endpoint_url={s3.endpoint}" in manifest.command
    shown = {"stdout": ran.stdout, "stderr": ran.stderr}
    shown |= {entry.path: storage.read_bytes(entry.path) for entry in storage.walk_remote(f"{top}/out")}
    assert b"beam_jobs.processes.child" in ran.stderr, "the command lines of the detector processes"
    capsys.readouterr()
    assert main([*command[3:], "--overwrite", "--s3_access_key_id=AKIAWRONG"]) == 2
    printed = capsys.readouterr()
    assert "Permission denied (InvalidAccessKeyId)" in printed.err
    shown["wrong"] = (printed.out + printed.err).encode()
    for secret in (SECRET, TOKEN):
        assert [name for name, text in shown.items() if secret.encode() in text] == []


@pytest.mark.slow
def test_thousands_of_pictures_through_faults(s3: Store, tmp_path: Path) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda i: storage.write_atomic(f"{top}/in/{i:04d}.png", small_picture(i)), range(3000)))
    words = ["detect", FAKE, f"--input={top}/in", "--workers=2"]
    assert main([*words, f"--output={top}/calm"]) == 0
    s3.set_faults(
        Fault("503 SlowDown", "GET", "/in/.*3.png"),
        Fault("500 InternalError", "GET", "/in/.*5.png"),
        Fault("reset", "GET", "/in/.*07.png"),
        Fault("half", "GET", "/in/.*09.png"),
        Fault("503 SlowDown", "PUT", "/out/"),
        Fault("reset", "PUT", "/out/.*part-00003"),
    )
    assert main([*words, f"--output={top}/out"]) == 0
    assert s3.injected() > 600
    assert tree(f"{top}/out") == tree(f"{top}/calm")
    manifest = Manifest.read(f"{top}/out")
    assert (manifest.inputs.parts, manifest.counts.images, manifest.counts.failed) == (6, 3000, 0)


def small_picture(i: int) -> bytes:
    return encode(picture(12 + i % 20, 16, ((2, 2, 9, 9), RED)))


@pytest.mark.slow
def test_what_a_store_never_gives_is_a_failure_and_what_it_never_takes_ends_the_run(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in")
    for name, value in FEW_ATTEMPTS.items():
        monkeypatch.setenv(name, value)
    s3.set_faults(Fault("503 SlowDown", "GET", "a 1.png", 1000), Fault("403 AccessDenied", "GET", "a 3.png", 1000))
    assert main(["detect", FAKE, f"--input={top}/in", f"--output={top}/out"]) == 0
    (failures,) = Manifest.read(f"{top}/out").counts.failures.items()
    assert failures == ("unreadable", 2)
    (path,) = (path for path in files_of_parts(f"{top}/out") if path.startswith("failures/"))
    table = read_table(f"{top}/out", path).to_pylist()
    assert [(row["file_name"], row["message"]) for row in table] == [
        ("a 1.png", "The file cannot be read: the store says SlowDown (HTTP 503)."),
        ("a 3.png", "The file cannot be read: there is no permission to read it."),
    ]
    for what, path in (("a table", "images/part-00001"), ("the manifest", "run.json")):
        s3.set_faults(Fault("503 SlowDown", "PUT", path, 1000))
        output = f"{top}/{what}"
        capsys.readouterr()
        assert main(["detect", FAKE, f"--input={top}/in", f"--output={output}", "--part_size=2"]) == 3
        assert f"{output}/{path}" in (printed := capsys.readouterr().err)
        assert "SlowDown (HTTP 503)" in printed
        assert not storage.exists(f"{output}/run.json")
        assert not storage.exists(f"{output}/_SUCCESS")
        s3.set_faults()
        assert main(["report", output, f"--output={tmp_path}/r.html"]) == 2
        assert main(["detect", FAKE, f"--input={top}/in", f"--output={output}", "--overwrite"]) == 0
