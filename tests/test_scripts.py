"""The scripts' set-up of .venv, and the pinned requirements."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = {set_: ROOT / "scripts" / name for set_, name in (
    ("run", "requirements.txt"), ("demo", "requirements-demo.txt"), ("dev", "requirements-dev.txt"))}  # fmt: skip

# A build backend without requirements, so that a set-up needs no network.
BACKEND = """
import zipfile
def build_editable(folder, settings=None, metadata=None):
    name = "clone-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("clone.pth", __import__("os").getcwd())
        wheel.writestr("clone-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: clone\\nVersion: 1\\n")
        wheel.writestr("clone-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("clone-1.dist-info/RECORD", "")
    return name
"""


@pytest.fixture
def clone(tmp_path):
    """A clone of the repository whose program prints its arguments and whose requirements are none."""
    root = tmp_path / "a clone"
    (root / "scripts").mkdir(parents=True)
    for name in ("beam-detect", "test", "_setup.sh", "_setup.py"):
        shutil.copy(ROOT / "scripts" / name, root / "scripts")
    for file in FILES.values():
        (root / "scripts" / file.name).touch()
    (root / "beam_jobs").mkdir()
    (root / "beam_jobs" / "__main__.py").write_text("import sys\nprint('program', *sys.argv[1:], sep='|')\n")
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text("[build-system]\nrequires=[]\nbuild-backend='backend'\nbackend-path=['.']\n")
    return root


@pytest.fixture
def path(tmp_path):
    """A folder that is the whole PATH: what the scripts need, and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "cksum", "dirname", "readlink"):
        (folder / name).symlink_to(str(shutil.which(name)))
    return folder


def stub(file, text):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def make_ready(clone, python="/usr/bin/python3.11"):
    """What a set-up for `run` leaves, with a Python that prints its arguments."""
    stub(clone / ".venv/bin/python", "printf '|%s' venv \"$@\"")
    files = ["pyproject.toml", "scripts/requirements.txt"]
    sums = subprocess.run(["cksum", *files], cwd=clone, capture_output=True, text=True, check=True).stdout
    (clone / ".venv/ready-run").write_text(f"{clone}\n{python}\n{sums}")


def call(*command, cwd=None, **environment):
    known = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "BEAM_DETECT"))}
    return subprocess.run(list(command), cwd=cwd, env=known | environment, capture_output=True, text=True, timeout=60)


def test_unsupported_python_is_one_line(clone, path):
    stub(path / "python3", "echo 3.9.18; exit 1")
    stub(path / "python", "echo 2.7.18; exit 1")
    done = call(str(clone / "scripts/beam-detect"), "demo", PATH=str(path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(
        "beam-detect: Python 3.11, 3.12 or 3.13 is needed; found: python3 is 3.9.18, python is 2"
    )
    assert not (clone / ".venv").exists()


def test_no_python_is_one_line(clone, path):
    done = call(str(clone / "scripts/beam-detect"), PATH=str(path))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "found: no other" in done.stderr


def test_the_python_that_was_asked_for_is_the_only_one_tried(clone, path):
    stub(path / "python3.11", "echo 3.11.9")
    done = call(str(clone / "scripts/beam-detect"), PATH=str(path), BEAM_DETECT_PYTHON="/no/such/python")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "/no/such/python" in done.stderr


@pytest.mark.parametrize(("arguments", "set_"), [(["demo", "a b"], "demo"), (["detect", "demo"], "run"), ([], "run")])
def test_the_first_call_sets_up_what_the_command_needs(clone, path, arguments, set_):
    stub(path / "python3.11", '[ "$1" = -c ] && echo 3.11.9 || printf "|%s" "$@"')
    done = call(str(clone / "scripts/beam-detect"), *arguments, PATH=str(path))
    expected = [str(clone / "scripts/_setup.py"), "beam-detect", set_, "-P", "-m", "beam_jobs", *arguments]
    assert done.stdout.split("|")[1:] == expected


def test_a_ready_venv_is_used_from_anywhere(clone, path, tmp_path):
    make_ready(clone)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/link").symlink_to("../a clone/scripts/beam-detect")
    (path / "by-name").symlink_to(tmp_path / "elsewhere/link")
    for name in (str(clone / "scripts/beam-detect"), "../a clone/scripts/beam-detect", "./link", "by-name"):
        done = call("sh", "-c", '"$0" "$@"', name, "detect", "", "a  b*", cwd=tmp_path / "elsewhere", PATH=str(path))
        assert done.stdout == "|venv|-P|-m|beam_jobs|detect||a  b*", done.stderr


def test_the_python_of_a_ready_venv_need_not_be_named_again(clone, path):
    make_ready(clone, python="/opt/a python")
    for environment in ({}, {"BEAM_DETECT_PYTHON": "/opt/a python"}):
        assert call(str(clone / "scripts/beam-detect"), PATH=str(path), **environment).stdout.startswith("|venv")


def change(file):
    file.write_text(file.read_text() + "\n# changed\n")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda clone: change(clone / "scripts/requirements.txt"),
        lambda clone: change(clone / "pyproject.toml"),
        lambda clone: (clone / ".venv/bin/python").unlink(),
        lambda clone: (clone / ".venv/ready-run").unlink(),
        lambda clone: (clone / ".venv/unfinished").touch(),
        lambda clone: (clone / ".venv/ready-run").write_text("/elsewhere\n"),
    ],
    ids=["requirements", "pyproject", "no-python", "no-stamp", "unfinished", "stamp-of-another-place"],
)
def test_a_venv_that_is_not_ready_is_set_up_again(clone, path, spoil):
    make_ready(clone)
    stub(path / "python3.11", '[ "$1" = -c ] && echo 3.11.9 || echo setting up')
    spoil(clone)
    assert call(str(clone / "scripts/beam-detect"), PATH=str(path)).stdout == "setting up\n"


def test_set_up_for_real(clone):
    environment = {"BEAM_DETECT_PYTHON": sys.executable, "PIP_CONFIG_FILE": os.devnull}
    script = str(clone / "scripts/beam-detect")

    # Two first calls at once: one does it, the other waits.
    both = [
        subprocess.Popen([script, word], env=os.environ | environment, stdout=-1, stderr=-1, text=True)
        for word in ("one", "two")
    ]
    outputs = [process.communicate(timeout=60) for process in both]
    assert [output for output, _ in outputs] == ["program|one\n", "program|two\n"], outputs
    said = "".join(error for _, error in outputs)
    assert said.count("setting .venv up; waiting") == said.count("setting up .venv") == said.count("is ready") == 1

    # An addition that cannot be fetched: one line says so, and what worked still works.
    (clone / "scripts/requirements-demo.txt").write_text(f"absent==1 --hash=sha256:{'0' * 64}\n")
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9", "PIP_RETRIES": "1"}
    failed = call(script, "demo", **environment, **nowhere)
    assert failed.returncode == 3
    assert failed.stdout == ""
    assert "beam-detect: .venv cannot be set up: no network" in failed.stderr.splitlines()[-1]
    assert str(clone / ".venv/setup.log") in failed.stderr
    assert call(script, "three", **environment).stdout == "program|three\n"


def pins(set_):
    """Name and version, and the number of hashes, of what a set's own file pins."""
    found = {}
    for block in re.split(r"\n(?=\S)", FILES[set_].read_text().strip()):
        if not block.startswith("-r "):
            [(name, version)] = re.findall(r"^([\w.-]+)==([\w.]+)(?: ;.*)? \\\n", block)
            found[canonicalize_name(name)] = (version, len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", block)))
    return found


def test_requirements_are_pinned_by_hash_and_name_no_host():
    names = [name for set_ in FILES for name in pins(set_)]
    assert len(names) == len(set(names))
    for set_, file in FILES.items():
        assert all(hashes for _, hashes in pins(set_).values()), set_
        assert not re.search(r"://|/|--(extra-)?index|find-links|trusted", file.read_text()), set_


@pytest.mark.parametrize("set_", FILES)
def test_requirements_are_those_of_pyproject(set_):
    project = PYPROJECT["project"]
    extras = {"run": [], "demo": ["demo"], "dev": ["demo", "test", "dev"]}[set_]
    wanted = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    known = {
        name: version
        for each in list(FILES)[: list(FILES).index(set_) + 1]
        for name, (version, _) in pins(each).items()
    }
    for requirement in map(Requirement, wanted):
        if requirement.name != "beam-detect":
            assert requirement.specifier.contains(known[canonicalize_name(requirement.name)]), requirement


def test_the_scripts_take_the_supported_pythons():
    text = (ROOT / "scripts/_setup.sh").read_text()
    [(low, high)] = re.findall(r"\((\d+, \d+)\) <= sys.version_info\[:2\] < \((\d+, \d+)\)", text)
    assert PYPROJECT["project"]["requires-python"] == f">={low},<{high}".replace(", ", ".")
    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains(".".join(map(str, sys.version_info[:3])))


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path):
    source = tmp_path / "source"
    skip = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
    shutil.copytree(ROOT, source, ignore=skip)
    build = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    done = call(sys.executable, "-c", build, str(tmp_path), cwd=source)
    assert done.returncode == 0, done.stderr
    [wheel] = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    # All that is in the package is its own: modules, the marker of its types, the reports' script and style.
    files = {str(file.relative_to(source)) for file in (source / "beam_jobs").rglob("*") if file.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == files
    assert {"beam_jobs/py.typed", "beam_jobs/report/assets/page.js"} <= files
