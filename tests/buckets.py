"""Buckets for tests: an environment that leads to a store on loopback, and what is put there and found again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from beam_jobs import matching, storage
from beam_jobs.runs import layout
from beam_jobs.storage import objects
from tests.pictures import RED, encode, picture
from tests.store_server import KEY_ID, SECRET, TOKEN, Store

FAKE = "--model=tests.fake_detectors:colours"
#: Waits of the clients are for real stores.
FEW_ATTEMPTS = {"AWS_RETRY_MODE": "standard", "AWS_MAX_ATTEMPTS": "3"}


def ready(server: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server without faults, and an environment that leads to it."""
    server.set_faults()
    for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    keys = {"AWS_ACCESS_KEY_ID": KEY_ID, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": TOKEN}
    for name, value in {**server.environment, **keys}.items():
        monkeypatch.setenv(name, value)
    objects.forget_clients()
    yield server
    storage.set_options([])


def put_pictures(top: str, count: int = 5) -> None:
    for i in range(count):
        storage.write_atomic(f"{top}/a {i}.png", encode(picture(40, 30, ((5, 5, 25, 25 - i % 9), RED))))


def tree(folder: str) -> dict[str, bytes]:
    """What the promise of bytes covers of a run, by name, without what tells starts apart."""
    names = [found.uri for found in matching.match([folder])]
    promised = ("images/", "detections/", "failures/", "coco/", "annotated/")
    files = {uri[len(folder) + 1 :]: uri for uri in names}
    found = {name: storage.read_bytes(uri) for name, uri in files.items() if name.startswith(promised)}
    assert len({layout.with_mark(name, "") for name in found}) == len(found), "two files of one part"
    return {layout.with_mark(name, ""): data for name, data in found.items()}
