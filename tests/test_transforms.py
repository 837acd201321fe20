"""`Detect` and `DetectorModelHandler`, as other people's pipelines use them."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import apache_beam as beam
import numpy as np
import psutil
import pytest
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from apache_beam.transforms.window import FixedWindows

from beam_jobs.errors import UsageError
from beam_jobs.transforms import Detect, DetectedObject, DetectedPicture, DetectorModelHandler
from beam_jobs.transforms.detect import SharedPool
from tests.fake_detectors import FATAL_WIDTH
from tests.pictures import GREEN, RED, encode, picture, write_pictures

COLOURS = "tests.fake_detectors:colours"


def pipeline(*flags: str) -> beam.Pipeline:
    return beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(list(flags)))


def matches(check):
    """A matcher for `assert_that` of a check of the sorted elements."""
    return lambda elements: check(sorted(elements))


def detector_processes() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        # Others' may end meanwhile, or have ended and not been waited for: such have no command line.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "beam_jobs.processes.child" in child.cmdline():
                found.append(child)
    return found


def test_paths_become_pictures_and_failures(tmp_path):
    names = write_pictures(tmp_path, 9)
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "fatal.png").write_bytes(encode(picture(FATAL_WIDTH, 8)))
    paths = [str(tmp_path / name) for name in (*names, "broken.jpg", "fatal.png", "missing.jpg")]

    def check_pictures(pictures):
        assert [one.uri for one in pictures] == paths[:9]
        assert {(one.width, one.height) for one in pictures} == {(40, 30)}
        assert pictures[1].detections == [
            DetectedObject(1, "1", 1.0, 1.0, 1.0, 11.0, 9.0, None, None),
            DetectedObject(2, "2", 1.0, 20.0, 11.0, 32.0, 28.0, None, None),
        ]

    def check_failures(failures):
        assert [(one.uri, one.stage, one.code) for one in failures] == [
            (paths[9], "decode", "not_an_image"),
            (paths[10], "infer", "crashed"),
            (paths[11], "read", "not_found"),
        ]

    with pipeline() as p:
        found = p | beam.Create(paths) | Detect("tests.fake_detectors:Segfault", min_score=0.3)
        assert_that(found.pictures, matches(check_pictures), label="Pictures")
        assert_that(found.failures, matches(check_failures), label="Failures")
    # What the steps have shared is closed by the last of them.
    assert detector_processes() == []


def test_options_are_those_of_the_job(tmp_path):
    corners = [((x, y, x + 20, y + 20), RED) for x in (5, 475) for y in (5, 275)]
    (tmp_path / "large.png").write_bytes(encode(picture(500, 300, *corners)))

    def check(pictures):
        (boxes,) = ([(one.xmin, one.ymin) for one in each.detections] for each in pictures)
        assert boxes == [(5, 5), (5, 275), (475, 5)]

    with pipeline() as p:
        paths = p | beam.Create([str(tmp_path / "large.png")])
        found = paths | Detect(COLOURS, min_score=0.5, max_detections=3, tile=128, processes=1)
        assert_that(found.pictures, matches(check))


def test_elements_have_a_schema(tmp_path):
    write_pictures(tmp_path, 1)

    def check(rows):
        ((category, mask, points, boxes),) = rows
        assert (category, boxes) == ("person", 2)
        assert mask
        assert len(points) == 51

    def picture_again(one):
        return beam.coders.RowCoder.from_type_hint(DetectedPicture, beam.coders.registry).decode(
            beam.coders.registry.get_coder(DetectedPicture).encode(one)
        )

    with pipeline() as p:
        found = p | beam.Create([str(tmp_path / "picture-0000.png")]) | Detect("tests.fake_detectors:shapes")
        again = found.pictures | beam.Map(picture_again).with_output_types(DetectedPicture)
        rows = again | beam.Select(
            category=lambda one: one.detections[0].category,
            mask=lambda one: one.detections[0].mask,
            points=lambda one: list(one.detections[0].keypoints),
            boxes=lambda one: len(one.detections),
        )
        assert_that(rows, matches(check))


def test_worker_processes_have_pools_of_their_own(tmp_path):
    names = write_pictures(tmp_path / "in", 12)
    paths = [str(tmp_path / "in" / name) for name in names]
    with pipeline("--direct_running_mode=multi_processing", "--direct_num_workers=2") as p:
        found = p | beam.Create([*paths, str(tmp_path / "missing.png")]) | Detect(COLOURS, processes=1)
        lines = (
            found.pictures | "Seen" >> beam.Map(lambda one: f"{one.uri} {len(one.detections)}"),
            found.failures | "Failed" >> beam.Map(lambda one: f"{one.uri} {one.code}"),
        )
        _ = lines | beam.Flatten() | beam.io.WriteToText(str(tmp_path / "out"))
    written = [line for path in tmp_path.glob("out-*") for line in path.read_text().splitlines()]
    assert sorted(written) == sorted([*(f"{path} 2" for path in paths), f"{tmp_path}/missing.png not_found"])


def test_what_cannot_work_is_refused_at_once():
    with pytest.raises(UsageError, match="nothing-like-it"):
        Detect("nothing-like-it")
    with pytest.raises(UsageError, match="nothing-like-it"):
        DetectorModelHandler("nothing-like-it")
    with pytest.raises(ValueError, match="tile must be"):
        Detect(COLOURS, tile=0)
    with pytest.raises(ValueError, match="processes must be"):
        Detect(COLOURS, processes=-1)
    with pytest.raises(ValueError, match="global window"):
        _ = beam.Pipeline() | beam.Create(["a"]) | beam.WindowInto(FixedWindows(60)) | Detect(COLOURS)


def test_a_detector_that_cannot_be_opened_ends_the_pipeline():
    with pytest.raises(Exception, match="no weights here"), pipeline() as p:
        _ = p | beam.Create(["a"]) | Detect("tests.fake_detectors:refuses")
    assert detector_processes() == []


def test_a_step_that_fails_leaves_no_processes(tmp_path):
    def fail(one):
        raise ValueError("not this one")

    names = write_pictures(tmp_path, 1)
    with pytest.raises(Exception, match="not this one"), pipeline() as p:
        _ = (p | beam.Create([str(tmp_path / names[0])]) | Detect(COLOURS)).pictures | beam.Map(fail)
    assert detector_processes() == []


def test_a_pool_is_made_for_its_first_user_and_closed_by_its_last(monkeypatch):
    made: list[list[str]] = []

    class Pool:
        def __init__(self):
            made.append([])

        def close(self):
            made[-1].append("closed")

    def closed_by(stack, pool):
        stack.callback(pool.close)
        return pool

    shared = SharedPool(lambda stack: closed_by(stack, Pool()))
    first = shared.acquire()
    assert shared.acquire() is first
    shared.release()
    assert made == [[]]
    shared.release()
    assert made == [["closed"]]
    assert shared.acquire() is not first
    assert made == [["closed"], []]


def test_run_inference(tmp_path):
    pictures = [picture(40, 30, ((i, 4, i + 10, 14), RED), ((20, 15, 30, 25), GREEN)) for i in range(5)]
    handler = DetectorModelHandler(COLOURS, min_score=0.3)
    assert dict(handler.categories) == {1: "red", 2: "green", 3: "blue"}
    assert len(pickle.dumps(handler)) < 5000

    def check(results):
        for key, result in results:
            np.testing.assert_array_equal(result.example, pictures[key])
            assert result.inference.boxes.tolist() == [[key, 4, key + 10, 14], [20, 15, 30, 25]]
            assert result.model_id == f"{COLOURS}@c0c0c0c0c0c0"

    with pipeline() as p:
        keyed = p | beam.Create(list(enumerate(pictures))) | RunInference(KeyedModelHandler(handler))
        assert_that(keyed, lambda results: check(sorted(results, key=lambda one: one[0])), label="Keyed")
        plain = p | "Plain" >> beam.Create(pictures) | "Infer" >> RunInference(handler)
        assert_that(plain, lambda results: check((int(r.inference.boxes[0, 0]), r) for r in results), label="Plain")


def test_one_thread_at_a_time_is_in_the_detector():
    handler = DetectorModelHandler("tests.fake_detectors:Exclusive")
    model = handler.load_model()
    failed = []

    def work():
        try:
            list(handler.run_inference([picture(40, 30)] * 20, model))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_what_fails_in_run_inference_fails_for_its_batch():
    handler = DetectorModelHandler("tests.fake_detectors:Raise", max_batch_size=1)
    with pipeline() as p:
        examples = p | beam.Create([picture(40, 30), picture(FATAL_WIDTH, 30)])
        good, bad = examples | RunInference(handler).with_exception_handling()
        assert_that(good, lambda results: [len(results)] == [1], label="Good")
        assert_that(
            bad.failed_inferences | beam.Map(lambda failed: str(failed[1][1])),
            matches(lambda messages: messages[0].startswith("InputError") or pytest.fail(str(messages))),
            label="Bad",
        )


def test_imports_wait_until_they_are_needed():
    code = (
        "import sys; import beam_jobs.transforms as transforms; assert 'apache_beam' not in sys.modules;"
        f"transforms.Detect({COLOURS!r}); assert 'apache_beam.ml.inference' not in sys.modules;"
        f"transforms.DetectorModelHandler({COLOURS!r}); assert 'tensorflow' not in sys.modules"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
