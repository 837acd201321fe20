"""Models and label maps that cannot be used, by command: exit status 2, one clear message, and nothing is left behind.

What a checkpoint's config must be: test_export.py. What a server may do: test_download.py, test_models_command.py.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from beam_jobs.cli.main import main
from beam_jobs.processes.calls import Caller
from tests import fake_detectors
from tests.model_server import ModelServer, archive_of, serving
from tests.pictures import RED, encode, picture, write_pictures


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def server(models: Path) -> Iterator[ModelServer]:
    with serving() as server:
        top = models / "zoo"
        files = {f"saved_model/{p.relative_to(top)}": p.read_bytes() for p in top.rglob("*") if p.is_file()}
        server.files["/mine.tar.gz"] = archive_of(files, "mine/")
        yield server


def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str | Path, *words: str) -> str:
    """What `detect` says of a model that it refuses."""
    if not (tmp_path / "in").is_dir():
        write_pictures(tmp_path / "in", 1)
    job = ["detect", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", f"--model={model}", *words]
    assert main(job) == 2
    assert not (tmp_path / "out").exists()
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    return line


def test_not_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").touch()
    assert "holds no SavedModel, but readme.txt." in refused(tmp_path, capsys, tmp_path / "notes")
    (tmp_path / "notes.txt").write_text("hello")
    assert "is a file, not a folder. A SavedModel folder holds" in refused(tmp_path, capsys, tmp_path / "notes.txt")


def test_a_classifier(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(tmp_path, capsys, models / "classifier")
    assert "is not a detector: its inputs are input_tensor uint8 [1, None, None, 3]; its outputs are probabi" in said
    assert "A detector has one input" in said


def test_archives(server: ModelServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = server.files["/mine.tar.gz"]
    server.files["/mine.tar.gz"] = whole[: len(whole) // 2]
    said = refused(tmp_path, capsys, f"{server.url}/mine.tar.gz")
    assert "mine.tar.gz cannot be unpacked: it is cut off, or no .tar.gz: Compressed file ended before" in said
    server.files["/mine.tar.gz"] = whole
    assert main(["models", "fetch", f"{server.url}/mine.tar.gz", f"--sha256={'0' * 64}"]) == 2
    sha256 = hashlib.sha256(whole).hexdigest()
    assert f"is not what is expected: its sha256 is {sha256}; --sha256 says 0000" in capsys.readouterr().err
    # What was refused is not in the cache, and pins nothing.
    assert main(["models", "fetch", f"{server.url}/mine.tar.gz"]) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'item { id: 1 name: "cat" }\nitem { id: 1 name: "dog" }\n',
            "item 2 (line 2) calls class 1 'dog', which is 'cat'",
        ),
        ('item { id: 1 name: "cat" }\nitem { name: "dog" }\n', "item 2 (line 2) has no id"),
    ],
)
@pytest.mark.parametrize("inside", [True, False])
def test_label_maps(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, words: str, inside: bool
) -> None:
    """In the model's folder, or given."""
    shutil.copytree(models / "zoo", tmp_path / "mine")
    path = tmp_path / ("mine/labels.pbtxt" if inside else "labels.pbtxt")
    path.write_text(text)
    said = refused(tmp_path, capsys, tmp_path / "mine", *([] if inside else [f"--label_map={path}"]))
    assert f"the label map '{path}' cannot be used: {words}" in said


def test_a_config_of_tf1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old" / "checkpoint").mkdir(parents=True)
    (tmp_path / "old" / "pipeline.config").write_text(
        'model { faster_rcnn { feature_extractor { type: "faster_rcnn_inception_v2" } image_resizer {'
        " keep_aspect_ratio_resizer { min_dimension: 600 } } } }"
    )
    said = refused(tmp_path, capsys, tmp_path / "old")
    assert "old/pipeline.config is of TensorFlow 1: its feature extractor faster_rcnn_inception_v2 has no TF2" in said


def test_boxes_that_are_no_numbers_cost_their_picture(models: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    (tmp_path / "in" / "dark.png").write_bytes(encode(picture(30, 20)))
    job = ["detect", f"--input={tmp_path / 'in'}", f"--output={tmp_path / 'out'}", f"--model={models / 'nan_boxes'}"]
    assert main(job) == 0
    [failure] = pq.read_table(tmp_path / "out" / "failures").to_pylist()
    assert (failure["stage"], failure["code"]) == ("infer", "inference")
    assert failure["message"] == "The detector gave boxes that are not numbers."
    [image] = pq.read_table(tmp_path / "out" / "images").to_pylist()
    assert image["file_name"] == "dark.png"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("scores", "scores that are not finite numbers"),
        ("boxes", "boxes that are not numbers"),
        ("masks", "masks that are not finite numbers"),
    ],
)
def test_numbers_of_a_detector_of_ones_own(what: str, said: str) -> None:
    pictures = [picture(30, 20, ((2, 3, 12, 13), RED)), picture(30, 20)]
    answers = Caller(fake_detectors.NotNumbers(what), 4000).ask(pictures, lambda _: None)
    assert str(answers[0].found) == f"The detector gave {said}."
    assert not isinstance(answers[1].found, Exception)
