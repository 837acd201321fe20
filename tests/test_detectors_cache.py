"""The model cache: whole or made again, whatever happens to builders and files."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beam_jobs.detectors import cache
from beam_jobs.errors import UsageError

BUILDER = """
import os, signal, sys, time
from pathlib import Path
from beam_jobs.detectors import cache

def build(folder):
    with open(os.environ["BEAM_DETECT_CACHE"] + "/built", "a") as log:
        log.write("x")
    (folder / "weights").write_bytes(b"half")
    print("building", flush=True)
    if sys.argv[1] == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(1)
    (folder / "weights").write_bytes(b"whole")

print(cache.ensure("model", "recipe", build, lambda line: print(line, flush=True)).name)
"""


@pytest.fixture(autouse=True)
def cache_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path))
    return tmp_path


def build(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_bytes(b"whole")


def start_builder(how: str) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", BUILDER, how], stdout=subprocess.PIPE, text=True, env=environment)


def models_of(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "models").iterdir() if not path.name.endswith(".lock"))


def test_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache.cache_folder() == tmp_path
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEAM_DETECT_CACHE", "here")
    assert cache.cache_folder() == tmp_path / "here"
    monkeypatch.delenv("BEAM_DETECT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/shared")
    assert cache.cache_folder() == Path("/shared/beam-detect")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/me")
    assert cache.cache_folder() == Path("/home/me/.cache/beam-detect")


def test_a_whole_entry_is_used_as_it_is(cache_root: Path) -> None:
    said: list[str] = []
    entry = cache.ensure("model", "recipe", build, said.append)
    (entry.parent / ".model.lock").unlink()
    assert cache.ensure("model", "recipe", lambda folder: pytest.fail("built again"), said.append) == entry
    assert not (entry.parent / ".model.lock").exists(), "a whole entry needs no lock: its cache may be read-only"
    assert said == []
    assert models_of(cache_root) == ["model"]


@pytest.mark.parametrize("harm", ["truncated", "changed", "removed", "no_manifest", "odd_manifest", "folder_gone"])
def test_a_damaged_entry_is_made_again(cache_root: Path, harm: str) -> None:
    entry = cache.ensure("model", "recipe", build, pytest.fail)
    weights, manifest = entry / "sub" / "weights", entry / "manifest.json"
    match harm:
        case "truncated":
            weights.write_bytes(b"who")
        case "changed":
            weights.write_bytes(b"wholE")
        case "removed":
            weights.unlink()
        case "no_manifest":
            manifest.unlink()
        case "odd_manifest":
            manifest.write_text('{"recipe": "recipe", "files": []}')
        case _:
            shutil.rmtree(entry)
    said: list[str] = []
    assert cache.ensure("model", "recipe", build, said.append) == entry
    assert weights.read_bytes() == b"whole"
    assert len(said) == (harm != "folder_gone")
    assert models_of(cache_root) == ["model"]


def test_an_entry_of_another_recipe_is_made_again() -> None:
    cache.ensure("model", "old", build, pytest.fail)
    said: list[str] = []
    cache.ensure("model", "new", build, said.append)
    assert said == ["the cached model is damaged, outdated or unfinished: making it again"]


def test_a_builder_that_fails_leaves_nothing(cache_root: Path) -> None:
    def fail(folder: Path) -> None:
        build(folder)
        raise UsageError("no network")

    with pytest.raises(UsageError, match="no network"):
        cache.ensure("model", "recipe", fail, pytest.fail)
    assert models_of(cache_root) == []


def test_a_killed_builder_leaves_nothing_that_is_read(cache_root: Path) -> None:
    with start_builder("dies") as killed:
        assert killed.wait(60) == -signal.SIGKILL
    assert len(models_of(cache_root)) == 1, "its temporary folder"
    entry = cache.ensure("model", "recipe", build, pytest.fail)
    assert (entry / "sub" / "weights").read_bytes() == b"whole"
    assert models_of(cache_root) == ["model"]


def test_a_second_process_waits_for_the_first(cache_root: Path) -> None:
    with start_builder("lives") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "building\n"
        with start_builder("lives") as second:
            assert second.communicate(timeout=60)[0].splitlines() == [
                "waiting for another process that is preparing model …",
                "model",
            ]
    assert (cache_root / "built").read_text() == "x"


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"model cannot be kept in .*/file: Not a directory\. .* BEAM_DETECT_CACHE"):
        cache.ensure("model", "recipe", build, pytest.fail)


def test_no_space_is_said_plainly() -> None:
    def fill(folder: Path) -> None:
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(UsageError, match="no space is left"):
        cache.ensure("model", "recipe", fill, pytest.fail)
