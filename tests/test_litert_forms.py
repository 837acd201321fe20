"""The LiteRT form of the Object Detection API's SSDs and CenterNets: used where it finds what the SavedModel finds."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.detectors import catalogue, form_making, litert_forms, open_detector
from beam_jobs.detectors.agreement import Limits, disagreement
from beam_jobs.detectors.base import DetectorSpec, Engine, Picture
from beam_jobs.detectors.litert_form import Form
from beam_jobs.detectors.od_api import environment, export
from beam_jobs.detectors.scenes import scenes
from beam_jobs.runs.manifest import Manifest
from tests import api_models
from tests.form_makers import run_here


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    api_models.build(folder, *api_models.SSDS, "centernet")
    return folder


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(form_making, "run_quietly", run_here)
        yield


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))


#: Stands for the Object Detection API: puts what it exported before in place.
STAND_IN = """
import json, os, shutil, sys
fd, config, prefix, output, label_map = sys.argv[1:]
shutil.copytree(os.environ["EXPORTED"], output + "/saved_model")
print(json.dumps({"done": {}}), file=open(int(fd), "w"))
"""


@pytest.fixture(scope="module")
def training(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a checkpoint, of which the stand-in makes the SSD."""
    folder = tmp_path_factory.mktemp("training")
    for ending in ("index", "data-00000-of-00001"):
        (folder / f"ckpt-1.{ending}").touch()
    shutil.copyfile(models / "ssd" / "pipeline.config", folder / "pipeline.config")
    (folder / "stand_in.py").write_text(STAND_IN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_PROGRAM", folder / "stand_in.py")
        patch.setattr(environment, "ensure", lambda report: Path(sys.executable))
        patch.setenv("EXPORTED", str(models / "ssd" / "saved_model"))
        yield folder


def export_words(training: Path, output: Path) -> list[str]:
    files = [f"--pipeline_config={training / 'pipeline.config'}", f"--checkpoint={training}"]
    return ["export", *files, f"--output={output}", "--engine=litert"]


@pytest.fixture(scope="module")
def made(training: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SSD, exported with its LiteRT form."""
    folder = tmp_path_factory.mktemp("made") / "ssd"
    assert main(export_words(training, folder)) == 0
    assert {path.name for path in (folder / "litert").iterdir()} == {"form.json", "network.tflite", "verdict.json"}
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with a few pictures."""
    folder = tmp_path / "in"
    folder.mkdir()
    for i, picture in enumerate(pictures()):
        Image.fromarray(picture).save(folder / f"{i}.png")
    return folder


def copy(model: Path, to: Path) -> Path:
    return Path(shutil.copytree(model, to))


def pictures() -> list[Picture]:
    """Of several proportions, also smaller than the network's input, and one of a single colour."""
    wide, tall = scenes()[0], scenes()[1].transpose(1, 0, 2)
    return [wide, np.ascontiguousarray(tall), wide[:97, :61], wide[:128, :128], np.full((50, 200, 3), 130, np.uint8)]


def resolve(model: Path, engine: Engine = "auto") -> DetectorSpec:
    return catalogue.resolve(str(model), label_map=None, threads=1, engine=engine)


def make_beside(model: Path) -> str | None:
    return litert_forms.make_beside(resolve(model, "tensorflow"), lambda line: None)


def detect(photos: Path, model: Path, output: Path, *words: str) -> Manifest:
    job = ["detect", f"--input={photos}", f"--model={model}", f"--output={output}", "--workers=1", *words]
    assert main(job) == 0
    return Manifest.read(str(output))


def digest(output: Path) -> list[str]:
    files = [path for table in ("images", "detections", "coco") for path in sorted((output / table).iterdir())]
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]


@pytest.mark.parametrize("name", ["ssd", "letterboxed", "centernet"])
def test_it_finds_what_the_saved_model_finds(models: Path, made: Path, tmp_path: Path, name: str) -> None:
    model = copy(made if name == "ssd" else models / name, tmp_path / name)
    assert name == "ssd" or make_beside(model) is None
    spec, original = resolve(model), resolve(model, "tensorflow")
    assert (spec.engine, original.engine) == ("litert", "tensorflow")
    assert spec.label == original.label
    ours, reference = open_detector(spec), open_detector(original)
    assert (ours.info.engine, reference.info.engine) == ("litert", "tensorflow")
    assert disagreement(reference, ours, pictures(), Limits(score=2e-5, pixels=0.02)) is None
    found = reference.detect(pictures())
    assert min(map(len, found)) >= 5
    assert len({int(i) for each in found for i in each.category_ids}) > 1


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("other_resizer", "it does not resize and normalise pictures as FixedShape"),
        ("soft", "its pipeline.config asks for soft_nms_sigma"),
    ],
)
def test_where_it_would_not_the_saved_model_is_used(models: Path, tmp_path: Path, name: str, why: str) -> None:
    model = copy(models / name, tmp_path / name)
    reason = make_beside(model)
    assert reason is not None
    assert reason.startswith(why)
    assert [path.name for path in (model / "litert").iterdir()] == ["verdict.json"]
    spec = resolve(model)
    assert (spec.engine, spec.form_note) == ("tensorflow", f"no LiteRT form: {reason}")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (None, "there is no pipeline.config beside the model"),
        ("faster_rcnn { image_resizer { identity_resizer { } } }", "LiteRT takes ssd and center_net, and its"),
        ("ssd { image_resizer { identity_resizer { } } }", "its resizer does not bring pictures to one size"),
        ("ssd { num_classes: 5 image_resizer { fixed_shape_resizer { } } }", "its raw_detection_scores are not of 5"),
        ("ssd { num_classes: 3 image_resizer { fixed_shape_resizer { } } }", "its graph has no place where a resized"),
    ],
)
def test_models_that_have_none(models: Path, tmp_path: Path, config: str | None, why: str) -> None:
    model = copy(models / "ssd", tmp_path / "ssd")
    (model / "pipeline.config").unlink()
    if config:
        (model / "pipeline.config").write_text(f"model {{ {config} }}")
    assert (make_beside(model) or "").startswith(why)


def test_a_job_uses_it_and_once_it_is_checked_no_process_imports_tensorflow(
    made: Path, photos: Path, tmp_path: Path
) -> None:
    manifest = detect(photos, made, tmp_path / "first")
    assert (manifest.model.engine, manifest.job["engine"], manifest.job["form"]) == ("litert", "litert", "litert")
    assert manifest.counts.detections > 20
    moved = copy(made, tmp_path / "elsewhere" / "ssd")
    poison = tmp_path / "poison" / "tensorflow"
    poison.mkdir(parents=True)
    (poison / "__init__.py").write_text("raise ImportError('TensorFlow was imported')\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(poison.parent), str(Path(__file__).parents[1])])}
    command = [sys.executable, "-P", "-m", "beam_jobs", "detect", f"--input={photos}", f"--model={moved}"]
    command += [f"--output={tmp_path / 'second'}", "--workers=2"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digest(tmp_path / "second") == digest(tmp_path / "first")


def test_one_that_differs_on_the_jobs_pictures_is_not_used(
    made: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = copy(made, tmp_path / "ssd")
    form = Form.read(model / "litert")
    assert form.post is not None
    rules = replace(form.post.rules, iou=0.8)
    msgspec.structs.replace(form, post=replace(form.post, rules=rules)).write(model / "litert")
    manifest = detect(photos, model, tmp_path / "out")
    assert (manifest.model.engine, manifest.job["form"]) == ("tensorflow", "original")
    assert "the LiteRT form is not used: it finds something else in picture" in manifest.model.details["form"]
    words = [f"--input={photos}", f"--model={model}", f"--output={tmp_path / 'none'}"]
    capsys.readouterr()
    assert main(["detect", *words, "--engine=litert"]) == 2
    said = capsys.readouterr().err
    assert "--engine litert: ssd is run by TensorFlow only; the LiteRT form is not used: it finds" in said


def test_a_saved_model_without_it_gets_one_in_the_cache(models: Path, tmp_path: Path) -> None:
    model = copy(models / "ssd", tmp_path / "ssd")
    assert resolve(model).engine == "tensorflow"
    spec = resolve(model, "litert")
    said: list[str] = []
    assert litert_forms.choose(spec, pictures, said.append) == spec
    assert said == ["preparing for LiteRT: ssd (a minute or so, once) …"]
    assert litert_forms.choose(spec, pytest.fail, pytest.fail) == spec
    assert open_detector(spec).info.engine == "litert"
    (model / "pipeline.config").unlink()
    assert (
        litert_forms.choose(spec, lambda: [], said.append).form_note
        == "the LiteRT form is not used: there is no pipeline.config beside the model"
    )


def test_where_an_export_can_have_none_the_reason_lies_there(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy(training, tmp_path / "training")
    config = other / "pipeline.config"
    config.write_text(config.read_text().replace("score_threshold", "use_combined_nms: true score_threshold"))
    assert main(export_words(other, tmp_path / "zoo")) == 0
    reason = "its pipeline.config asks for use_combined_nms"
    assert f"no LiteRT form, TensorFlow will run it: {reason}" in capsys.readouterr().out
    spec = resolve(tmp_path / "zoo")
    assert (spec.engine, spec.form_note) == ("tensorflow", f"no LiteRT form: {reason}")


def test_an_export_of_another_family_is_refused_at_once(
    training: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copy(training, tmp_path / "training")
    config = other / "pipeline.config"
    config.write_text(config.read_text().replace("ssd {", "faster_rcnn {"))
    assert main(export_words(other, tmp_path / "zoo")) == 2
    assert "--engine litert takes ssd and center_net, and" in capsys.readouterr().err
    assert not (tmp_path / "zoo").exists()
