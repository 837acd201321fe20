"""Detector processes that crash, hang, raise, refuse: real processes, killed for real."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from beam_jobs.detectors import catalogue
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.errors import JobError, UsageError
from beam_jobs.formats.rows import Rows
from beam_jobs.processes.pool import MAX_LOST_AT_FIRST, DetectorPool
from beam_jobs.processes.work import PictureSettings, Work
from beam_jobs.records import ImageKey
from tests.fake_detectors import CATEGORIES, FATAL_WIDTH
from tests.pictures import encode, picture, write_pictures


def spec(factory: str) -> DetectorSpec:
    return DetectorSpec("factory", "fake", f"tests.fake_detectors:{factory}", "f" * 64, CATEGORIES)


@pytest.fixture
def works(tmp_path: Path) -> tuple[Work, ...]:
    """Ten pictures; the fourth is the fatal one."""
    names = write_pictures(tmp_path / "in", 10)
    (tmp_path / "in" / "fatal.png").write_bytes(encode(picture(FATAL_WIDTH, 8)))
    names[3] = "fatal.png"
    return tuple(Work(ImageKey(i, str(tmp_path / "in" / name), name), i) for i, name in enumerate(names))


def outcome(pool: DetectorPool, group: tuple[Work, ...]) -> Rows:
    return Rows.of(reply.rows for reply in pool.submit(group).result(60))


def failures(rows: Rows) -> list[tuple[int, str, str]]:
    return [(row["input"], row["code"], row["message"]) for row in rows.tables["failures"].to_pylist()]


def test_a_detector_that_kills_its_process_costs_that_picture_only(works):
    pool = DetectorPool(spec("Segfault"), PictureSettings(), 1)
    try:
        rows = outcome(pool, works)
        assert failures(rows) == [(3, "crashed", "The detector process was ended by SIGSEGV.")]
        assert sorted(rows.tables["images"]["input"].to_pylist()) == [i for i in range(10) if i != 3]
        assert pool.tally.done == 10
        # One process for the group, one for the second try, one after it.
        assert len(pool.loads) == 3
    finally:
        pool.close()


def test_a_picture_that_kills_once_is_tried_again(works, tmp_path, monkeypatch):
    monkeypatch.setenv("BEAM_DETECT_TEST_MARKER", str(tmp_path / "marker"))
    pool = DetectorPool(spec("SegfaultOnce"), PictureSettings(), 1)
    try:
        rows = outcome(pool, works)
        assert failures(rows) == []
        assert rows.tables["images"].num_rows == 10
    finally:
        pool.close()


def test_a_hang_is_ended_after_its_time(works):
    pool = DetectorPool(spec("Hang"), PictureSettings(max_seconds=1.0), 1)
    try:
        assert failures(outcome(pool, works)) == [
            (3, "timed_out", "The detector process was still at it after 1 seconds.")
        ]
    finally:
        pool.close()


def test_a_picture_that_eats_memory_costs_itself_only(works):
    pool = DetectorPool(spec("EatsMemory"), PictureSettings(max_memory=1 << 30), 1)
    try:
        rows = outcome(pool, works)
        assert failures(rows) == [
            (3, "out_of_memory", "The detector process held more memory than --max_memory_mb allows.")
        ]
        assert rows.tables["failures"]["attempts"].to_pylist() == [2]
        assert rows.tables["images"].num_rows == 9
    finally:
        pool.close()


def test_an_exception_costs_its_picture_and_its_message_is_stable(works):
    pool = DetectorPool(spec("Raise"), PictureSettings(), 1)
    try:
        assert failures(outcome(pool, works)) == [
            (3, "inference", "The detector raised RuntimeError: cannot do <object object at (address)>")
        ]
        assert len(pool.loads) == 1
    finally:
        pool.close()


def test_a_process_killed_from_outside_loses_nothing(works):
    pool = DetectorPool(spec("Slow"), PictureSettings(), 2)
    try:
        futures = [pool.submit(works[:5]), pool.submit(works[5:])]
        pool.ready()
        time.sleep(0.5)
        for child in list(pool._children):
            os.kill(child._process.pid, signal.SIGKILL)
        rows = Rows.of(reply.rows for future in futures for reply in future.result(60))
        assert failures(rows) == []
        assert sorted(rows.tables["images"]["input"].to_pylist()) == list(range(10))
    finally:
        pool.close()


def test_the_detector_is_loaded_once_a_process(works):
    pool = DetectorPool(spec("colours"), PictureSettings(), 2)
    try:
        futures = [pool.submit((work,)) for work in works]
        rows = Rows.of(reply.rows for future in futures for reply in future.result(60))
        timings = rows.tables["timings"].to_pylist()
        processes = {row["process"] for row in timings}
        assert sum(row["load_ms"] > 0 for row in timings) == len(processes) <= len(pool.loads) <= 2
    finally:
        pool.close()


def test_what_was_begun_is_done_once(works):
    pool = DetectorPool(spec("colours"), PictureSettings(), 2)
    try:
        pool.begin(works[:4])
        futures = [pool.submit(works[4:]), pool.submit(works[:4])]
        rows = Rows.of(reply.rows for future in futures for reply in future.result(60))
        assert sorted(rows.tables["images"]["input"].to_pylist()) == [work.input for work in works]
        assert pool.tally.pictures == len(works)
    finally:
        pool.close()


def test_a_detector_that_cannot_be_opened_is_refused_with_its_reason():
    pool = DetectorPool(spec("refuses"), PictureSettings(), 2)
    try:
        with pytest.raises(UsageError, match="no weights here"):
            pool.ready()
        with pytest.raises(UsageError, match="no weights here"):
            pool.submit(()).result(10)
    finally:
        pool.close()


def test_a_detector_that_dies_while_loading_ends_the_job():
    pool = DetectorPool(spec("ends_while_loading"), PictureSettings(), 1)
    try:
        with pytest.raises(JobError, match=r"SIGKILL.*3 times in a row"):
            pool.ready()
    finally:
        pool.close()


def test_a_detector_that_dies_at_every_picture_ends_the_job(tmp_path):
    (tmp_path / "fatal.png").write_bytes(encode(picture(FATAL_WIDTH, 8)))
    fatal = [Work(ImageKey(i, str(tmp_path / "fatal.png"), "fatal.png"), i) for i in range(MAX_LOST_AT_FIRST + 8)]
    pool = DetectorPool(spec("Segfault"), PictureSettings(), 1)
    try:
        groups = [pool.submit(group) for group in zip(fatal[::3], fatal[1::3], fatal[2::3], strict=True)]
        with pytest.raises(JobError, match=r"No picture gave a result: .* each of the first 16.*SIGSEGV"):
            [group.result(120) for group in groups]
        assert len(pool.loads) <= 2 * (MAX_LOST_AT_FIRST + 3)
    finally:
        pool.close()


def test_closing_leaves_no_process(works):
    pool = DetectorPool(spec("Slow"), PictureSettings(), 2)
    pool.submit(works)
    pool.ready()
    pids = [child._process.pid for child in pool._children]
    pool.close()
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_resolve_of_a_factory_gives_what_the_pool_needs():
    found = catalogue.resolve("tests.fake_detectors:colours", label_map=None, threads=1)
    assert (found.kind, dict(found.categories), found.fingerprint) == ("factory", CATEGORIES, "c0" * 32)
