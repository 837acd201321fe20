"""Which pictures share a call of the detector, and what becomes of them when the call fails."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors.base import BatchingDetector, BatchKey, Detector, DetectorInfo, DoesNotFitError, Picture
from beam_jobs.detectors.tiles import Tiling, cut_out, merge
from beam_jobs.errors import InputError, JobError
from beam_jobs.records import Detections
from beam_jobs.words import counted

#: What a call may hold on a GPU when nobody says: 16 pictures of 512×512, 46 of 300×300. On a CPU, one picture.
GPU_BATCH_PIXELS = 1 << 22

#: Takes the positions of the pictures that are at work from now on.
Starting = Callable[[tuple[int, ...]], None]


def batch_pixels(said: int | None, info: DetectorInfo) -> int:
    """The budget of a call in pixels of the network's input, when the user said so much; 0 for one picture a call."""
    if said is not None:
        return said
    return GPU_BATCH_PIXELS if info.on_gpu else 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a picture.

    Args:
        found: what is in it, or why nobody knows.
        infer_ms: its share of the call's time; of a picture in tiles, of all its calls, and the time to merge.
        call_pictures: how many shared the call: pictures, or views of pictures in tiles (of which the most count).
        shrunk_calls: calls that did not fit and were made smaller, counted on one picture of each, that has a result.
    """

    found: Detections | InputError
    infer_ms: float
    call_pictures: int = 1
    shrunk_calls: int = 0


class Caller:
    """Calls one detector. What shares a call follows from the sizes of the pictures, in their order, and the budget.

    A call that does not fit is made in two halves, and later ones are made smaller at once. One that fails otherwise is
    made again picture by picture, so that each fails for itself.

    Args:
        most_pixels: the budget of a call, in pixels of the network's input; 0 for one picture a call.
        tiling: how pictures are cut; to the detector every tile is a picture. None for whole pictures only.
        min_score: detections in tiles below it are left out before they are merged.
    """

    def __init__(
        self, detector: Detector, most_pixels: int, tiling: Tiling | None = None, min_score: float = 0.0
    ) -> None:
        self._detector = detector
        self._tiling = tiling
        self._min_score = min_score
        self._batching = detector if most_pixels and isinstance(detector, BatchingDetector) else None
        self._most_pixels = most_pixels
        callers = detector.info.callers
        self._threads = ThreadPoolExecutor(callers, "caller") if callers > 1 else None

    @property
    def takes_several(self) -> bool:
        """Whether anything is gained by asking about several pictures at once."""
        return self._batching is not None or self._threads is not None

    def ask(self, pictures: Sequence[Picture], starting: Starting) -> list[Answer]:
        """What is in each of the pictures, in order. Tells `starting` the positions of those that are at work.

        Raises:
            JobError: the detector cannot say which pictures may share a call.
        """
        if self._tiling is None:
            return self._ask(pictures, starting)
        views = [self._tiling.views(*picture.shape[:2]) for picture in pictures]
        picture_of = np.repeat(np.arange(len(pictures)), [len(some) for some in views]).tolist()
        shown = chain(*(cut_out(picture, some) for picture, some in zip(pictures, views, strict=True)))
        answers = iter(self._ask(list(shown), lambda at: starting(tuple(dict.fromkeys(picture_of[i] for i in at)))))
        return [_merged(list(islice(answers, len(some))), some, self._min_score) for some in views]

    def _ask(self, pictures: Sequence[Picture], starting: Starting) -> list[Answer]:
        calls = self._calls(pictures)
        if self._threads is None:
            made = [self._make(pictures, call, starting) for call in calls]
        else:
            # They overlap: while one prepares its pictures, another is at the GPU.
            starting(tuple(range(len(pictures))))
            made = list(self._threads.map(lambda call: self._make(pictures, call, lambda _: None), calls))
        answers = dict(zip(chain(*calls), chain(*made), strict=True))
        return [answers[i] for i in range(len(pictures))]

    def _calls(self, pictures: Sequence[Picture]) -> list[tuple[int, ...]]:
        """The positions of the pictures of each call, in the order of their first ones."""
        calls: list[list[int]] = []
        unfilled: dict[BatchKey, list[int]] = {}
        for i, picture in enumerate(pictures):
            key = self._key(picture)
            if key is None or key not in unfilled:
                calls.append([])
            call = calls[-1] if key is None else unfilled.setdefault(key, calls[-1])
            call.append(i)
            if key is not None and (len(call) + 1) * key.pixels > self._most_pixels:
                del unfilled[key]
        return [tuple(call) for call in calls]

    def _key(self, picture: Picture) -> BatchKey | None:
        if self._batching is None:
            return None
        try:
            return self._batching.batch_key(*picture.shape[:2])
        except Exception as error:
            raise JobError(f"The detector's batch_key raised {_stable_words(error)}") from error

    def _make(self, pictures: Sequence[Picture], call: tuple[int, ...], starting: Starting) -> list[Answer]:
        starting(call)
        start = time.perf_counter()
        try:
            # A tile is copied only now, so that no more of them are held than share a call.
            found = _one_each(self._detector.detect([np.ascontiguousarray(pictures[i]) for i in call]), len(call))
        except Exception as error:
            if len(call) == 1:
                return [Answer(_refusal(error), (time.perf_counter() - start) * 1e3)]
            does_not_fit = isinstance(error, DoesNotFitError)
            size = -(-len(call) // 2) if does_not_fit else 1
            if does_not_fit and (key := self._key(pictures[call[0]])) is not None:
                self._most_pixels = min(self._most_pixels, size * key.pixels)
            smaller = [call[i : i + size] for i in range(0, len(call), size)]
            answers = list(chain(*(self._make(pictures, part, starting) for part in smaller)))
            # Failed pictures have no row that could hold it.
            at = next((i for i, answer in enumerate(answers) if isinstance(answer.found, Detections)), 0)
            answers[at] = replace(answers[at], shrunk_calls=answers[at].shrunk_calls + does_not_fit)
            return answers
        infer_ms = (time.perf_counter() - start) * 1e3 / len(call)
        return [Answer(each, infer_ms, len(call)) for each in found]


def _merged(answers: Sequence[Answer], views: NDArray[np.float32], min_score: float) -> Answer:
    """The answer for a picture, given those for its views; if one failed, nobody knows what is in the picture."""
    start = time.perf_counter()
    seen = [answer.found for answer in answers if isinstance(answer.found, Detections)]
    found: Detections | InputError
    if len(seen) < len(answers):
        found = next(answer.found for answer in answers if isinstance(answer.found, InputError))
    else:
        try:
            found = merge([some.take(some.scores >= min_score) for some in seen], views)
        except ValueError as error:  # masks, or keypoints, in some views and not in others
            found = _refusal(error)
    return Answer(
        found,
        sum(answer.infer_ms for answer in answers) + (time.perf_counter() - start) * 1e3,
        max(answer.call_pictures for answer in answers),
        sum(answer.shrunk_calls for answer in answers),
    )


def _one_each(found: Sequence[Detections], pictures: int) -> Sequence[Detections]:
    """The detections of a call. What a detector of somebody else's gives may be anything."""
    if isinstance(found, Sequence) and len(found) == pictures and all(isinstance(one, Detections) for one in found):
        for one in found:
            if fault := _not_numbers(one):
                raise InputError("infer", "inference", f"The detector gave {fault}.")
        return found
    given = [type(item).__name__ for item in found] if isinstance(found, Sequence) else type(found).__name__
    raise TypeError(f"detect() must return one Detections a picture, got {given} for {counted(pictures, 'picture')}")


def _not_numbers(found: Detections) -> str | None:
    """What of it makes no sense: then nothing of that picture can be trusted. Sides of boxes may be infinite."""
    if not np.isfinite(found.scores).all():
        return "scores that are not finite numbers"
    if np.isnan(found.boxes).any():
        return "boxes that are not numbers"
    if found.masks is not None and not np.isfinite(found.masks.grids).all():
        return "masks that are not finite numbers"
    return None


def _refusal(error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError("infer", "inference", f"The detector raised {_stable_words(error)}")


def _stable_words(error: Exception) -> str:
    """An error's kind and first line, without what differs from run to run: addresses and temporary paths."""
    first = (str(error).strip().splitlines() or [""])[0][:300]
    words = re.sub(re.escape(tempfile.gettempdir()) + r"/\S*", "(temporary file)", first)
    words = re.sub(r"0x[0-9a-fA-F]+", "(address)", words)
    return f"{type(error).__name__}: {words}" if words else f"{type(error).__name__}."
