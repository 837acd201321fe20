"""What several modules of tests need, and what is slow to make."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from beam_jobs import storage
from beam_jobs.cli import detect
from beam_jobs.runs import layout
from beam_jobs.runs.check import check_run
from tests import buckets, saved_models
from tests.store_server import BUCKET, Store, running

_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture(scope="session")
def problems_of_runs() -> Iterator[list[str]]:
    """What `check` finds wrong with runs that were finished in this process, since it was last cleared."""
    problems: list[str] = []
    original = detect.run

    def checked(options: argparse.Namespace, beam_args: Sequence[str], command: Sequence[str]) -> int:
        status = original(options, beam_args, command)
        if storage.exists(storage.join(options.output, layout.MANIFEST)):
            problems.extend(check_run(options.output))
        return status

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detect, "run", checked)
        yield problems


@pytest.fixture(autouse=True)
def whole_runs(problems_of_runs: list[str]) -> Iterator[None]:
    """Every run that a test finishes is whole, unless the test says otherwise."""
    yield
    found = problems_of_runs.copy()
    problems_of_runs.clear()
    assert found == []


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the SavedModels of `saved_models`, each under its name."""
    folder = tmp_path_factory.mktemp("models")
    saved_models.build_all(folder)
    return folder


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*_FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module", params=["s3", "gs"])
def store_server(request: pytest.FixtureRequest) -> Iterator[Store]:
    with running(request.param) as store:
        yield store


@pytest.fixture(scope="module")
def s3_server() -> Iterator[Store]:
    with running("s3") as store:
        yield store


@pytest.fixture
def store(store_server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """Each kind of object store, without faults."""
    yield from buckets.ready(store_server, monkeypatch)


@pytest.fixture
def s3(s3_server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store that speaks S3, without faults."""
    yield from buckets.ready(s3_server, monkeypatch)


@pytest.fixture
def top(store: Store, tmp_path: Path) -> str:
    """A place of this test's own in each kind of object store."""
    return f"{store.scheme}://{BUCKET}/{tmp_path.name}"
