"""What the README says, run."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beam_jobs.cli import flags
from beam_jobs.cli.main import main
from beam_jobs.formats.tables import TABLES
from tests.pictures import write_pictures
from tests.test_evaluate import truth_of

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    lines = "\n".join(blocks("sh")).splitlines()
    ours = tuple(f"beam-detect {name}" for name in ("detect", "evaluate", "models", "report"))
    return [line for line in lines if line.startswith(ours)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    names = write_pictures(folder / "in", 5)
    (folder / "truth.json").write_text(json.dumps(truth_of(names)))
    (folder / "in" / "bad.jpg").write_bytes(b"x")
    words = [f"--input={folder}/in", f"--output={folder}/out", "--model=tests.fake_detectors:colours", "--annotate"]
    words.append(f"--ground_truth={folder}/truth.json")
    assert main(["detect", *words]) == 0
    shutil.copytree(folder / "out", folder / "out-b")
    write_pictures(folder / "in", 6)
    (folder / "in" / names[0]).unlink()
    since = [*words[:1], f"--output={folder}/out-tuesday", *words[2:4], f"--since={folder}/out", "--min_score=0"]
    assert main(["detect", *since, f"--image_ids={folder}/truth.json"]) == 0
    return folder


def examples() -> list[object]:
    return [pytest.param(code, marks=[pytest.mark.model] if "coco-ssd" in code else []) for code in blocks("python")]


@pytest.mark.parametrize("code", examples())
def test_queries_run_as_they_stand(folder, code):
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("job.toml").write_text('input = "photos"\noutput = "out"\nannotate = true\n')
    options, rest = flags.parse(shlex.split(command)[1:])
    # What is left is Beam's, which `parse` has looked at.
    assert rest == [] or rest[0] == "--runner"
    assert options.command == "models" or options.output


def test_there_are_commands_and_queries():
    assert len(commands()) >= 10
    assert len(blocks("python")) >= 3
    assert len([code for code in blocks("python") if "Detect(" in code]) == 1


def test_tables_and_outputs_are_those_of_a_run(folder):
    for name, schema in TABLES.items():
        (row,) = re.findall(rf"^\| {name} \| (.*) \|$", README, re.M)
        assert [column.split(" ")[0] for column in row.split(", ")] == schema.names
    listed = re.findall(r"^DIR/([\w./-]+)", README, re.M)
    tops = {path.split("/")[0].rstrip("…") for path in listed} - {"tracks"}  # of runs that track
    assert tops == {path.name for run in ("out", "out-tuesday") for path in (folder / run).iterdir()}


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link
