"""Models by a zoo name, a URL, a bucket path: fetched once a host, and known again. Real servers, small files."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from beam_jobs.detectors import archive, catalogue, coco_ssd, download, fetched, sources
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.detectors.cache import sha256_of
from beam_jobs.detectors.zoo import ROOT, ZOO
from beam_jobs.errors import UsageError
from tests.model_server import ZOO_FILES, Fault, ModelServer, archive_of, serving, write_files
from tests.remote_stores import ObjectStore

D0 = "efficientdet_d0_coco17_tpu-32"
TUTORIAL = "centernet_hg104_1024x1024_coco17_tpu-32"
ARCHIVE = archive_of(ZOO_FILES)
OTHER = archive_of({**ZOO_FILES, "saved_model/saved_model.pb": b"Graph"})


def sha256(data: bytes, tmp_path: Path) -> str:
    (tmp_path / "x").write_bytes(data)
    return sha256_of(tmp_path / "x")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "STALL_SECONDS", 0.3)
    monkeypatch.setattr(download, "PAUSES", (0.01, 0.02))
    return tmp_path / "cache"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelServer]:
    with serving() as server:
        server.files[f"/zoo/20200711/{D0}.tar.gz"] = ARCHIVE
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", f"{server.url}/zoo/")
        yield server


def resolve(model: str, said: list[str] | None = None) -> DetectorSpec:
    return catalogue.resolve(model, label_map=None, threads=1, report=(said if said is not None else []).append)


def pins(cache: Path) -> dict[str, dict[str, str]]:
    return dict(json.loads((cache / "models.lock.json").read_text())["models"])


class TestZoo:
    def test_every_model_is_where_it_was_published(self) -> None:
        assert len(ZOO) == 41
        assert sources.find(D0).urls == (f"{ROOT}/20200711/{D0}.tar.gz",)  # type: ignore[union-attr]
        assert sources.find(TUTORIAL).urls == (  # type: ignore[union-attr]
            f"https://download.tensorflow.org/models/object_detection/tf2/20200713/{TUTORIAL}.tar.gz",
            f"https://download.tensorflow.org/models/object_detection/tf2/20200711/{TUTORIAL}.tar.gz",
        )
        for name, model in ZOO.items():
            assert name == model.name
            assert model.extra == ("masks" if "mask" in name else "keypoints" if "kpts" in name else "boxes")
            assert (model.extra_map is None) == (model.extra == "boxes")
            size = model.input_size
            assert size in name or (model.family == "EfficientDet" and int(size.split("x")[0]) % 128 == 0)

    def test_a_name_is_fetched_on_demand_and_once(self, server: ModelServer, cache: Path) -> None:
        said: list[str] = []
        spec = resolve(D0, said)
        assert said == [f"fetching {D0} from {server.url}/zoo/20200711/{D0}.tar.gz …"]
        assert (spec.kind, spec.name, len(spec.categories)) == ("saved_model", D0, 80)
        folder = Path(spec.location).parent
        assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")} == ZOO_FILES
        assert spec == resolve(D0, said)
        assert len(said) == len(server.asked) == 1
        assert sorted(path.name for path in (cache / "models").iterdir()) == [f".{D0}.lock", D0]

    def test_it_is_the_same_detector_as_its_folder(self, server: ModelServer, tmp_path: Path) -> None:
        by_hand = resolve(str(write_files(tmp_path / D0)))
        assert by_hand.label == resolve(D0).label
        assert by_hand.categories == resolve(D0).categories

    def test_the_older_date_is_the_second_choice(self, server: ModelServer) -> None:
        server.files[f"/zoo/20200711/{TUTORIAL}.tar.gz"] = ARCHIVE
        assert resolve(TUTORIAL).name == TUTORIAL
        assert server.asked_for() == [(f"/zoo/{date}/{TUTORIAL}.tar.gz", None) for date in ("20200713", "20200711")]

    @pytest.mark.parametrize("is_archive", [True, False])
    def test_a_folder_as_mirror(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: ModelServer, is_archive: bool
    ) -> None:
        (tmp_path / "mirror" / "20200711").mkdir(parents=True)
        if is_archive:
            (tmp_path / "mirror" / "20200711" / f"{D0}.tar.gz").write_bytes(ARCHIVE)
        else:
            write_files(tmp_path / "mirror" / "20200711" / D0)
        from_server = resolve(D0)
        monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "second"))
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", str(tmp_path / "mirror"))
        spec = resolve(D0)
        assert spec.label == from_server.label
        assert Path(spec.location) == tmp_path / "second" / "models" / D0 / D0 / "saved_model"
        assert (spec.origin.archive_sha256 is not None) is is_archive  # type: ignore[union-attr]

    def test_a_name_that_is_nearly_right(self) -> None:
        with pytest.raises(UsageError, match=rf"efficientdet_d0: did you mean {D0}\?"):
            resolve("efficientdet_d0")


class TestRefused:
    def test_nobody_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", "http://127.0.0.1:9")
        reason = (
            r"Connection refused\. Check the address, the network and the proxy .* let BEAM_DETECT_MODEL_MIRROR name"
        )
        with pytest.raises(
            UsageError, match=rf"http://127\.0\.0\.1:9/20200711/{D0}.tar.gz .*{reason}.* --model its path"
        ):
            resolve(D0)
        monkeypatch.chdir(tmp_path)
        write_files(tmp_path / D0)
        with pytest.raises(UsageError, match=rf"or give --model \./{D0}, the folder that is here\."):
            resolve(D0)

    def test_it_is_nowhere(self, server: ModelServer) -> None:
        dates = rf"20200713/{TUTORIAL}\.tar\.gz is not there .*20200711/{TUTORIAL}\.tar\.gz is not there"
        with pytest.raises(UsageError, match=rf"{dates} \(HTTP 404 Not Found\)\. Check the address"):
            resolve(TUTORIAL)

    def test_a_mirror_folder_without_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", str(tmp_path))
        with pytest.raises(UsageError, match=rf"/20200711/{D0}\.tar\.gz is not there; .*/20200711/{D0} is not there\."):
            resolve(D0)

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (ARCHIVE[: len(ARCHIVE) // 2], r"cannot be unpacked: it is cut off"),
            (b"<!DOCTYPE html>", r"is no model: it is a file, but no \.tar\.gz\."),
            (archive_of({"../../x": b""}), r"cannot be unpacked: it holds a name that leads out of it"),
            (archive_of({"readme": b"x"}), r"as it was fetched: --model .* holds no SavedModel, but readme\."),
            (archive_of({}), r"holds no SavedModel, but nothing\."),
        ],
    )
    def test_what_is_served_is_no_model(self, server: ModelServer, data: bytes, said: str, cache: Path) -> None:
        path = f"/zoo/20200711/{D0}.tar.gz"
        server.files[path] = data
        for _ in range(2):
            with pytest.raises(UsageError, match=f"{D0}.*{said}"):
                resolve(D0)
        assert not list((cache / "models").glob(".*.part*")), "what is wrong with it would stay wrong"

    def test_a_bad_archive_is_not_kept(self, server: ModelServer) -> None:
        path = f"/zoo/20200711/{D0}.tar.gz"
        server.files[path] = ARCHIVE[:-100]
        with pytest.raises(UsageError, match="cut off"):
            resolve(D0)
        server.files[path] = ARCHIVE
        assert resolve(D0).name == D0


class TestPins:
    def test_what_came_first_must_come_again(self, server: ModelServer, cache: Path, tmp_path: Path) -> None:
        path = f"/zoo/20200711/{D0}.tar.gz"
        resolve(D0)
        first, second = sha256(ARCHIVE, tmp_path), sha256(OTHER, tmp_path)
        assert pins(cache)[D0]["archive_sha256"] == first
        server.files[path] = OTHER
        shutil.rmtree(cache / "models")
        both = rf"its sha256 is {second}; .*models\.lock\.json, of its first time, has {first}\."
        with pytest.raises(UsageError, match=rf"{D0} from .*{both} .*beam-detect models fetch {D0} --sha256 {second}"):
            resolve(D0)
        assert pins(cache)[D0]["archive_sha256"] == first
        server.files[path] = ARCHIVE
        resolve(D0)

    def test_a_folder_must_hold_the_same_as_the_archive(
        self, server: ModelServer, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        resolve(D0)
        shutil.rmtree(cache / "models")
        folder = write_files(tmp_path / "mirror" / "20200711" / D0)
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", str(tmp_path / "mirror"))
        resolve(D0)
        shutil.rmtree(cache / "models")
        (folder / "saved_model" / "saved_model.pb").write_bytes(b"Graph")
        with pytest.raises(UsageError, match=r"models\.lock\.json, of its first time, has"):
            resolve(D0)

    def test_a_lock_file_that_cannot_be_read(self, server: ModelServer, cache: Path) -> None:
        cache.mkdir()
        (cache / "models.lock.json").write_text('{"models": 3}')
        with pytest.raises(UsageError, match=r"models\.lock\.json cannot be read: .* Repair it, or remove it"):
            resolve(D0)


FETCH = """
import sys
from beam_jobs.detectors import catalogue
print(catalogue.resolve(sys.argv[1], label_map=None, threads=1).label)
"""


def test_two_processes_download_once(server: ModelServer) -> None:
    server.faults = [Fault("cut", 60_000), Fault("cut", 20_000)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", FETCH, D0]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    labels = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert len(labels) == 1
    assert [range_ for _, range_ in server.asked_for()] == [None, "bytes=59999-", "bytes=79998-"]


class TestUrls:
    def test_an_archive_anywhere(self, server: ModelServer) -> None:
        server.files["/mine/buoys_v2.tar.gz?key=1"] = ARCHIVE
        url = f"{server.url}/mine/buoys_v2.tar.gz?key=1"
        said: list[str] = []
        spec = resolve(url, said)
        assert said == [f"fetching buoys_v2 from {server.url}/mine/buoys_v2.tar.gz?… …"]
        assert spec.name == "buoys_v2"
        assert resolve(url, said) == spec
        assert (len(said), len(server.asked_for())) == (1, 1)

    def test_a_model_that_is_one_file(self, server: ModelServer, cache: Path) -> None:
        server.files["/mine.tflite"] = b"\0\0\0\0TFL3"
        source = sources.find(f"{server.url}/mine.tflite")
        assert source is not None
        origin = fetched.fetch(source, lambda line: None)
        model = fetched.model_in(cache / "models" / origin.entry / origin.name)
        assert (model.name, model.read_bytes()) == ("mine.tflite", b"\0\0\0\0TFL3")

    @pytest.mark.parametrize("path", ["/unpacked.tgz", "/{found}.tgz", "/saved_model.tar.gz"])
    def test_one_that_has_changed_is_refused(self, server: ModelServer, path: str) -> None:
        url = f"{server.url}{path}"
        server.files[path] = ARCHIVE
        resolve(url)
        server.files[path] = OTHER
        with pytest.raises(
            UsageError, match=rf" is not what is expected: .* models fetch {re.escape(url)} --sha256 \w"
        ):
            resolve(url)
        server.files[path] = ARCHIVE
        resolve(url)

    def test_without_its_server_the_cached_one_is_used(self, server: ModelServer) -> None:
        url = f"{server.url}/m.tgz"
        server.files["/m.tgz"] = ARCHIVE
        spec = resolve(url)
        del server.files["/m.tgz"]
        said: list[str] = []
        assert resolve(url, said) == spec
        assert said == [f"whether {url} has changed cannot be told: the cached one is used"]


class TestBuckets:
    @pytest.fixture(autouse=True)
    def bucket(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        monkeypatch.setattr(ObjectStore, "files", files)
        return files

    @pytest.mark.parametrize("end", ["", "/", "/saved_model"])
    def test_a_folder(self, bucket: dict[str, bytes], end: str) -> None:
        bucket.update({f"obj://b/models/mine/{name}": data for name, data in ZOO_FILES.items()})
        bucket["obj://b/models/mine2/x"] = b"not of the model"
        spec = resolve(f"obj://b/models/mine{end}")
        assert spec.name == "mine"
        folder = Path(spec.location).parent
        assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.*")} == ZOO_FILES

    def test_an_archive(self, bucket: dict[str, bytes]) -> None:
        bucket["obj://b/mine.tar.gz"] = ARCHIVE
        assert resolve("obj://b/mine.tar.gz").name == "mine"

    def test_a_change_is_noticed(self, bucket: dict[str, bytes]) -> None:
        bucket["obj://b/mine.tar.gz"] = ARCHIVE
        resolve("obj://b/mine.tar.gz")
        bucket["obj://b/mine.tar.gz"] = archive_of({**ZOO_FILES, "more": b"x" * 10_000})
        with pytest.raises(UsageError, match=r"beam-detect models fetch obj://b/mine\.tar\.gz --sha256"):
            resolve("obj://b/mine.tar.gz")

    def test_the_zoo_mirrored(self, bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        bucket[f"obj://b/zoo/20200711/{TUTORIAL}.tar.gz"] = ARCHIVE
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", "obj://b/zoo")
        assert resolve(TUTORIAL).name == TUTORIAL

    def test_names_that_lead_out(self, bucket: dict[str, bytes], cache: Path) -> None:
        bucket["obj://b/m/../../../../evil"] = b"x"
        with pytest.raises(UsageError, match="holds a name that leads out of it"):
            resolve("obj://b/m")

    def test_a_whole_bucket_is_no_model(self, bucket: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
        bucket.update({f"obj://b/m/{i}": b"x" for i in range(20)})
        monkeypatch.setattr(archive, "MAX_FILES", 10)
        with pytest.raises(UsageError, match=r"obj://b/m holds more than a model may have, 10 files or 8,\d+"):
            resolve("obj://b/m")

    def test_nothing_there_and_no_file_system(self, bucket: dict[str, bytes]) -> None:
        with pytest.raises(UsageError, match=r"^obj://b/none is not there\. Check the address"):
            resolve("obj://b/none")
        with pytest.raises(UsageError, match=r"nofs://b/m cannot be read: no file system for nofs:// is installed"):
            resolve("nofs://b/m")


class TestWorkers:
    """Another host: the same spec, another cache."""

    @pytest.fixture
    def spec(self, server: ModelServer) -> DetectorSpec:
        sent = pickle.dumps(resolve(D0))
        assert len(sent) < 10_000
        return pickle.loads(sent)  # type: ignore[no-any-return]

    @pytest.fixture
    def worker(self, spec: DetectorSpec, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        cache.rename(tmp_path / "elsewhere")
        monkeypatch.delenv("BEAM_DETECT_MODEL_MIRROR")
        monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "worker"))
        return tmp_path / "worker"

    def test_it_is_fetched_from_where_it_was(self, spec: DetectorSpec, worker: Path, server: ModelServer) -> None:
        here = catalogue.on_this_host(spec)
        assert here.location == str(worker / "models" / D0 / D0 / "saved_model")
        assert (Path(here.location) / "saved_model.pb").read_bytes() == b"graph"
        assert replace(here, location="") == replace(spec, location="")
        assert catalogue.on_this_host(here) == here
        assert len(server.asked) == 2

    def test_another_one_is_refused(
        self, spec: DetectorSpec, worker: Path, server: ModelServer, tmp_path: Path
    ) -> None:
        server.files[f"/zoo/20200711/{D0}.tar.gz"] = OTHER
        both = rf"its sha256 is {sha256(OTHER, tmp_path)}; the job was started with {sha256(ARCHIVE, tmp_path)}\."
        with pytest.raises(UsageError, match=rf"{both} It has changed since .*: start the job again\."):
            catalogue.on_this_host(spec)

    def test_another_one_in_its_cache_is_replaced(
        self, spec: DetectorSpec, worker: Path, server: ModelServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = f"/zoo/20200711/{D0}.tar.gz"
        server.files[path] = OTHER
        monkeypatch.setenv("BEAM_DETECT_MODEL_MIRROR", f"{server.url}/zoo")
        assert resolve(D0).fingerprint != spec.fingerprint
        server.files[path] = ARCHIVE
        assert (Path(catalogue.on_this_host(spec).location) / "saved_model.pb").read_bytes() == b"graph"

    def test_coco_ssd_is_made_there(self, worker: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        known = catalogue.CATALOGUE["coco-ssd"]
        monkeypatch.setitem(catalogue.CATALOGUE, "coco-ssd", replace(known, locate=lambda _: tmp_path / "host"))
        sent = resolve("coco-ssd")
        made: list[Path] = []

        def locate(report: object) -> Path:
            made.append(worker)
            return worker

        monkeypatch.setitem(catalogue.CATALOGUE, "coco-ssd", replace(known, locate=locate))
        assert catalogue.on_this_host(sent).location == str(worker / "saved_model")
        assert made == [worker]
        with pytest.raises(UsageError, match="install the same version of beam-detect on all hosts"):
            catalogue.on_this_host(replace(sent, fingerprint=coco_ssd.SOURCE.graph_sha256))
