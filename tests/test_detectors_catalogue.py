"""What --model may name, and what is said of what it may not."""

from __future__ import annotations

import hashlib
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from beam_jobs.detectors import catalogue, coco_ssd, open_detector
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.errors import UsageError

ITEM = 'item {\n  id: 7\n  name: "buoy"\n}\n'


def resolve(model: object, label_map: Path | None = None) -> DetectorSpec:
    return catalogue.resolve(str(model), label_map=None if label_map is None else str(label_map), threads=1)


def make_zoo(folder: Path, config: str | None = None) -> Path:
    """A folder of the zoo's layout. `resolve` never looks into saved_model.pb."""
    variables = folder / "saved_model" / "variables"
    variables.mkdir(parents=True)
    (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
    (variables / "variables.index").write_bytes(b"index")
    if config is not None:
        (folder / "pipeline.config").write_text(config)
    return folder


def test_neither_tensorflow_nor_beam_is_imported(tmp_path: Path) -> None:
    make_zoo(tmp_path / "x_coco17", "num_classes: 90\n")
    code = (
        "import sys; from beam_jobs.detectors import catalogue, open_detector;"
        "catalogue.resolve(sys.argv[1], label_map=None, threads=1);"
        "assert not {'tensorflow', 'apache_beam'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "x_coco17")], env=environment, check=True)


class TestFolders:
    def test_the_zoo_layout_and_its_saved_model_are_the_same_detector(self, tmp_path: Path) -> None:
        zoo = make_zoo(tmp_path / "ssd_coco17_tpu-8")
        outside, inside = resolve(zoo), resolve(zoo / "saved_model")
        assert outside == inside
        assert outside.kind == "saved_model"
        assert outside.name == "ssd_coco17_tpu-8"
        assert outside.location == str(zoo / "saved_model")
        assert outside == pickle.loads(pickle.dumps(outside))

    def test_a_relative_path_becomes_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_zoo(tmp_path / "ssd")
        monkeypatch.chdir(tmp_path)
        assert resolve("ssd").location == str(tmp_path / "ssd" / "saved_model")
        assert resolve("./ssd/saved_model/").name == "ssd"

    def test_a_plain_saved_model_keeps_its_name(self, tmp_path: Path) -> None:
        folder = make_zoo(tmp_path / "zoo") / "saved_model"
        assert resolve(folder.rename(tmp_path / "mine")).name == "mine"

    def test_the_fingerprint_is_of_the_contents(self, tmp_path: Path) -> None:
        first = resolve(make_zoo(tmp_path / "a"))
        copy = tmp_path / "b"
        shutil.copytree(tmp_path / "a", copy)
        (copy / "README").write_text("not of the model")
        assert resolve(copy).fingerprint == first.fingerprint
        assert len(first.fingerprint) == 64
        index = copy / "saved_model" / "variables" / "variables.index"
        index.write_bytes(b"Index")
        changed = resolve(copy).fingerprint
        index.rename(index.with_name("other"))
        assert len({first.fingerprint, changed, resolve(copy).fingerprint}) == 3

    def test_a_folder_without_a_saved_model(self, tmp_path: Path) -> None:
        (tmp_path / "checkpoint").mkdir()
        (tmp_path / "pipeline.config").touch()
        with pytest.raises(UsageError, match=r"but checkpoint/, pipeline\.config\..*saved_model\.pb.*exporter_main_v2"):
            resolve(tmp_path)
        (tmp_path / "many").mkdir()
        for i in range(12):
            (tmp_path / "many" / f"{i:02}.jpg").touch()
        with pytest.raises(UsageError, match=r"07\.jpg and 4 more\."):
            resolve(tmp_path / "many")

    def test_a_file_is_not_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"saved_model\.pb is a file, not a folder\."):
            resolve(make_zoo(tmp_path / "a") / "saved_model" / "saved_model.pb")


class TestCategories:
    @pytest.mark.parametrize(
        ("name", "config"),
        [
            ("renamed", 'num_classes: 90\nlabel_map_path: "PATH_TO_BE_CONFIGURED/label_map.txt"\n'),
            ("renamed", '  num_classes: 90\n  label_map_path: "data/mscoco_label_map.pbtxt"\n'),
            ("d0_coco17", "num_classes: 90\nlabel_map_path: '/data/labels.pbtxt'\n"),
            ("ssd_coco17_tpu-8", None),
        ],
    )
    def test_coco_models_have_cocos(self, tmp_path: Path, name: str, config: str | None) -> None:
        categories = resolve(make_zoo(tmp_path / name, config)).categories
        assert (len(categories), categories[1], categories[90]) == (80, "person", "toothbrush")

    @pytest.mark.parametrize(
        ("name", "config"),
        [
            ("buoys", "num_classes: 90\nlabel_map_path: '/data/labels.pbtxt'\n"),
            ("ssd_coco17", "num_classes: 3\nlabel_map_path: '/data/labels.pbtxt'\n"),
            ("my_coco", None),
        ],
    )
    def test_others_have_none(self, tmp_path: Path, name: str, config: str | None) -> None:
        assert resolve(make_zoo(tmp_path / name, config)).categories == {}

    @pytest.mark.parametrize("place", [".", "assets", "saved_model/assets"])
    def test_the_models_own_label_map_comes_first(self, tmp_path: Path, place: str) -> None:
        zoo = make_zoo(tmp_path / "ssd_coco17", "num_classes: 90\n")
        (zoo / place).mkdir(exist_ok=True)
        (zoo / place / "labels.pbtxt").write_text(ITEM)
        (zoo / "graph.pbtxt").write_text('node {\n  name: "x"\n}\n')
        assert resolve(zoo).categories == {7: "buoy"}

    def test_several_label_maps_need_a_choice(self, tmp_path: Path) -> None:
        zoo = make_zoo(tmp_path / "ssd")
        for name in ("a.pbtxt", "b.pbtxt"):
            (zoo / name).write_text(ITEM)
        with pytest.raises(UsageError, match=r"\(a\.pbtxt, b\.pbtxt\): choose one with --label_map"):
            resolve(zoo)
        assert resolve(zoo, zoo / "b.pbtxt").categories == {7: "buoy"}


class TestNames:
    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ("coco_ssd", r"did you mean coco-ssd\?"),
            ("yolo", "no such name, folder or module"),
            ("", "no such name"),
            ("/nowhere/ssd", "no such name, folder or module"),
        ],
    )
    def test_an_unknown_name(self, model: str, said: str) -> None:
        with pytest.raises(
            UsageError, match=rf"--model {model}: {said}.*\(coco-ssd and the zoo's\), a SavedModel.*:factory"
        ):
            resolve(model)

    def test_the_fingerprint_of_coco_ssd_is_of_its_sources(self) -> None:
        assert catalogue.CATALOGUE[catalogue.DEFAULT].fingerprint == coco_ssd.SOURCE.fingerprint()


FACTORY = """
import numpy as np
from beam_jobs.detectors.base import DetectorInfo
from beam_jobs.records import Detections

class Fake:
    info = DetectorInfo("python")
    def detect(self, pictures):
        nothing = Detections(np.zeros((0, 4), "f4"), np.zeros(0, "f4"), np.zeros(0, "i4"))
        return [nothing for _ in pictures]

def make():
    return Fake()

def named():
    return Fake()
named.categories = {4: "kite"}
named.fingerprint = "weights of May"

def not_one():
    return object()

def breaks():
    raise OSError("no weights")

def odd():
    return Fake()
odd.categories = ["kite"]

number = 3
"""


class TestFactories:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own_detector.py").write_text(FACTORY)
        (tmp_path / "broken_detector.py").write_text("import nothing_like_it")
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.delitem(sys.modules, "own_detector", raising=False)
        monkeypatch.chdir(tmp_path)

    def test_a_module_of_the_current_folder(self) -> None:
        spec = resolve("own_detector:make")
        assert (spec.kind, spec.name, spec.categories) == ("factory", "own_detector:make", {})
        assert spec.fingerprint == hashlib.sha256(FACTORY.encode()).hexdigest()
        assert resolve("own_detector:Fake").fingerprint == spec.fingerprint
        (found,) = open_detector(spec).detect([np.zeros((2, 2, 3), np.uint8)])
        assert len(found) == 0

    def test_what_a_factory_says_of_itself(self, tmp_path: Path) -> None:
        spec = resolve("own_detector:named")
        assert spec.categories == {4: "kite"}
        assert spec.fingerprint == hashlib.sha256(b"weights of May").hexdigest()
        (tmp_path / "labels.pbtxt").write_text(ITEM)
        assert resolve("own_detector:named", tmp_path / "labels.pbtxt").categories == {7: "buoy"}

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ("no_such_detector:make", "no_such_detector cannot be imported: ModuleNotFoundError.*current folder"),
            ("broken_detector:make", "broken_detector cannot be imported: .*nothing_like_it"),
            ("own_detector:mak", r"has no mak; did you mean make\?"),
            ("own_detector:number", "number is of type int"),
            ("own_detector:odd", "`categories` must be a dict of int to str"),
            ("sys:exit", "no source file. Give the factory a `fingerprint`"),
        ],
    )
    def test_refused_before_it_is_called(self, model: str, said: str) -> None:
        with pytest.raises(UsageError, match=f"--model {model}.*{said}"):
            resolve(model)

    @pytest.mark.parametrize(
        ("model", "said"),
        [
            ("own_detector:not_one", "gave a object, which is not a detector: it needs `info`"),
            ("own_detector:breaks", "the factory raised OSError: no weights"),
        ],
    )
    def test_refused_when_opened(self, model: str, said: str) -> None:
        with pytest.raises(UsageError, match=said):
            open_detector(resolve(model))
