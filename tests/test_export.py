"""`beam-detect export`, and checkpoints as models: all but the Object Detection API itself, which a stand-in replaces.

With the API: test_parity.py.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import pytest

from beam_jobs.cli.main import main
from beam_jobs.detectors import catalogue
from beam_jobs.detectors.od_api import checkpoint, environment, export
from beam_jobs.errors import UsageError

CONFIG = """model {
  ssd {
    num_classes: 2
    image_resizer { fixed_shape_resizer { height: 300 width: 300 } }
    feature_extractor { type: "ssd_mobilenet_v2_keras" }
  }
}
"""
LABEL_MAP = 'item { id: 1 name: "buoy" }\nitem { id: 2 name: "gull" }\n'

#: Speaks as export_program.py does; what it is to do, the name of the config's folder says.
STAND_IN = """
import json, os, signal, sys
from pathlib import Path

fd, config, prefix, output, label_map = sys.argv[1:]
how = Path(config).parent.name
with open(os.environ["RUNS"], "a") as runs:
    runs.write(how + "\\n")
assert list(Path(output).iterdir()) == []
parent = open(int(fd), "w", buffering=1)
print(json.dumps({"step": "building the model"}), file=parent)
print("noise of TensorFlow", flush=True)
if how == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if how == "misfit":
    print(json.dumps({"error": "the checkpoint does not fit the config: model/x is missing"}), file=parent)
    sys.exit(1)
if how == "mute":
    sys.exit("ModuleNotFoundError: No module named 'tensorflow'")
(Path(output) / "saved_model" / "variables").mkdir(parents=True)
(Path(output) / "saved_model" / "saved_model.pb").write_bytes(b"graph")
print(json.dumps({"done": {"tensorflow": "2.15.1"}}), file=parent)
"""


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in takes the API's place; the file says how often it was run."""
    program = tmp_path / "stand_in.py"
    program.write_text(STAND_IN)
    monkeypatch.setattr(export, "_PROGRAM", program)
    monkeypatch.setattr(environment, "ensure", lambda report: Path(sys.executable))
    monkeypatch.setenv("RUNS", str(tmp_path / "runs"))
    (tmp_path / "runs").touch()
    return tmp_path / "runs"


def model(folder: Path, config: str = CONFIG) -> Path:
    """A model folder as training leaves it: a config and a checkpoint, no SavedModel."""
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "pipeline.config").write_text(config)
    for number in (1, 2):
        for ending in ("index", "data-00000-of-00001"):
            (folder / "checkpoint" / f"ckpt-{number}.{ending}").write_text(f"{ending} {number}")
    (folder / "checkpoint" / "checkpoint").write_text('model_checkpoint_path: "/where/it/was/trained/ckpt-2"\n')
    return folder


def run(folder: Path, output: Path, *words: str) -> int:
    files = [f"--pipeline_config={folder / 'pipeline.config'}", f"--checkpoint={folder / 'checkpoint'}"]
    return main(["export", *files, f"--output={output}", *words])


def test_an_export_has_the_zoos_layout(tmp_path: Path, runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = model(tmp_path / "buoys", CONFIG + 'train_input_reader { label_map_path: "/elsewhere/labels.pbtxt" }\n')
    (folder / "labels.pbtxt").write_text(LABEL_MAP)
    assert run(folder, tmp_path / "out" / "zoo") == 0
    zoo = tmp_path / "out" / "zoo"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["zoo"], "nothing of the making is left"
    assert {str(path.relative_to(zoo)) for path in zoo.rglob("*") if path.is_file()} == {
        "saved_model/saved_model.pb",
        "checkpoint/checkpoint",
        "checkpoint/ckpt-2.index",
        "checkpoint/ckpt-2.data-00000-of-00001",
        "pipeline.config",
        "label_map.pbtxt",
        "export.json",
    }
    assert (zoo / "pipeline.config").read_text() == (folder / "pipeline.config").read_text()
    assert checkpoint.find_prefix(str(zoo / "checkpoint")) == zoo / "checkpoint" / "ckpt-2"
    assert json.loads((zoo / "export.json").read_text())["tensorflow"] == "2.15.1"
    assert catalogue.resolve(str(zoo), label_map=None, threads=1).categories == {1: "buoy", 2: "gull"}
    said = "".join(capfd.readouterr())
    assert "building the model …" in said
    assert "noise" not in said


def test_all_that_the_api_says_is_shown_on_request(
    tmp_path: Path, runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(model(tmp_path / "buoys"), tmp_path / "zoo", "--verbose") == 0
    assert "noise of TensorFlow" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("misfit", "cannot export this: the checkpoint does not fit the config: model/x is missing."),
        ("killed", "ended without a word: killed by signal 9, perhaps for want of memory"),
        ("mute", "ended without a word: ModuleNotFoundError: No module named 'tensorflow'"),
    ],
)
def test_what_fails_in_there_is_one_message(
    tmp_path: Path, runs: Path, capfd: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    (tmp_path / "out").mkdir()
    assert run(model(tmp_path / how), tmp_path / "out" / "zoo") == 2
    [line] = [line for line in capfd.readouterr().err.splitlines() if "error" in line]
    assert message in line
    assert list((tmp_path / "out").iterdir()) == []


def test_an_earlier_export_is_replaced_on_request_only(
    tmp_path: Path, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, zoo = model(tmp_path / "buoys"), tmp_path / "zoo"
    assert run(folder, zoo) == 0
    (zoo / "old").touch()
    assert run(folder, zoo) == 2
    assert "holds an export: name another folder, or give --overwrite" in capsys.readouterr().err
    assert run(folder, zoo, "--overwrite") == 0
    assert not (zoo / "old").exists()
    (zoo / "export.json").unlink()
    assert run(folder, zoo, "--overwrite") == 2
    assert "is no export" in capsys.readouterr().err


class TestModel:
    """`--model FOLDER`, where FOLDER has no SavedModel."""

    def test_it_is_exported_once(self, tmp_path: Path, runs: Path) -> None:
        folder = model(tmp_path / "buoys")
        (folder / "labels.pbtxt").write_text(LABEL_MAP)
        said: list[str] = []
        spec = catalogue.resolve(str(folder), label_map=None, threads=1, report=said.append)
        assert said == ["building the model …"]
        assert (spec.kind, spec.name, spec.categories) == ("saved_model", "buoys", {1: "buoy", 2: "gull"})
        assert Path(spec.location, "saved_model.pb").is_file()
        assert catalogue.resolve(str(folder), label_map=None, threads=1, report=pytest.fail) == spec
        moved = folder.rename(tmp_path / "elsewhere")
        again = catalogue.resolve(str(moved), label_map=None, threads=1, report=pytest.fail)
        assert (again.location, again.fingerprint) == (spec.location, spec.fingerprint)
        assert runs.read_text() == "buoys\n"

    @pytest.mark.parametrize("changed", ["pipeline.config", "checkpoint/ckpt-2.data-00000-of-00001"])
    def test_another_config_or_checkpoint_is_another_model(self, tmp_path: Path, runs: Path, changed: str) -> None:
        folder = model(tmp_path / "buoys")
        before = catalogue.resolve(str(folder), label_map=None, threads=1)
        with (folder / changed).open("a") as file:
            file.write("\n# more")
        after = catalogue.resolve(str(folder), label_map=None, threads=1)
        assert after.fingerprint != before.fingerprint
        assert after.location != before.location
        assert runs.read_text() == "buoys\n" * 2

    def test_a_saved_model_beside_the_checkpoint_is_taken(self, tmp_path: Path, runs: Path) -> None:
        folder = model(tmp_path / "buoys")
        (folder / "saved_model").mkdir()
        (folder / "saved_model" / "saved_model.pb").write_bytes(b"graph")
        spec = catalogue.resolve(str(folder), label_map=None, threads=1)
        assert spec.location == str(folder / "saved_model")
        assert runs.read_text() == ""


class TestRefusals:
    """Before the environment is made, which takes minutes."""

    def refused(self, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], **flags: object) -> str:
        given: dict[str, object] = {"pipeline_config": folder / "pipeline.config", "checkpoint": folder / "checkpoint"}
        given |= {"output": tmp_path / "zoo"} | flags
        assert main(["export", *(f"--{name}={value}" for name, value in given.items() if value is not None)]) == 2
        assert not (tmp_path / "cache").exists()
        assert not (tmp_path / "zoo").exists()
        return capsys.readouterr().err

    @pytest.mark.parametrize("flag", ["pipeline_config", "checkpoint", "output"])
    def test_flags(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
        folder = model(tmp_path / "buoys")
        assert f"--{flag} is required" in self.refused(folder, tmp_path, capsys, **{flag: None})
        assert "files of this machine" in self.refused(folder, tmp_path, capsys, **{flag: "gs://bucket/x"})

    def test_configs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = model(tmp_path / "buoys")
        said = self.refused(folder, tmp_path, capsys, pipeline_config=tmp_path / "none")
        assert "cannot be read: No such file" in said
        assert f"did you mean {folder / 'pipeline.config'}?" in self.refused(
            folder, tmp_path, capsys, pipeline_config=folder
        )

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("train_config { batch_size: 8 } # model {}\n", "its model must be one of ssd, faster_rcnn, center_net"),
            (CONFIG[:-2], 'line 6: Expected "}"'),
            (CONFIG + "}\n", "line 8: '}'"),
            (CONFIG + "train_config {\n  batch_size 8\n}\n", "line 9: '  batch_size 8'"),
            (CONFIG + "eval_config { metrics_set: [1, 2 }\n", 'line 8: .*Expected ","'),
            (CONFIG + 'train_input_reader { label_map_path: "x }\n', 'Invalid field value: "x'),
            (CONFIG.replace("2", '"two"', 1), "line 3: .*Couldn't parse integer"),
            (CONFIG.replace("fixed_shape_resizer", "shape_resizer"), "its image_resizer is missing"),
            (CONFIG.encode("utf-16"), "codec can't decode"),
        ],
    )
    def test_what_is_no_config(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | bytes, said: str
    ) -> None:
        folder = model(tmp_path / "a")
        (folder / "pipeline.config").write_bytes(text if isinstance(text, bytes) else text.encode())
        refusal = self.refused(folder, tmp_path, capsys)
        assert re.search(rf"pipeline.config is not a pipeline.config of the Object Detection API: .*{said}", refusal)

    @pytest.mark.parametrize("type_", ["ssd_mobilenet_v2", "faster_rcnn_inception_v2", "embedded_ssd_mobilenet_v1"])
    def test_configs_of_tf1(self, tmp_path: Path, capsys: pytest.CaptureFixture[str], type_: str) -> None:
        folder = model(tmp_path / "a", CONFIG.replace("ssd_mobilenet_v2_keras", type_))
        said = self.refused(folder, tmp_path, capsys)
        assert f"is of TensorFlow 1: its feature extractor {type_} has" in said

    @pytest.mark.parametrize(
        "text",
        [
            CONFIG.replace("model {", "model { # was: type: 'ssd_mobilenet_v2'"),
            CONFIG.replace("ssd_mobilenet_v2_keras", "ssd_efficientnet-b0_bifpn_keras"),
            CONFIG.replace("ssd {", "center_net {").replace("ssd_mobilenet_v2_keras", "mobilenet_v2_fpn"),
            CONFIG + 'train_config { fine_tune_checkpoint: "PATH_TO_BE_CONFIGURED/mobilenet#2/ckpt-1" }',
        ],
    )
    def test_configs_of_tf2_are_not(self, tmp_path: Path, text: str) -> None:
        folder = model(tmp_path / "a", text)
        found = checkpoint.find_checkpoint(str(folder / "pipeline.config"), str(folder / "checkpoint"), None)
        assert found.prefix.name == "ckpt-2"

    def test_checkpoints(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = model(tmp_path / "buoys")
        files = folder / "checkpoint"
        assert f"did you mean {files}?" in self.refused(folder, tmp_path, capsys, checkpoint=folder)
        said = self.refused(folder, tmp_path, capsys, checkpoint=files / "ckpt-3")
        assert "ckpt-3.index is not there" in said
        said = self.refused(folder, tmp_path, capsys, checkpoint=tmp_path / "none" / "ckpt-0")
        assert "ckpt-0.index is not there" in said
        (files / "checkpoint").unlink()
        said = self.refused(folder, tmp_path, capsys)
        assert "several (ckpt-1, ckpt-2), and no file that says which: give the prefix of one" in said
        (files / "ckpt-1.data-00000-of-00001").rename(files / "ckpt-1.data-00000-of-00002")
        said = self.refused(folder, tmp_path, capsys, checkpoint=files / "ckpt-1")
        assert "is not whole: ckpt-1.data-00001-of-00002 is missing" in said
        (files / "ckpt-2.meta").touch()
        said = self.refused(folder, tmp_path, capsys, checkpoint=files / "ckpt-2")
        assert "is of TensorFlow 1 (ckpt-2.meta is beside it)" in said

    def test_outputs(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        folder = model(tmp_path / "buoys")
        assert "is a file" in self.refused(folder, tmp_path, capsys, output=folder / "pipeline.config")
        assert "is no export" in self.refused(folder, tmp_path, capsys, output=folder)


@pytest.mark.parametrize(
    "given", ["checkpoint/ckpt-1", "checkpoint/ckpt-1.index", "checkpoint/ckpt-1.data-00000-of-00001"]
)
def test_a_prefix_or_a_file_of_it_names_a_checkpoint(tmp_path: Path, given: str) -> None:
    folder = model(tmp_path / "buoys")
    assert checkpoint.find_prefix(str(folder / given)) == folder / "checkpoint" / "ckpt-1"


#: Instead of Python 3.11: makes a folder that looks like an environment, with itself as its Python, then does as told.
FAKE_PYTHON = """#!/bin/sh
echo "$@" >>"$CALLS"
[ "$3" = venv ] && { mkdir -p "$4/bin"; cp "$0" "$4/bin/python"; exit 0; }
[ -n "$SAYS" ] || exit 0
echo "$SAYS" >&2
exit 1
"""


class TestEnvironment:
    @pytest.fixture
    def calls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        python = tmp_path / "python3.11"
        python.write_text(FAKE_PYTHON)
        python.chmod(0o755)
        monkeypatch.setattr(environment, "find_python", lambda: python)
        monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
        monkeypatch.setenv("SAYS", "")
        return tmp_path / "calls"

    def test_it_is_made_once_from_pins_with_hashes(self, calls: Path) -> None:
        said: list[str] = []
        python = environment.ensure(said.append)
        assert len(said) == 1
        assert python.is_file()
        venv, *installs = calls.read_text().splitlines()
        assert "-m venv" in venv
        assert len(installs) == 2
        for line in installs:
            assert {"--require-hashes", "--no-deps", "--only-binary"} <= set(line.split())
            pins = Path(line.split()[-1]).read_text()
            assert all("==" in pin and pin.endswith("\\") for pin in pins.splitlines() if not pin.startswith(" "))
        assert environment.ensure(pytest.fail) == python
        assert len(calls.read_text().splitlines()) == 3
        python.write_text("damaged")
        environment.ensure(said.append)
        assert len(calls.read_text().splitlines()) == 6

    @pytest.mark.parametrize(
        ("says", "message"),
        [
            ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "no space is"),
            ("WARNING: Retrying … NewConnectionError('…: [Errno 111] Connection refused')", "cannot reach its index"),
            ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "DO NOT MATCH THE HASHES"),
            ("ERROR: 403 for https://me:secret@pins.example/simple/absl", "403 for the index."),
        ],
    )
    def test_what_pip_cannot_do_is_said_plainly(
        self, calls: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch, says: str, message: str
    ) -> None:
        monkeypatch.setenv("SAYS", says)
        with pytest.raises(UsageError, match="environment cannot be made") as error:
            environment.ensure(lambda _: None)
        assert message in str(error.value)
        assert "example" not in str(error.value)
        assert [path.name for path in (cache_root / "models").iterdir()] == [".object-detection-api.lock"]

    def test_there_must_be_room(self, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10 << 30, 9 << 30, 1 << 30))
        with pytest.raises(UsageError, match=r"needs 4 GiB in .*cache, which has 1\.0"):
            environment.ensure(pytest.fail)
        assert not calls.exists()

    def test_real_pip_without_a_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in [name for name in os.environ if name.startswith("PIP_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        with pytest.raises(UsageError, match="pip cannot reach its index"):
            environment.ensure(lambda _: None)


class TestPython:
    @pytest.fixture
    def path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The only folder on PATH, for a program that runs on Python 3.13."""
        monkeypatch.setattr(platform, "python_version_tuple", lambda: ("3", "13", "0"))
        monkeypatch.setenv("PATH", str(tmp_path / "bin"))
        (tmp_path / "bin").mkdir()
        return tmp_path / "bin"

    def test_another_python_fits_when_3_11_is_on_path(self, path: Path) -> None:
        (path / "python3.11").symlink_to(sys.executable)
        assert environment.find_python() == path / "python3.11"

    def test_no_other_version_fits(self, path: Path) -> None:
        with pytest.raises(UsageError, match=r"Python 3\.11 only, and no python3\.11 is on PATH \(this is 3\.13\)"):
            environment.find_python()

    def test_one_that_has_no_venv(self, path: Path) -> None:
        (path / "python3.11").write_text("#!/bin/sh\nexit 1\n")
        (path / "python3.11").chmod(0o755)
        with pytest.raises(UsageError, match=r"python3\.11 does not run, or has no venv \(python3\.11-venv\)"):
            environment.find_python()
