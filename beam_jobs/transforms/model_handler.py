"""Detectors for Beam's RunInference."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from apache_beam.ml.inference.base import ModelHandler, PredictionResult

from beam_jobs.detectors import catalogue, open_detector
from beam_jobs.detectors.base import Picture
from beam_jobs.detectors.tiles import Tiling
from beam_jobs.errors import InputError
from beam_jobs.processes.calls import Caller, batch_pixels
from beam_jobs.processes.select import Selection, select
from beam_jobs.records import Detections


class OpenDetector:
    """A detector that any thread may call, one at a time."""

    def __init__(self, caller: Caller, rules: Selection) -> None:
        self._caller = caller
        self._rules = rules
        self._lock = threading.Lock()

    def detect(self, pictures: Sequence[Picture]) -> Iterator[Detections]:
        """The detections of each picture, best first.

        Raises:
            InputError: the detector failed on one.
        """
        with self._lock:
            answers = self._caller.ask(pictures, lambda _: None)
        for picture, answer in zip(pictures, answers, strict=True):
            if isinstance(answer.found, InputError):
                raise answer.found
            height, width = picture.shape[:2]
            yield select(answer.found, width, height, self._rules)[0]


class DetectorModelHandler(ModelHandler[Picture, PredictionResult, OpenDetector]):
    """`RunInference(DetectorModelHandler("coco-ssd"))`: from pictures, uint8 [height, width, 3] RGB, to `Detections`.

    Gives a `PredictionResult` a picture, with the picture, its detections (best first), and the model's name and
    fingerprint. The detector runs in the worker's own process, so that what kills it kills the worker; `Detect`, which
    takes paths, is not so fragile, and is quicker. What fails, fails for its batch.

    Args:
        model: what `beam-detect detect --model` takes; it is looked up here, and opened on the workers.
        label_map: a file that names the classes.
        min_score: detections below it are left out.
        max_detections: the best so many of a picture; None for all that the model gives.
        tile: detect in tiles of so many pixels a side as well; None for whole pictures only.
        tile_overlap: share of a tile that it has in common with the next.
        threads: threads inside one call.
        batch_pixels: what a call may hold, in pixels of the network's input; 0 for one picture a call, None for what
            suits where it runs.
        max_batch_size: pictures that RunInference hands over at a time, at most.

    Raises:
        UsageError: the model is not there, or is no detector.
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        model: str = catalogue.DEFAULT,
        *,
        label_map: str | None = None,
        min_score: float = 0.05,
        max_detections: int | None = None,
        tile: int | None = None,
        tile_overlap: float = 0.2,
        threads: int = 1,
        batch_pixels: int | None = None,
        max_batch_size: int = 16,
    ) -> None:
        super().__init__(max_batch_size=max_batch_size)
        self._spec = catalogue.resolve(model, label_map=label_map, threads=threads, min_score=min_score)
        self._rules = Selection(min_score, max_detections)
        self._tiling = None if tile is None else Tiling(tile, tile_overlap)
        self._batch_pixels = batch_pixels

    @property
    def categories(self) -> Mapping[int, str]:
        """The names of the classes by `category_id`."""
        return self._spec.categories

    def load_model(self) -> OpenDetector:
        """Opens the detector."""
        detector = open_detector(self._spec)
        budget = batch_pixels(self._batch_pixels, detector.info)
        return OpenDetector(Caller(detector, budget, self._tiling, self._rules.min_score), self._rules)

    def run_inference(
        self, batch: Sequence[Picture], model: OpenDetector, inference_args: dict[str, Any] | None = None
    ) -> Iterator[PredictionResult]:
        """The detections of each picture."""
        for picture, found in zip(batch, model.detect(batch), strict=True):
            yield PredictionResult(picture, found, self._spec.label)

    def get_num_bytes(self, batch: Sequence[Picture]) -> int:
        """Of the pixels."""
        return sum(picture.nbytes for picture in batch)

    def validate_inference_args(self, inference_args: dict[str, Any] | None) -> None:
        """There are none."""
        if inference_args:
            raise ValueError(f"DetectorModelHandler takes no inference_args, got {sorted(inference_args)}")
