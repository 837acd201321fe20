"""Pictures, models, truths and runs in buckets: real clients, and servers on loopback that speak as the stores do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import matching, storage
from beam_jobs.cli import detect as detect_command
from beam_jobs.cli.main import main
from beam_jobs.formats.tf_example import make_example
from beam_jobs.formats.tfrecord import write_records
from beam_jobs.runs import completion, layout, parts
from beam_jobs.runs.check import check_run
from beam_jobs.runs.folder import files_of_parts
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.parts import read_table
from beam_jobs.storage import objects
from tests.clips import make_clip
from tests.pictures import RED, encode, picture
from tests.store_server import BUCKET, KEY_ID, SECRET, TOKEN, Fault, Store, running

FAKE = "--model=tests.fake_detectors:colours"
#: Waits of the clients are for real stores.
FEW_ATTEMPTS = {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "3"}
TRUTH = {
    "images": [{"id": 7, "file_name": "a 0.png", "width": 40, "height": 30}],
    "annotations": [{"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}],
    "categories": [{"id": 1, "name": "red"}],
}


@pytest.fixture(scope="module", params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with running(request.param) as store:
        yield store


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Store]:
    with running("s3") as store:
        yield store


@pytest.fixture
def store(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    yield from _ready(server, monkeypatch)


@pytest.fixture
def s3(s3_server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    yield from _ready(s3_server, monkeypatch)


def _ready(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server without faults, and an environment that leads to it."""
    server.set_faults()
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
    for name, value in {**server.environment, **keys}.items():
        monkeypatch.setenv(name, value)
    objects.forget_clients()
    yield server
    storage.set_options([])


@pytest.fixture
def top(store: Store, tmp_path: Path) -> str:
    """A place of this test's own."""
    return f"{store.scheme}://{BUCKET}/{tmp_path.name}"


def put_pictures(top: str, count: int = 5) -> None:
    for i in range(count):
        storage.write_atomic(f"{top}/a {i}.png", encode(picture(40, 30, ((5, 5, 25, 25 - i % 9), RED))))


def tree(folder: str) -> dict[str, bytes]:
    """What the promise of bytes covers of a run, by name, without what tells starts apart."""
    names = [found.uri for found in matching.match([folder])]
    promised = ("images/", "detections/", "failures/", "coco/", "annotated/")
    files = {uri[len(folder) + 1 :]: uri for uri in names}
    found = {name: storage.read_bytes(uri) for name, uri in files.items() if name.startswith(promised)}
    assert len({layout.with_mark(name, "") for name in found}) == len(found), "two files of one part"
    return {layout.with_mark(name, ""): data for name, data in found.items()}


class TestObjects:
    def test_write_read_list_remove(self, top: str) -> None:
        odd = f"{top}/w/a [1]*?#%20ü+ .gz"
        storage.write_atomic(odd, b"odd")
        storage.write_atomic(f"{top}/w/sub/empty", b"")
        assert storage.read_bytes(odd) == b"odd"
        assert storage.read_bytes(f"{top}/w/sub/empty") == b""
        assert storage.list_dir(f"{top}/w") == ["a [1]*?#%20ü+ .gz", "sub"]
        assert sorted(e.path for e in storage.walk_remote(f"{top}/w")) == [odd, f"{top}/w/sub/empty"]
        entry = storage.stat_remote(odd)
        assert entry is not None
        assert entry.size == 3
        assert entry.mtime_ns
        assert [storage.is_dir(f"{top}/{name}") for name in ("w", "w/", "ww", "w/sub/empty")] == [1, 1, 0, 0]
        storage.remove(odd)
        assert storage.list_dir(f"{top}/w") == ["sub"]
        assert not storage.exists(odd)

    def test_pieces_of_a_large_object(self, top: str) -> None:
        data = os.urandom(objects._FIRST_BLOCK + 1000)
        storage.write_atomic(f"{top}/large", data)
        storage.write_atomic(f"{top}/exact", data[: objects._FIRST_BLOCK])
        assert storage.read_bytes(f"{top}/large") == data
        assert storage.read_bytes(f"{top}/exact") == data[: objects._FIRST_BLOCK]
        with storage.open_read(f"{top}/large") as file:
            file.seek(-10, os.SEEK_END)
            assert file.read() == data[-10:]
            file.seek(7)
            assert file.read(9) == data[7:16]
            file.seek(len(data) + 5)
            assert file.read() == b""

    def test_what_is_not_there(self, top: str, store: Store) -> None:
        for url in (f"{top}/none", f"{store.scheme}://no-such-bucket/x"):
            for action in (storage.open_read, storage.size, storage.list_dir):
                with pytest.raises(FileNotFoundError):
                    action(url)
            assert not storage.exists(url)
            assert list(storage.walk_remote(url)) == []
        with pytest.raises(FileNotFoundError):
            storage.write_atomic(f"{store.scheme}://no-such-bucket/x", b"")

    @pytest.mark.parametrize("kind", ["503 SlowDown", "500 InternalError", "reset"])
    def test_what_fails_at_first_is_done_again(self, kind: str, top: str, store: Store) -> None:
        store.set_faults(Fault(kind, "*"))
        storage.write_atomic(f"{top}/x", b"data" * 1000)
        assert storage.read_bytes(f"{top}/x") == b"data" * 1000
        assert storage.list_dir(top) == ["x"]
        assert store.injected() >= 3

    def test_a_body_that_breaks_off_is_fetched_again(self, s3: Store, tmp_path: Path) -> None:
        url = f"s3://{BUCKET}/{tmp_path.name}"
        storage.write_atomic(url, b"data" * 1000)
        s3.set_faults(Fault("half"))
        assert storage.read_bytes(url) == b"data" * 1000
        assert s3.injected() == 1

    def test_what_goes_on_failing_says_so(self, s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in FEW_ATTEMPTS.items():
            monkeypatch.setenv(name, value)
        objects.forget_clients()
        s3.set_faults(Fault("503 SlowDown", times=1000))
        with pytest.raises(OSError, match=r"SlowDown \(HTTP 503\)"):
            storage.read_bytes(f"s3://{BUCKET}/x")
        monkeypatch.setenv("AWS_SESSION_TOKEN", "old")
        objects.forget_clients()
        with pytest.raises(PermissionError, match="InvalidToken"):
            storage.write_atomic(f"s3://{BUCKET}/x", b"")


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


@pytest.mark.parametrize("when", ["began", "complete"])
def test_of_two_jobs_in_one_folder_one_ends_and_the_other_says_so(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], when: str
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 4)
    words = ["detect", FAKE, f"--input={top}/in", f"--output={top}/out", "--part_size=2", "--workers=1"]
    original = getattr(detect_command, when)

    def after_another(*given: Any, **more: Any) -> object:
        command = [sys.executable, "-m", "beam_jobs", *words, "--min_score=0.2", "--overwrite"]
        subprocess.run(command, check=True, capture_output=True)
        return original(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(detect_command, when, after_another)
        assert main(words) == 3
    assert "Another beam-detect has begun" in capsys.readouterr().err
    assert list(check_run(f"{top}/out")) == []
    assert Manifest.read(f"{top}/out").job["min_score"] == 0.2


def test_a_job_that_loses_its_folder_while_it_writes_overwrites_nothing(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 4)
    words = ["detect", FAKE, f"--input={top}/in", f"--output={top}/out", "--part_size=2", "--workers=1"]
    original = parts._write_tables

    def after_another(*given: Any) -> object:
        if len(others) == 0:
            command = [sys.executable, "-m", "beam_jobs", *words, "--min_score=0.2", "--overwrite"]
            others.append(subprocess.run(command, check=True, capture_output=True))
        return original(*given)

    others: list[object] = []
    with monkeypatch.context() as patch:
        patch.setattr(parts, "_write_tables", after_another)
        assert main(words) == 3
    assert "Another beam-detect has begun" in capsys.readouterr().err
    assert list(check_run(f"{top}/out")) == []
    assert Manifest.read(f"{top}/out").job["min_score"] == 0.2


def test_what_a_job_left_that_lost_its_folder_is_not_the_others(
    s3: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 4)
    words = ["detect", FAKE, f"--input={top}/in", "--part_size=2", "--workers=1"]
    assert main([*words, "--min_score=0.999", f"--output={top}/theirs"]) == 0
    theirs = [entry.path for entry in storage.walk_remote(f"{top}/theirs") if "/part-" in entry.path]
    assert len(theirs) == 10, "four tables and a record of each part"
    original = completion.complete

    def after_another(*given: Any, **more: Any) -> object:
        for path in theirs:
            storage.write_atomic(path.replace("/theirs/", "/out/"), storage.read_bytes(path))
        return original(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(detect_command, "complete", after_another)
        assert main([*words, f"--output={top}/out"]) == 0
    assert list(check_run(f"{top}/out")) == []
    assert len([entry for entry in storage.walk_remote(f"{top}/out") if "/part-" in entry.path]) == 10
    assert main([*words, f"--output={tmp_path}/local"]) == 0
    assert tree(f"{top}/out") == tree(f"{tmp_path}/local")


def test_a_run_in_a_bucket_that_is_taken_up_has_the_files_of_both_starts(s3: Store, tmp_path: Path) -> None:
    top = f"s3://{BUCKET}/{tmp_path.name}"
    put_pictures(f"{top}/in", 3)
    data = encode(picture(40, 30, ((1, 1, 9, 9), RED)))
    write_records(f"{top}/in/r.tfrecord", [make_example({"image/encoded": data, "image/filename": "a 1.png"})] * 3)
    words = ["detect", FAKE, f"--input={top}/in", "--part_size=2", "--workers=1", "--annotate"]
    assert main([*words, f"--output={tmp_path}/local"]) == 0
    assert main([*words, f"--output={top}/out"]) == 0
    (first,) = {layout.mark_of(path) for path in parts.committed(f"{top}/out").values()}
    for path in ("_SUCCESS", "run.json", parts.committed(f"{top}/out")[0]):
        storage.remove(f"{top}/out/{path}")
    assert main([*words, f"--output={top}/out", "--resume"]) == 0
    marks = {part: layout.mark_of(path) for part, path in parts.committed(f"{top}/out").items()}
    assert marks[0] != first
    assert first in marks.values()
    assert list(check_run(f"{top}/out")) == []
    assert tree(f"{top}/out") == tree(f"{tmp_path}/local")
    assert main([*words, f"--output={top}/out", "--limit=1", "--overwrite"]) == 0
    assert list(check_run(f"{top}/out")) == []
    left = set(files_of_parts(f"{top}/out"))
    assert {layout.part_of(path) for path in left} == {0}


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


@pytest.mark.slow
def test_a_listing_of_100_000_objects(s3: Store) -> None:
    s3.list_many("many/", 100_000)
    code = f"""if True:
        import resource, time
        from beam_jobs import matching
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        found = last = 0
        for one in matching.match(["s3://{BUCKET}/many/*.jpg"]):
            assert found == 0 or one.file_name > last
            found, last = found + 1, one.file_name
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(found, last, grown // 1024, time.process_time() - start)
    """
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    found, last, grown_mb, cpu_s = ran.stdout.split()
    assert (found, last) == ("100000", "099999.jpg")
    assert int(grown_mb) < 100
    assert float(cpu_s) < 60
