"""Pictures that share calls: the same is found in them as alone, and what shares a call is the same every time."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from beam_jobs.cli.main import main
from beam_jobs.detectors import catalogue, open_detector
from beam_jobs.detectors.base import Detector, DetectorInfo, DoesNotFitError
from beam_jobs.formats.rows import Rows
from beam_jobs.processes.calls import Answer, Caller
from beam_jobs.processes.picture import PictureWorker
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.work import PictureSettings, Work
from beam_jobs.records import Detections, ImageKey
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests import fake_detectors
from tests.pictures import GREEN, RED, encode, picture, write_pictures
from tests.test_detect import promised
from tests.test_pool import failures, outcome, spec

#: Room for four pictures of `Together`, whose pictures have 1000 pixels each.
FOUR = PictureSettings(batch_pixels=4000)


def open_model(folder: Path) -> Detector:
    return open_detector(catalogue.resolve(str(folder), label_map=None, threads=1))


def mixed_pictures() -> list[NDArray[np.uint8]]:
    """Noise of three sizes in turn, two of them of like proportions, with a bright box in all but one."""
    draw = np.random.default_rng(5)
    pictures = []
    for i in range(13):
        height, width = ((120, 160), (240, 320), (90, 61))[i % 3]
        pixels = draw.integers(0, 180, (height, width, 3), np.uint8)
        if i != 4:
            pixels[height // 4 : height // 2, width // 8 : width // 2, i % 3] = 255
        pictures.append(pixels)
    return pictures


def ask(detector: Detector, pictures: Sequence[NDArray[np.uint8]], batch_pixels: int) -> list[Answer]:
    return Caller(detector, batch_pixels).ask(pictures, lambda _: None)


def found_in(answers: Sequence[Answer]) -> list[Detections]:
    assert not any(isinstance(answer.found, Exception) for answer in answers), answers
    return [answer.found for answer in answers if isinstance(answer.found, Detections)]


def assert_alike(some: Sequence[Answer], others: Sequence[Answer]) -> None:
    """Well within what README promises: these models are small."""
    for one, other in zip(found_in(some), found_in(others), strict=True):
        np.testing.assert_array_equal(one.category_ids, other.category_ids)
        np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-5)
        np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "calls"),
    [
        # All come to one shape; 4 of 60×80 pixels fit into 20,000.
        ("fixed_shape", [4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1]),
        # 120×160 and 240×320 come to one shape, 90×61 to another; 2 of 96×96 fit, padding included.
        ("letterboxed", [2] * 12 + [1]),
        # What it finds depends on the size before, so only pictures of one size share a call.
        ("peeking", [3] * 3 + [1] * 10),
        # Bytes: only pictures of one size share a call, 3 of 90×61; each of the others is a call of its own.
        ("free", [3] * 3 + [1] * 10),
        # The same, decoded by the model.
        ("encoded", [3] * 3 + [1] * 10),
        # One shape, and one picture a call, in the signature.
        ("fixed", [1] * 13),
    ],
)
def test_each_picture_gives_what_it_gives_alone(models: Path, name: str, calls: list[int]) -> None:
    detector, pictures = open_model(models / name), mixed_pictures()
    alone, together = ask(detector, pictures, 0), ask(detector, pictures, 20_000)
    assert [answer.call_pictures for answer in alone] == [1] * 13
    assert sorted((answer.call_pictures for answer in together), reverse=True) == sorted(calls, reverse=True)
    assert_alike(alone, together)
    # Something was found, and not the same everywhere, or the comparison would say nothing.
    assert len({tuple(one.scores) for one in found_in(together)}) > 8 or name in ("free", "encoded", "fixed")


def test_bytes_of_one_size_share_a_call(models: Path) -> None:
    detector, pictures = open_model(models / "free"), mixed_pictures()
    together = ask(detector, pictures, 1 << 20)
    assert sorted(answer.call_pictures for answer in together) == [4] * 8 + [5] * 5
    assert_alike(ask(detector, pictures, 0), together)


@pytest.mark.parametrize("config", ["fixed_shape_resizer { height: 20 width: 30 }", None, "not a config {"])
def test_a_config_that_is_not_the_models_changes_nothing_that_is_found(
    models: Path, tmp_path: Path, config: str | None
) -> None:
    shutil.copytree(models / "fixed_shape", tmp_path / "model")
    if config is None:
        (tmp_path / "model/pipeline.config").unlink()
    else:
        text = f"model {{ ssd {{ image_resizer {{ {config} }} }} }}"
        (tmp_path / "model/pipeline.config").write_text(text)
    detector, pictures = open_model(tmp_path / "model"), mixed_pictures()
    together = ask(detector, pictures, 1 << 20)
    # By their own size, as nothing else is known to be safe.
    assert sorted(answer.call_pictures for answer in together) == [4] * 8 + [5] * 5
    assert_alike(ask(detector, pictures, 0), together)


def test_a_call_that_does_not_fit_is_made_smaller_and_later_ones_at_once() -> None:
    caller = Caller(fake_detectors.TogetherSmall(), 8000)
    pictures = [picture(30, 20, ((2, 3, 12, 13), RED)) for _ in range(8)]
    first, second = caller.ask(pictures, lambda _: None), caller.ask(pictures, lambda _: None)
    # 8, then 4 and 4, then 2 each: three calls did not fit. The next ones are of 2.
    assert [answer.call_pictures for answer in (*first, *second)] == [2] * 16
    assert [sum(answer.shrunk_calls for answer in answers) for answers in (first, second)] == [3, 0]
    assert len(found_in(first)) == 8


def test_a_detector_that_never_fits_fails_its_pictures() -> None:
    class Never(fake_detectors.Together):
        def detect(self, pictures: Sequence[NDArray[np.uint8]]) -> Sequence[Detections]:
            raise DoesNotFitError("no room")

    answers = Caller(Never(), 4000).ask([picture(30, 20)] * 4, lambda _: None)
    assert [str(answer.found) for answer in answers] == ["The detector raised DoesNotFitError: no room"] * 4


def test_several_callers_give_the_answers_in_order() -> None:
    detector = fake_detectors.Slow()
    detector.info = DetectorInfo("python", callers=4)
    pictures = [picture(30, 20, ((2, 3, 3 + i, 13), RED)) for i in range(8)]
    at_work: list[tuple[int, ...]] = []
    answers = Caller(detector, 0).ask(pictures, at_work.append)
    assert [one.boxes[0, 2] for one in found_in(answers)] == list(range(3, 11))
    assert at_work == [tuple(range(8))]


@pytest.fixture
def works(tmp_path: Path) -> tuple[Work, ...]:
    """Ten pictures; the fourth is the fatal one."""
    names = write_pictures(tmp_path / "in", 10)
    fatal = picture(fake_detectors.FATAL_WIDTH, 8, ((1, 1, 5, 5), GREEN))
    (tmp_path / "in" / "fatal.png").write_bytes(encode(fatal))
    names[3] = "fatal.png"
    return tuple(Work(ImageKey(i, str(tmp_path / "in" / name), name), i) for i, name in enumerate(names))


def detections(factory: str, works: tuple[Work, ...]) -> tuple[dict[int, list[float]], list[tuple[int, str, str]], int]:
    """Scores by input; failures; how many detectors it took."""
    pool = DetectorPool(spec(factory), FOUR, 1)
    try:
        rows = outcome(pool, works)
        return scores_of(rows), failures(rows), len(pool.loads)
    finally:
        pool.close()


def scores_of(rows: Rows) -> dict[int, list[float]]:
    scores: dict[int, list[float]] = {}
    for row in rows.tables["detections"].to_pylist():
        scores.setdefault(row["input"], []).append(row["score"])
    return scores


def test_a_kill_in_the_middle_of_a_shared_call_changes_nothing(works, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("BEAM_DETECT_TEST_MARKER", str(tmp_path / "marker"))
    undisturbed, none, _ = detections("Together", works)
    killed, also_none, loads = detections("TogetherSegfaultOnce", works)
    assert (none, also_none, loads) == ([], [], 2)
    assert killed == undisturbed
    # Calls of 4, 4 and 2 show in the scores.
    assert {round(scores[0], 3) for scores in undisturbed.values()} == {0.996, 0.998}
    assert len({scores[0] for scores in undisturbed.values()}) == 6


def test_kill_9_of_the_processes_changes_nothing(works) -> None:
    undisturbed, _, _ = detections("Together", works)
    pool = DetectorPool(spec("TogetherSlow"), FOUR, 1)
    try:
        future = pool.submit(works)
        pool.ready()
        time.sleep(0.3)  # the second of three calls
        (child,) = pool._children
        os.kill(child._process.pid, signal.SIGKILL)
        (reply,) = future.result(60)
        assert scores_of(Rows.of([reply.rows])) == undisturbed
        assert len(pool.loads) == 2
    finally:
        pool.close()


def test_a_fatal_picture_in_a_shared_call_costs_itself_only(works) -> None:
    scores, failed, loads = detections("TogetherSegfault", works)
    assert failed == [(3, "crashed", "The detector process was ended by SIGSEGV.")]
    assert sorted(scores) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    # Twice whole, then one by one; and one process for the rest.
    assert loads == 4


def test_an_exception_in_a_shared_call_costs_its_picture_only(works) -> None:
    scores, failed, loads = detections("TogetherRaise", works)
    assert failed == [(3, "inference", "The detector raised RuntimeError: cannot do <object object at (address)>")]
    assert (sorted(scores), loads) == ([0, 1, 2, 4, 5, 6, 7, 8, 9], 1)


def test_a_process_holds_a_bounded_number_of_pixels(works, monkeypatch) -> None:
    monkeypatch.setattr("beam_jobs.processes.picture.MAX_HELD_PIXELS", 3 * 40 * 30)
    worker = PictureWorker(fake_detectors.Together(), spec("Together"), FOUR, "here", 0.0)
    order: list[tuple[int, ...]] = []
    worker.run([work for work in works if work.input != 3], order.append)
    assert order == [(0,), (1,), (2,), (0, 1, 2), (3,), (4,), (5,), (3, 4, 5), (6,), (7,), (8,), (6, 7, 8)]


def run(output: Path, *words: str, model: str = "tests.fake_detectors:Together") -> Manifest:
    assert main(["detect", f"--output={output}", f"--model={model}", *words]) == 0
    assert list(check_run(str(output))) == []
    return Manifest.read(str(output))


def test_one_process_and_two_give_the_same_bytes(tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 75)
    words = (f"--input={tmp_path}/in", "--part_size=40", "--batch_pixels=16000")
    one = run(tmp_path / "one", *words, "--workers=1")
    two = run(tmp_path / "two", *words, "--workers=2")
    assert promised(tmp_path / "one") == promised(tmp_path / "two")
    assert one.job == two.job
    assert (one.job["batch_pixels"], one.job["group_size"], one.detector.largest_call, one.repeatable) == (
        *(16000, 32, 16),
        True,
    )
    # Without batches it is another job, with other bytes.
    alone = run(tmp_path / "alone", f"--input={tmp_path}/in", "--part_size=40", "--workers=2")
    assert (alone.job["batch_pixels"], alone.detector.largest_call) == (0, 1)
    assert promised(tmp_path / "alone") != promised(tmp_path / "one")


def test_a_batch_that_does_not_fit_is_said_in_the_manifest(models: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("BEAM_DETECT_TEST_MODEL", str(models / "free"))
    write_pictures(tmp_path / "in", 40)
    words = (f"--input={tmp_path}/in", "--workers=1", "--batch_pixels=20000")
    small = run(tmp_path / "out", *words, model="tests.fake_detectors:small_gpu")
    # 16 of 40×30 pixels, then 8 and 8, then calls of 4; the second group has 8, and its budget is that of 4 by then.
    assert (small.detector.shrunk_calls, small.detector.largest_call, small.repeatable) == (6, 4, False)
    assert (small.counts.images, small.counts.failures) == (40, {})
    assert "6 did not fit into memory and were made smaller" in capsys.readouterr().out


def test_a_dry_run_shows_the_batches(tmp_path: Path, capsys) -> None:
    write_pictures(tmp_path / "in", 1)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", "--model=tests.fake_detectors:Together"]
    assert main(["detect", *words, "--batch_pixels=5000", "--dry_run"]) == 0
    said = capsys.readouterr().out
    assert "  batch_pixels: 5000\n" in said
    assert "  group_size: 32\n" in said
