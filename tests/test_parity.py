"""Our detectors against the Object Detection API itself: the script that compares, and what it says of two families."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from beam_jobs.detectors import catalogue, litert_forms, open_detector
from beam_jobs.detectors.agreement import LITERT, disagreement
from beam_jobs.detectors.od_api import environment
from beam_jobs.errors import UsageError
from scripts import _parity


def found(*rows: tuple[float, float, float], **others: Any) -> dict[str, Any]:
    """Detections of a class, a score, and a box that begins at a place: the API's tensors of one picture, padded."""
    classes, scores, places = np.array([*rows, (1, 0, 0)]).T
    boxes = np.stack([places, places, places + 0.2, places + 0.3], axis=1)
    return {
        "num_detections": np.array(float(len(rows))),
        "detection_classes": classes,
        "detection_scores": scores,
        "detection_boxes": boxes,
    } | others


A, B = (1, 0.9, 0.1), (2, 0.8, 0.4)


@pytest.mark.parametrize(
    ("api", "ours", "matched", "lost"),
    [
        (found(A, B), found(A, B), 2, 0),
        (found(A, B), found(B, A), 2, 0),  # the order is free, what has a score is not
        (found(A), found((1, 0.90005, 0.1005)), 1, 0),
        (found(A), found((1, 0.9002, 0.1)), 0, 2),
        (found(A), found((1, 0.9, 0.102)), 0, 2),
        (found(A), found((2, 0.9, 0.1)), 0, 2),
        (found(A, B), found(A), 1, 1),
        (found(A), found(A, A), 1, 1),
        (found(), found(), 0, 0),
    ],
)
def test_detections_are_matched_as_sets(api: Any, ours: Any, matched: int, lost: int) -> None:
    result = _parity.agreement(api, ours)
    assert (result.matched, result.lost) == (matched, lost)
    assert bool(result.faults) == (lost > 0 or matched == 0), "nothing that was compared is no agreement"


def test_the_nearest_of_several_is_the_counterpart() -> None:
    near = [(1, 0.9, 0.1), (1, 0.9, 0.1004)]
    result = _parity.agreement(found(*near), found(*near[::-1]))
    assert (result.matched, result.differences["box"]) == (2, 0)


@pytest.mark.parametrize(
    ("key", "shape", "what"),
    [
        ("detection_masks", (2, 3, 3), "mask"),
        ("detection_keypoints", (2, 4, 2), "keypoint"),
        ("detection_keypoint_scores", (2, 4), "keypoint score"),
    ],
)
def test_masks_and_keypoints_are_compared(key: str, shape: tuple[int, ...], what: str) -> None:
    api = np.random.default_rng(0).random(shape)
    ours = api.copy()
    ours[0].flat[1] += 0.01
    same = _parity.agreement(found(A, **{key: api}), found(A, **{key: api}))
    assert same.faults == []
    other = _parity.agreement(found(A, **{key: api}), found(A, **{key: ours}))
    assert other.faults == [f"{what} differs by 0.01"]


def test_raw_rows_may_change_places_but_not_differ() -> None:
    api = np.arange(30.0).reshape(10, 3)
    swapped = api[[0, 2, 1, *range(3, 10)]]
    assert _parity.raw_difference(api, swapped) == 0
    swapped[1, 0] += 0.5
    assert _parity.raw_difference(api, swapped) == 0.5
    doubled = api[[0, 1, 1, *range(3, 10)]]
    assert _parity.raw_difference(api, doubled) > 0, "a row that is lost differs from all others"


def test_a_family_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no yolo\.config in .*: it has centernet_keypoints, "):
        _parity.main(["yolo", f"--work={tmp_path}"])


class Compared(NamedTuple):
    """What the script says of a family, in the folder that it made."""

    family: str
    folder: Path
    status: int
    report: str


@pytest.fixture(scope="module", params=["ssd_mobilenet_v2", "centernet_resnet50"])
def compared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Of a family; made with the API's environment, which is made when it is missing."""
    try:
        environment.ensure(_parity.say)
    except UsageError as error:
        pytest.skip(str(error))
    work = tmp_path_factory.mktemp("work")
    report = work / "report.md"
    status = _parity.main([request.param, f"--work={work}", f"--output={report}"])
    return Compared(request.param, work / request.param, status, report.read_text())


@pytest.mark.slow
def test_we_find_what_the_api_finds(compared: Compared) -> None:
    """From the SavedModel of the API's own exporter, and from the checkpoint, which our export makes one of."""
    assert compared.status == 0, compared.report
    rows = [line for line in compared.report.splitlines() if line.startswith(f"| {compared.family} ")]
    assert [row.split(" | ")[1] for row in rows] == list(_parity.ROUTES)
    assert all("yes, 400 detections" in row for row in rows), rows
    assert " | free | " in rows[1], "our export has a free batch"


@pytest.mark.slow
@pytest.mark.parametrize("route", ["zoo", "only-checkpoint"])
def test_litert_finds_what_tensorflow_finds(compared: Compared, route: str) -> None:
    """In photographs, with the API's own export and with ours."""
    spec = catalogue.resolve(str(compared.folder / route), label_map=None, threads=1, engine="litert")
    original = replace(spec, form="original")
    with np.load(compared.folder.parent / "pixels.npz") as pixels:
        pictures = list(pixels.values())
    chosen = litert_forms.choose(spec, lambda: pictures, _parity.say)
    assert chosen == spec, chosen.form_note
    ours, reference = open_detector(spec), open_detector(original)
    assert (ours.info.engine, reference.info.engine) == ("litert", "tensorflow")
    assert disagreement(reference, ours, pictures, LITERT) is None
    assert sum(map(len, ours.detect(pictures))) == 400
