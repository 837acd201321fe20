"""Detectors that need no model: quick, exact, and, where a test asks for it, fatal."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from beam_jobs.detectors import open_detector
from beam_jobs.detectors.base import BatchKey, DetectorInfo, DetectorSpec, DoesNotFitError, Picture
from beam_jobs.records import BoxMasks, Detections
from tests.clips import number_of

CATEGORIES = {1: "red", 2: "green", 3: "blue"}

#: A picture of this width does what the fatal detectors are made for.
FATAL_WIDTH = 13
#: So does a frame of a clip that shows this number.
FATAL_FRAME = 17


class ColourDetector:
    """Finds one box a colour: around all pixels in which that channel alone is above 128.

    The score is the share of the box that is of that colour.
    """

    info = DetectorInfo("python", {"input": "uint8 [height, width, 3]"})

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        return [self.one(picture) for picture in pictures]

    def one(self, picture: Picture) -> Detections:
        boxes, scores, ids = [], [], []
        strong = picture > 128
        for channel in range(3):
            others = [c for c in range(3) if c != channel]
            mask = strong[:, :, channel] & ~strong[:, :, others].any(axis=2)
            ys, xs = np.nonzero(mask)
            if len(xs):
                box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
                boxes.append(box)
                scores.append(mask.sum() / ((box[2] - box[0]) * (box[3] - box[1])))
                ids.append(channel + 1)
        return Detections(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(ids, np.int32)
        )


class _Colours:
    """A factory that says of itself what it makes."""

    categories: ClassVar[Mapping[int, str]] = CATEGORIES
    fingerprint = "c0" * 32

    def __call__(self) -> ColourDetector:
        return ColourDetector()


colours = _Colours()


class _ShowsItsCommand(_Colours):
    """What others see of its process (`ps`), on the process's standard error."""

    def __call__(self) -> ColourDetector:
        with open("/proc/self/cmdline", "rb") as file:
            print(file.read().replace(b"\0", b" ").decode(), file=sys.stderr, flush=True)
        return ColourDetector()


shows_its_command = _ShowsItsCommand()


class _Slow(ColourDetector):
    """Takes 0.5 s for a picture of 2,000 pixels or more a row, and 2 ms for others; does not look at them."""

    def one(self, picture: Picture) -> Detections:
        time.sleep(0.5 if picture.shape[1] >= 2000 else 0.002)
        return Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int32))


def slow_on_large() -> ColourDetector:
    return _Slow()


#: Names the file that `Awaiting` waits for.
AWAITED = "BEAM_JOBS_TEST_AWAITED"


class Awaiting(ColourDetector):
    """At a picture of `FATAL_WIDTH` it waits for a file, and gives up after a while."""

    def one(self, picture: Picture) -> Detections:
        deadline = time.monotonic() + 30
        while picture.shape[1] == FATAL_WIDTH and not os.path.exists(os.environ[AWAITED]):
            if time.monotonic() > deadline:
                raise TimeoutError("It did not come.")
            time.sleep(0.01)
        return super().one(picture)


class BoxesOnly(ColourDetector):
    """Says what it gives, as SavedModels do."""

    info = DetectorInfo("python", {"outputs": "detection_boxes, detection_scores, detection_classes"})


class MaskDetector(ColourDetector):
    """Finds what `ColourDetector` does, each with a mask: a grid of 33x33 over the box that is 1 on its colour."""

    def one(self, picture: Picture) -> Detections:
        found = super().one(picture)
        grids = [self.grid(picture, box, number) for box, number in zip(found.boxes, found.category_ids, strict=True)]
        return replace(found, masks=BoxMasks(np.array(grids, np.float32).reshape(-1, 33, 33), found.boxes))

    def grid(self, picture: Picture, box: NDArray[np.float32], category_id: int) -> NDArray[np.bool_]:
        height, width = picture.shape[:2]
        xmin, ymin, xmax, ymax = box.astype(int).tolist()
        # The corners of a grid are those of the box, and the corner pixels' centres those of the picture.
        xs = np.linspace(xmin, xmax, 33) * (width - 1) / width
        ys = np.linspace(ymin, ymax, 33) * (height - 1) / height
        seen = picture[np.rint(ys).astype(int)][:, np.rint(xs).astype(int)] > 128
        return np.asarray(seen[..., category_id - 1] & (seen.sum(axis=2) == 1))


class _Masks(_Colours):
    def __call__(self) -> ColourDetector:
        return MaskDetector()


masks = _Masks()

#: Where the 17 keypoints of a person are in its box: x, y as shares of it.
POSE = np.array(
    [
        *((0.5, 0.1), (0.55, 0.05), (0.45, 0.05), (0.6, 0.1), (0.4, 0.1), (0.7, 0.3), (0.3, 0.3), (0.9, 0.45)),
        *((0.1, 0.45), (0.95, 0.2), (0.05, 0.6), (0.6, 0.6), (0.4, 0.6), (0.65, 0.8), (0.35, 0.8), (0.7, 0.97)),
        (0.3, 0.97),
    ],
    np.float32,
)


class PoseDetector(ColourDetector):
    """Finds what `ColourDetector` does; what is red is a person with keypoints at `POSE`, but for the left ankle."""

    def one(self, picture: Picture) -> Detections:
        found = super().one(picture)
        keypoints = np.zeros((len(found), 17, 3), np.float32)
        low, high = found.boxes[:, np.newaxis, :2], found.boxes[:, np.newaxis, 2:]
        keypoints[..., :2] = low + POSE * (high - low)
        keypoints[..., 2] = np.linspace(0.9, 0.1, 17)
        keypoints[:, 15] = 0
        keypoints[found.category_ids != 1] = 0
        return replace(found, keypoints=keypoints)


class ShapeDetector(PoseDetector, MaskDetector):
    """Masks and keypoints."""


class _Shapes(_Colours):
    categories: ClassVar[Mapping[int, str]] = {**CATEGORIES, 1: "person"}

    def __call__(self) -> ColourDetector:
        return ShapeDetector()


shapes = _Shapes()


class _Fatal(ColourDetector):
    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        for picture in pictures:
            if picture.shape[1] == FATAL_WIDTH:
                self.end()
        return super().detect(pictures)

    def end(self) -> None:
        raise NotImplementedError


class Segfault(_Fatal):
    """Kills its process, as a bug in a native library does."""

    def end(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class SegfaultOnce(_Fatal):
    """Kills its process the first time only: a marker file remembers."""

    def end(self) -> None:
        marker = os.environ["BEAM_DETECT_TEST_MARKER"]
        if not os.path.exists(marker):
            with open(marker, "w"):
                pass
            os.kill(os.getpid(), signal.SIGSEGV)


class LeavesHalfAFile(_Fatal):
    """Dies, the first time, while it writes an annotated picture: a temporary file stays in the folder named."""

    def end(self) -> None:
        half = os.path.join(os.environ["BEAM_DETECT_TEST_MARKER"], ".tmp-beam-detect-0123")
        if not os.path.exists(f"{os.environ['BEAM_DETECT_TEST_MARKER']}-done"):
            for path in (half, f"{os.environ['BEAM_DETECT_TEST_MARKER']}-done"):
                with open(path, "w"):
                    pass
            os.kill(os.getpid(), signal.SIGKILL)


class Hang(_Fatal):
    """Never comes back."""

    def end(self) -> None:
        time.sleep(3600)


class EatsMemory(_Fatal):
    """Takes memory until somebody stops it, or there is 4 GB of it."""

    def end(self) -> None:
        eaten = [np.ones(1 << 22) for _ in range(125)]
        time.sleep(3600)
        del eaten


class Raise(_Fatal):
    """Raises, with an object's address in the message."""

    def end(self) -> None:
        raise RuntimeError(f"cannot do {object()}")


class KillsAtFrame(ColourDetector):
    """Kills its process at a frame of a clip."""

    def one(self, picture: Picture) -> Detections:
        if number_of(picture) == FATAL_FRAME:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().one(picture)


class HangsAtFrame(ColourDetector):
    """Never comes back from a frame of a clip."""

    def one(self, picture: Picture) -> Detections:
        if number_of(picture) == FATAL_FRAME:
            time.sleep(3600)
        return super().one(picture)


class Noting(ColourDetector):
    """Appends the digest of each picture to the file that the environment names."""

    def one(self, picture: Picture) -> Detections:
        with open(os.environ["BEAM_DETECT_TEST_SEEN"], "a") as file:
            file.write(hashlib.sha256(picture.tobytes()).hexdigest() + "\n")
        return super().one(picture)


class Exclusive(ColourDetector):
    """Raises when it is called while it is at work."""

    def __init__(self) -> None:
        self._at_work = False

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        if self._at_work:
            raise RuntimeError("called while at work")
        self._at_work = True
        time.sleep(1e-3)
        self._at_work = False
        return super().detect(pictures)


class Slow(ColourDetector):
    """Takes its time with every picture."""

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        time.sleep(0.2)
        return super().detect(pictures)


class Busy(ColourDetector):
    """Takes 10 ms of CPU for a call."""

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        return super().detect(pictures)


class Together(ColourDetector):
    """Pictures share calls, whatever their size; scores depend on how many there are, and on the place among them.

    As those of real models do in the last bits, so that what shared a call shows in the results.
    """

    def batch_key(self, height: int, width: int) -> BatchKey | None:
        return BatchKey((0, 0), 1000)

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        found = super().detect(pictures)
        less = [np.float32(1 - 1e-3 * len(pictures) - 1e-5 * i) for i in range(len(pictures))]
        return [replace(one, scores=one.scores * part) for one, part in zip(found, less, strict=True)]


class TogetherSlow(Together, Slow):
    """The same, and every call takes its time."""


class TogetherSegfault(Together, Segfault):
    """Kills its process when the fatal picture is in a call."""


class TogetherSegfaultOnce(Together, SegfaultOnce):
    """The same, the first time only."""


class TogetherRaise(Together, Raise):
    """Raises when the fatal picture is in a call."""


class TogetherSmall(Together):
    """Has room for three pictures."""

    def detect(self, pictures: Sequence[Picture]) -> Sequence[Detections]:
        if len(pictures) > 3:
            raise DoesNotFitError("three at most")
        return super().detect(pictures)


def small_gpu() -> Any:
    """The SavedModel that the environment names, on a device without room for more than 4 pictures a call."""
    import tensorflow as tf

    folder = os.environ["BEAM_DETECT_TEST_MODEL"]
    detector: Any = open_detector(DetectorSpec("saved_model", "small", folder, "0" * 64, {}))
    model = detector.model

    def within_memory(batch: Any) -> Any:
        if len(batch) > 4:
            raise tf.errors.ResourceExhaustedError(None, None, f"OOM when allocating tensor with shape{batch.shape}")
        return model.call(batch)

    detector.model = replace(model, call=within_memory)
    return detector


class NotNumbers(MaskDetector):
    """Gives NaN as one of its numbers."""

    def __init__(self, what: str) -> None:
        self._what = what

    def one(self, picture: Picture) -> Detections:
        found = super().one(picture)
        assert found.masks is not None
        {"scores": found.scores, "boxes": found.boxes, "masks": found.masks.grids}[self._what][:1] = np.nan
        return found


class Unnamed(ColourDetector):
    """Finds classes that no label map names, and boxes outside of the picture."""

    def one(self, picture: Picture) -> Detections:
        height, width = picture.shape[:2]
        boxes = [(-5, -5, width + 5, height + 5), (width + 1, 0, width + 9, 5), (0, 0, 2, 2)]
        return Detections(
            np.array(boxes, np.float32), np.array([0.5, 0.9, 0.7], np.float32), np.array([77, 1, 1], np.int32)
        )


def ends_while_loading() -> ColourDetector:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def refuses() -> ColourDetector:
    raise ValueError("no weights here")


def only_with_marker() -> ColourDetector:
    """Can be opened where the environment says so."""
    return ColourDetector() if "BEAM_DETECT_TEST_MARKER" in os.environ else refuses()
