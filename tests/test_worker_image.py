"""The image of Dataflow's workers as a plain environment: the pins of its Dockerfile, and no network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_jobs.cli.main import main
from beam_jobs.detectors import catalogue
from beam_jobs.detectors.cache import cache_folder
from beam_jobs.runs.check import check_run

ROOT = Path(__file__).parent.parent


def _without_network(*words: str) -> list[str]:
    """A command in a network of its own that nothing is connected to, where the system lets us make one."""
    alone = ["unshare", "--net"]
    able = shutil.which("unshare") and not subprocess.run([*alone, "true"], capture_output=True).returncode
    return [*(alone if able else []), *words]


@pytest.mark.slow
def test_a_worker_starts_with_the_pins_the_model_and_no_network(tmp_path):
    environment = tmp_path / "image"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pins = ROOT / "scripts" / "requirements-dataflow.txt"
    subprocess.run([*install, "--require-hashes", "-r", str(pins)], check=True)
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "beam_jobs", source / "beam_jobs")
    subprocess.run([*install, "--no-deps", str(source)], check=True)
    shutil.rmtree(source)
    catalogue.resolve("coco-ssd", label_map=None, threads=1)
    models = tmp_path / "models"
    shutil.copytree(cache_folder() / "models" / "coco-ssd", models / "models" / "coco-ssd")

    pixels = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    bare = {"PATH": os.defpath, "HOME": str(tmp_path / "home"), "BEAM_DETECT_CACHE": str(models)}
    words = [f"--input={tmp_path}/picture.png", "--min_score=0"]
    command = [str(environment / "bin" / "beam-detect"), "detect", *words, f"--output={tmp_path}/there"]
    done = subprocess.run(_without_network(*command), env=bare, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    code = "import apache_beam.runners.worker.sdk_worker_main, apache_beam.runners.dataflow.dataflow_runner"
    done = subprocess.run(_without_network(python, "-c", code), env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    assert main(["detect", *words, f"--output={tmp_path}/here"]) == 0
    assert list(check_run(str(tmp_path / "there"))) == []
    tables = [(tmp_path / run / "detections" / "part-00000.parquet").read_bytes() for run in ("there", "here")]
    assert tables[0] == tables[1]
