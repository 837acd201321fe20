"""Our detectors against the Object Detection API itself: the script that compares, and what it says of two families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


@pytest.fixture(scope="module")
def api() -> None:
    """The environment of the API, made when it is missing."""
    try:
        environment.ensure(_parity.say)
    except UsageError as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.usefixtures("api")
@pytest.mark.parametrize("family", ["ssd_mobilenet_v2", "centernet_resnet50"])
def test_we_find_what_the_api_finds(tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str) -> None:
    """From the SavedModel of the API's own exporter, and from the checkpoint, which our export makes one of."""
    report = tmp_path / "report.md"
    status = _parity.main([family, f"--work={tmp_path / 'work'}", f"--output={report}"])
    assert status == 0, report.read_text()
    rows = [line for line in report.read_text().splitlines() if line.startswith(f"| {family} ")]
    assert [row.split(" | ")[1] for row in rows] == list(_parity.ROUTES)
    assert all("yes, 400 detections" in row for row in rows), rows
    assert " | free | " in rows[1], "our export has a free batch"
