"""The two engines of coco-ssd find the same on photographs."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from beam_jobs.cli.demo import PHOTOGRAPHS
from beam_jobs.detectors import catalogue, open_detector
from beam_jobs.detectors.base import Engine
from beam_jobs.records import Detections

pytestmark = pytest.mark.model

#: The least that is compared, and how much more of it is at stake at the edge.
MIN_SCORE, SCORE, PIXELS = 0.05, 1e-3, 0.5


def found_by(engine: Engine, photographs: list[np.ndarray]) -> list[Detections]:
    spec = catalogue.resolve("coco-ssd", label_map=None, threads=1, engine=engine)
    assert spec.engine == engine
    return list(open_detector(replace(spec, min_score=MIN_SCORE - SCORE)).detect(photographs))


def test_the_same_classes_boxes_and_scores() -> None:
    skimage = importlib.util.find_spec("skimage")
    if skimage is None or skimage.origin is None:
        pytest.skip("scikit-image has the photographs")
    files = [Path(skimage.origin).parent / "data" / name for name in PHOTOGRAPHS]
    photographs = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    both = zip(found_by("litert", photographs), found_by("tensorflow", photographs), strict=True)
    for file, (ours, reference) in zip(files, both, strict=True):
        assert (reference.scores >= MIN_SCORE).sum() > 2, file
        for one, other in ((ours, reference), (reference, ours)):
            same = one.category_ids[:, None] == other.category_ids
            same &= np.abs(one.scores[:, None] - other.scores) <= SCORE
            same &= np.abs(one.boxes[:, None] - other.boxes).max(axis=2) <= PIXELS
            assert same.any(axis=1)[one.scores >= MIN_SCORE].all(), file
