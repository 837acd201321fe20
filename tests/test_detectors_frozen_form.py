"""The frozen form: used where it finds what the original finds, and made once."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from beam_jobs.cli.main import main
from beam_jobs.detectors import cache, catalogue, form_making, frozen_form, open_detector
from beam_jobs.detectors.agreement import difference
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.detectors.graph_size import count_nodes
from beam_jobs.detectors.scenes import scenes
from beam_jobs.errors import UsageError
from beam_jobs.records import BoxMasks, Detections
from beam_jobs.runs.manifest import Manifest
from tests import saved_models
from tests.form_makers import run_here
from tests.model_server import archive_of, serving
from tests.pictures import write_pictures
from tests.test_batches import ask, assert_alike, found_in, mixed_pictures


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    saved_models.build_all(folder)
    return folder


@pytest.fixture(scope="module", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the module: each form is made once."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["BEAM_DETECT_CACHE"] = str(folder)
    return folder


@pytest.fixture(autouse=True)
def _all_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_form, "FEW_NODES", 0)
    monkeypatch.setattr(form_making, "run_quietly", run_here)


def spec_of(path: Path) -> DetectorSpec:
    return catalogue.resolve(str(path), label_map=None, threads=1)


def choose(path: Path, pictures: list[NDArray[np.uint8]] | None = None) -> DetectorSpec:
    return frozen_form.choose(spec_of(path), lambda: pictures or [], lambda line: None)


class TestForms:
    @pytest.mark.parametrize("name", ["masks", "keypoints", "tf_example", "tf1", "tf1_frozen"])
    def test_the_frozen_form_finds_the_same(self, models: Path, name: str) -> None:
        spec = choose(models / name)
        assert (spec.form, spec.form_note) == ("frozen", "")
        frozen, original = open_detector(spec), open_detector(spec_of(models / name))
        assert frozen.info.details["form"] == "frozen"
        assert original.info.details["form"] == spec.kind
        assert frozen.info.details["outputs"] == original.info.details["outputs"]
        for found, expected in zip(frozen.detect(scenes()), original.detect(scenes()), strict=True):
            assert len(found) == 2
            assert_array_equal(found.boxes, expected.boxes)
            assert_array_equal(found.scores, expected.scores)

    @pytest.mark.parametrize(
        ("name", "why"), [("random", "it finds something else in picture 1 of 2"), ("counts", "it cannot be made: ")]
    )
    def test_a_model_that_it_disagrees_with_is_used_as_it_is_and_that_is_remembered(
        self, models: Path, name: str, why: str
    ) -> None:
        spec = choose(models / name)
        assert spec.form == "original"
        assert f"the frozen form is not used: {why}" in spec.form_note
        assert open_detector(spec).info.details["form"] == f"saved_model; {spec.form_note}"
        said: list[str] = []
        assert frozen_form.choose(spec_of(models / name), pytest.fail, said.append) == spec
        assert said == []
        (entry, verdict) = frozen_form.ensure(spec, pytest.fail, said.append)
        assert verdict.graph is None
        assert {path.name for path in entry.iterdir()} == {"manifest.json", "verdict.json"}
        with pytest.raises(UsageError, match=r"The job uses the frozen form of .*Start the job on a host"):
            open_detector(replace(spec, form="frozen"))

    def test_the_jobs_own_pictures_are_looked_at(self, models: Path) -> None:
        """What differs is seen in tall pictures only, and the made ones are wide."""
        tall = np.full((50, 20, 3), 255, np.uint8)
        assert "picture 3 of 3" in choose(models / "random_if_tall", [tall]).form_note

    @pytest.mark.parametrize(
        ("name", "config", "calls"),
        [
            ("letterboxed", True, [13] * 13),
            # Nothing need be known of the model's resizer.
            ("letterboxed", False, [13] * 13),
            ("fixed_shape", False, [13] * 13),
            # What it finds depends on the size before the resizer, too: it cannot be cut behind that.
            ("peeking", True, [5] * 5 + [4] * 4 + [1] * 4),
        ],
    )
    def test_pictures_of_any_sizes_share_its_calls(
        self, models: Path, tmp_path: Path, name: str, config: bool, calls: list[int]
    ) -> None:
        shutil.copytree(models / name, tmp_path / name)
        if not config:
            (tmp_path / name / "pipeline.config").unlink()
        detector, pictures = open_detector(choose(tmp_path / name)), mixed_pictures()
        assert detector.info.details["form"] == "frozen"
        alone, together = ask(detector, pictures, 0), ask(detector, pictures, 13 * 96 * 96)
        assert sorted((answer.call_pictures for answer in together), reverse=True) == calls
        assert_alike(alone, together)
        assert len({tuple(one.scores) for one in found_in(together)}) > 8

    def test_a_damaged_entry_is_made_again(self, models: Path) -> None:
        spec = choose(models / "masks")
        entry, _ = frozen_form.ensure(spec, pytest.fail, pytest.fail)
        whole = count_nodes(entry / "graph.pb")
        (entry / "graph.pb").write_bytes((entry / "graph.pb").read_bytes()[:-1])
        said: list[str] = []
        frozen_form.ensure(spec, lambda: [], said.append)
        assert "is damaged, outdated or unfinished" in said[0]
        assert count_nodes(entry / "graph.pb") == whole

    @pytest.mark.parametrize(
        ("end", "why"),
        [(TimeoutError(), "making it took longer than 840 s"), ((-9, ""), "making it ended with status -9: ?")],
    )
    def test_what_is_cut_short_is_tried_once_more(
        self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: object, why: str
    ) -> None:
        monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path))
        tries: list[object] = []

        def cut_short(*_: object) -> object:
            tries.append(end)
            if isinstance(end, Exception):
                raise end
            return end

        monkeypatch.setattr(form_making, "run_quietly", cut_short)
        for expected in (1, 2, 2):
            assert choose(models / "zoo").form_note == f"the frozen form is not used: {why}"
            assert len(tries) == expected
        # Another version of this program, or somebody who says so, has it tried again.
        monkeypatch.setattr(form_making, "program_version", lambda: "next")
        choose(models / "zoo")
        assert len(tries) == 3
        [name] = cache.entries()
        monkeypatch.setattr(form_making, "run_quietly", run_here)
        assert main(["models", "remove", name]) == 0
        assert choose(models / "zoo").form == "frozen"

    def test_a_second_try_may_be_better(self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path))
        monkeypatch.setattr(form_making, "run_quietly", lambda *_: (-9, ""))
        assert choose(models / "zoo").form == "original"
        monkeypatch.setattr(form_making, "run_quietly", run_here)
        assert choose(models / "zoo").form == "frozen"

    def test_the_commands_for_the_cache_know_them(
        self, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("BEAM_DETECT_CACHE", str(tmp_path))
        with serving() as server:
            top = models / "zoo"
            files = {f"saved_model/{p.relative_to(top)}": p.read_bytes() for p in top.rglob("*") if p.is_file()}
            url = f"{server.url}/mine.tar.gz"
            server.files["/mine.tar.gz"] = archive_of(files, "mine/")
            spec = catalogue.resolve(url, label_map=None, threads=1)
        assert frozen_form.choose(spec, lambda: [], lambda line: None).form == "frozen"
        assert choose(models / "random").form == "original"
        capsys.readouterr()
        assert main(["models", "verify"]) == 0
        said = sorted(capsys.readouterr().out.splitlines())
        whole, refused = sorted(said[:2], key=len)
        assert re.fullmatch(r"frozen-\w+, the frozen form of mine: whole", whole)
        assert re.fullmatch(
            r"(frozen-\w+), the frozen form of random: whole; not used: it finds something else in picture 1 of 2: .*; "
            r"to try again: beam-detect models remove \1",
            refused,
        )
        assert said[2] == f"{url}: whole"
        # What was made of a model goes with it.
        assert main(["models", "remove", url]) == 0
        assert cache.entries() == [refused.split(",")[0]]

    def test_two_processes_make_it_once(self, models: Path, tmp_path: Path) -> None:
        code = (
            "import sys; from beam_jobs.detectors import catalogue, frozen_form; frozen_form.FEW_NODES = 0\n"
            "spec = catalogue.resolve(sys.argv[1], label_map=None, threads=1)\n"
            "print(frozen_form.choose(spec, lambda: [], print).form)"
        )
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "BEAM_DETECT_CACHE": str(tmp_path)}
        command = [sys.executable, "-c", code, str(models / "zoo")]
        with ThreadPoolExecutor() as threads:
            done = list(
                threads.map(
                    lambda _: subprocess.run(command, capture_output=True, text=True, env=environment, check=True),
                    range(2),
                )
            )
        said = "".join(each.stdout for each in done).splitlines()
        assert said.count("frozen") == 2
        assert sum("preparing zoo" in line for line in said) == 1

    def test_a_job_uses_it_and_says_so(self, models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        write_pictures(tmp_path / "in", 2)
        job = ["detect", f"--input={tmp_path / 'in'}", "--workers=1"]
        assert main([*job, f"--model={models / 'masks'}", f"--output={tmp_path / 'out'}"]) == 0
        manifest = Manifest.read(str(tmp_path / "out"))
        assert (manifest.model.details["form"], manifest.job["form"]) == ("frozen", "frozen")
        assert manifest.counts.detections == 4
        capsys.readouterr()
        assert main([*job, f"--model={models / 'random'}", f"--output={tmp_path / 'none'}", "--dry_run"]) == 0
        assert "form: saved_model; the frozen form is not used: it finds something else" in capsys.readouterr().out

    def test_what_cannot_be_kept_or_opened_is_used_as_it_is(
        self, models: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BEAM_DETECT_CACHE", "/proc/none")
        assert "no frozen form: " in choose(models / "zoo").form_note

    def test_a_model_that_is_no_detector_is_not_remembered(self, models: Path, cache_folder: Path) -> None:
        before = set((cache_folder / "models").glob("*"))
        spec = choose(models / "classifier")
        assert "classifier is not a detector" in spec.form_note
        assert {path for path in (cache_folder / "models").glob("*") if path.is_dir()} <= before
        with pytest.raises(UsageError, match="classifier is not a detector"):
            open_detector(spec)


def test_small_models_and_those_of_ones_own_need_no_form(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_form, "FEW_NODES", 2000)
    assert choose(models / "zoo") == spec_of(models / "zoo")
    own = DetectorSpec("factory", "mine", "mine:make", "0" * 64, {})
    assert frozen_form.choose(own, pytest.fail, pytest.fail) == own


def test_nodes_are_counted_as_tensorflow_counts_them(models: Path, tmp_path: Path) -> None:
    from tensorflow.core.protobuf import saved_model_pb2

    path = models / "encoded" / "saved_model.pb"
    (graph,) = [meta.graph_def for meta in saved_model_pb2.SavedModel.FromString(path.read_bytes()).meta_graphs]
    expected = len(graph.node) + sum(len(function.node_def) for function in graph.library.function)
    assert count_nodes(path) == expected > len(graph.node)
    frozen = tmp_path / "graph.pb"
    frozen.write_bytes(graph.SerializeToString())
    assert count_nodes(frozen) == expected
    frozen.write_bytes(frozen.read_bytes()[:-1])
    with pytest.raises(ValueError, match="ends early"):
        count_nodes(frozen)


class TestAgreement:
    @staticmethod
    def found(scores: list[float], shift: float = 0.0, mask: float = 0.5, keypoint: float = 3.0) -> Detections:
        """Boxes of 200 pixels beside each other, classes 1, 2, …"""
        n = len(scores)
        boxes = np.array([[200 * i + shift, 0, 200 * i + 200, 100] for i in range(n)], np.float32).reshape(n, 4)
        keypoints = np.full((n, 2, 3), keypoint, np.float32)
        masks = BoxMasks(np.full((n, 4, 4), mask, np.float32), boxes)
        return Detections(boxes, np.array(scores, np.float32), np.arange(1, n + 1, dtype=np.int32), masks, keypoints)

    def test_within_the_tolerances(self) -> None:
        expected = self.found([0.9, 0.5])
        assert difference(expected, self.found([0.90009, 0.49991], 0.19, 0.5009, 3.00009)) is None
        assert difference(self.found([]), self.found([])) is None

    @pytest.mark.parametrize(
        "other",
        [
            {"scores": [0.9, 0.5002]},
            {"scores": [0.9002, 0.5]},
            {"scores": [0.9, 0.5], "shift": 0.21},
            {"scores": [0.9, 0.5], "mask": 0.502},
            {"scores": [0.9, 0.5], "keypoint": 3.0002},
            {"scores": [0.9]},
        ],
    )
    def test_beyond_them(self, other: dict[str, Any]) -> None:
        assert difference(self.found([0.9, 0.5]), self.found(**other)) is not None

    def test_order_is_free_among_scores_that_are_alike_and_so_is_who_is_last(self) -> None:
        expected = self.found([0.9, 0.50002, 0.5])
        assert difference(expected, expected.take(np.array([0, 2, 1]))) is None
        other = self.found([0.9, 0.50002, 0.5, 0.5])
        assert difference(expected, other.take(np.array([0, 1, 3]))) is None
        assert difference(expected, other.take(np.array([1, 2, 3]))) is not None

    def test_one_mask_in_fifty_may_be_off(self) -> None:
        def with_odd_masks(count: int) -> Detections:
            made = self.found([0.5] * 100)
            assert made.masks is not None
            made.masks.grids[:count] = 0.7
            return made

        assert difference(with_odd_masks(0), with_odd_masks(2)) is None
        assert difference(with_odd_masks(0), with_odd_masks(3)) == "3 of 100 masks differ"

    def test_another_class_is_another_detection(self) -> None:
        expected = self.found([0.9, 0.5])
        other = replace(expected, category_ids=np.array([3, 2], np.int32))
        said = difference(expected, other)
        assert said is not None
        assert said.startswith("class 3, score 0.900000")
        assert "instead of class 1" in said


def test_the_verdict_is_plain_json(models: Path) -> None:
    entry, verdict = frozen_form.ensure(choose(models / "masks"), pytest.fail, cache.report_to_stderr)
    assert verdict.graph is not None
    said = json.loads((entry / "verdict.json").read_bytes())
    assert said["reason"] is None
    assert said["graph"]["outputs"][0] == "detection_boxes"


def test_nothing_is_bound_to_a_device(models: Path) -> None:
    """A form that is made where there is no GPU may run where there is one."""
    from beam_jobs.detectors.frozen_graph import read_graph

    entry, _ = frozen_form.ensure(choose(models / "tf_example"), pytest.fail, cache.report_to_stderr)
    graph = read_graph(entry / "graph.pb")
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert {node.device for node in nodes} == {""}
