"""ByteTrack: identities for the detections of a clip, frame by frame.

Source: Y. Zhang and others, "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022, and the
authors' code (https://github.com/ifzhang/ByteTrack, `yolox/tracker`), whose thresholds the defaults are. Surely seen
boxes are matched to tracks first, by IoU and score; then the doubtful ones to the tracks that are left, which is what
carries a track through an occlusion. Different from that code, because clips here are files and of many classes:

- Time counts in seconds. How long a lost track is looked for does not depend on the frames that are seen, and a gap
  between two frames moves the filter on by as many steps as it is long.
- As there, the class does not decide what matches, so that a track survives a class that flickers; but a box of the
  track's own class counts for more, or else two boxes around one thing (car, truck) would swap their tracks.
- A track that is confirmed in its second frame has its first box too, and numbers go to confirmed tracks only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from beam_jobs.records import Detections
from beam_jobs.tracking.assignment import best_pairs
from beam_jobs.tracking.motion import Box, Motion

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]

#: What the IoU with a box of another class is multiplied with.
_OTHER_CLASS = 0.8
#: The largest distance (1 − IoU · score; of doubtful boxes 1 − IoU) at which a box and a track match.
_SURE, _DOUBTFUL, _UNCONFIRMED = 0.8, 0.5, 0.7
#: By how much a score must be above `high` to begin a track.
_NEW = 0.1
#: Of two tracks, one of them lost, with a larger IoU than this the shorter one ends.
_DUPLICATE_IOU = 0.85


@dataclass(frozen=True, slots=True)
class Tracking:
    """What the tracker goes by.

    Args:
        high: a detection whose score is above it is sure, and one that has 0.1 more begins a track. The doubtful
            ones below can prolong a track only.
        low: detections up to this score are not looked at.
        lost_s: seconds for which a lost track is looked for.

    Raises:
        ValueError: thresholds out of order, or a negative time.
    """

    high: float = 0.5
    low: float = 0.1
    lost_s: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ValueError(f"0 <= low <= high <= 1 must hold, got {self.low} and {self.high}")
        if self.lost_s < 0:
            raise ValueError(f"lost_s must not be negative, got {self.lost_s}")


@dataclass(frozen=True, slots=True)
class Frame:
    """What was found in one frame.

    Args:
        number: the frame's number in its clip.
        time_s: its presentation time in seconds.
        found: its detections, in any order; their boxes have an area.
    """

    number: int
    time_s: float
    found: Detections


@dataclass(frozen=True, slots=True)
class Track:
    """One object of a clip.

    Args:
        track_id: 1 and up, in the order of first frames; within a frame the best score first.
        category_id: the class with the largest sum of scores; of equals the lowest.
        first_frame, last_frame, first_s, last_s: numbers and times of the first and last frame with the object.
        length: frames with the object.
        mean_score: of its detections.
    """

    track_id: int
    category_id: int
    first_frame: int
    last_frame: int
    first_s: float
    last_s: float
    length: int
    mean_score: float


class _Moment(NamedTuple):
    number: int
    time_s: float


@dataclass(slots=True, eq=False)
class _Object:
    """A track in the making."""

    motion: Motion
    birth: int  # its place in the order of births
    first: _Moment
    last: _Moment
    confirmed: bool
    lost: bool = False
    length: int = 0
    votes: dict[int, float] = field(default_factory=dict)

    def add(self, moment: _Moment, category_id: int, score: float) -> None:
        self.last = moment
        self.length += 1
        self.votes[category_id] = self.votes.get(category_id, 0.0) + score

    @property
    def category_id(self) -> int:
        return max(self.votes, key=lambda category_id: (self.votes[category_id], -category_id))


def track(frames: Iterable[Frame], step_s: float, settings: Tracking | None = None) -> tuple[list[Ints], list[Track]]:
    """The track of each detection, and the tracks, of one clip.

    Results do not depend on the order of the detections within a frame.

    Args:
        frames: in the order of their times; taken one by one, so that they need not all be in memory.
        step_s: the usual time between two of them, above 0: the unit of the constant velocity.
        settings: ByteTrack's by default.

    Returns:
        For each frame the int32 [N] track ids of its detections, 0 where one has no track; and the tracks by id.

    Raises:
        ValueError: times that decrease, or a step that is not above 0.
    """
    if not step_s > 0:
        raise ValueError(f"step_s must be above 0, got {step_s}")
    tracker = _Tracker(step_s, settings or Tracking())
    births = [tracker.advance(frame) for frame in frames]
    confirmed = [thing for thing in tracker.objects if thing.confirmed]
    ids = np.zeros(len(tracker.objects) + 1, np.int32)  # one more, for the births that are -1
    ids[[thing.birth for thing in confirmed]] = np.arange(1, len(confirmed) + 1)
    return [ids[numbers] for numbers in births], [_summary(i, thing) for i, thing in enumerate(confirmed, 1)]


def _summary(track_id: int, thing: _Object) -> Track:
    return Track(
        track_id,
        thing.category_id,
        thing.first.number,
        thing.last.number,
        thing.first.time_s,
        thing.last.time_s,
        thing.length,
        sum(thing.votes.values()) / thing.length,
    )


class _Tracker:
    def __init__(self, step_s: float, settings: Tracking) -> None:
        self.objects: list[_Object] = []  # all that ever were, in the order of their births
        self._alive: list[_Object] = []  # those that are looked for
        self._step_s = step_s
        self._settings = settings
        self._now: float | None = None

    def advance(self, frame: Frame) -> Ints:
        """The births of the tracks of the frame's detections; -1 where one has none."""
        is_first = self._now is None
        self._predict(frame.time_s)
        moment = _Moment(frame.number, frame.time_s)
        found, order = _in_order(frame.found)
        births = np.full(len(found), -1, np.int32)
        self._match(moment, found, births)
        for thing in self._alive:
            thing.lost = thing.last != moment
        kept = [thing for thing in self._alive if self._is_looked_for(thing, frame.time_s)]
        for i in np.flatnonzero((births < 0) & (found.scores >= self._settings.high + _NEW)).tolist():
            thing = _Object(Motion(_box(found, i)), len(self.objects), moment, moment, confirmed=is_first)
            self._give(thing, moment, found, i, births)
            self.objects.append(thing)
            kept.append(thing)
        self._alive = _without_duplicates(kept)
        return births[np.argsort(order)]

    def _predict(self, time_s: float) -> None:
        if self._now is not None and not time_s >= self._now:
            raise ValueError(f"times must not decrease, got {time_s} s after {self._now} s")
        steps = 0.0 if self._now is None else (time_s - self._now) / self._step_s
        self._now = time_s
        for thing in self._alive:
            if thing.lost:
                thing.motion.rest_height()
            thing.motion.predict(steps)

    def _match(self, moment: _Moment, found: Detections, births: Ints) -> None:
        """Prolongs tracks, in three rounds, by detections that no round before took."""
        high, low = self._settings.high, self._settings.low
        scores = found.scores.astype(np.float64)

        def match(things: list[_Object], which: NDArray[np.intp], limit: float, weights: Floats) -> None:
            likeness = _likeness(things, found.take(which)) * weights
            for i, j in best_pairs(limit - (1 - likeness)):
                thing, k = things[i], int(which[j])
                thing.motion.update(_box(found, k))
                thing.confirmed = True
                self._give(thing, moment, found, k, births)

        sure = np.flatnonzero(found.scores > high)
        doubtful = np.flatnonzero((found.scores > low) & (found.scores <= high))
        confirmed = [thing for thing in self._alive if thing.confirmed]
        unconfirmed = [thing for thing in self._alive if not thing.confirmed]
        match(confirmed, sure, _SURE, scores[sure])
        left = [thing for thing in confirmed if not thing.lost and thing.last != moment]
        match(left, doubtful, _DOUBTFUL, np.ones(len(doubtful)))
        sure = sure[births[sure] < 0]
        match(unconfirmed, sure, _UNCONFIRMED, scores[sure])

    def _is_looked_for(self, thing: _Object, time_s: float) -> bool:
        if not thing.lost:
            return True
        return thing.confirmed and time_s - thing.last.time_s <= self._settings.lost_s

    @staticmethod
    def _give(thing: _Object, moment: _Moment, found: Detections, i: int, births: Ints) -> None:
        thing.add(moment, int(found.category_ids[i]), float(found.scores[i]))
        births[i] = thing.birth


def _box(found: Detections, i: int) -> Box:
    xmin, ymin, xmax, ymax = found.boxes[i].tolist()
    return xmin, ymin, xmax, ymax


def _in_order(found: Detections) -> tuple[Detections, NDArray[np.intp]]:
    """The detections by score (the best first), class and box, and where each came from."""
    keys = (*found.boxes.T[::-1], found.category_ids, -found.scores)
    order = np.lexsort(keys)
    return found.take(order), order


def _likeness(things: list[_Object], found: Detections) -> Floats:
    """float64 [things, detections]: IoU, less where the class is another."""
    if not things or not len(found):
        return np.zeros((len(things), len(found)))
    same = np.array([thing.category_id for thing in things], np.int32)[:, None] == found.category_ids
    weights: Floats = np.where(same, 1.0, _OTHER_CLASS)
    boxes = np.array([thing.motion.box for thing in things])
    likeness: Floats = _iou(boxes, found.boxes.astype(np.float64)) * weights
    return likeness


def _iou(boxes: Floats, others: Floats) -> Floats:
    """float64 [boxes, others]."""
    shared = np.minimum(boxes[:, None, 2:], others[:, 2:]) - np.maximum(boxes[:, None, :2], others[:, :2])
    both = np.prod(np.maximum(shared, 0), axis=2)
    area, other = (np.prod(np.maximum(b[:, 2:] - b[:, :2], 0), axis=1) for b in (boxes, others))
    union = area[:, None] + other - both
    shares: Floats = np.divide(both, union, out=np.zeros_like(both), where=union > 0)
    return shares


def _without_duplicates(things: list[_Object]) -> list[_Object]:
    """Those that are left where a lost track lies on one that is seen: the one that has been there for longer."""
    seen = [thing for thing in things if not thing.lost]
    lost = [thing for thing in things if thing.lost]
    if not seen or not lost:
        return things
    overlaps = _iou(np.array([one.motion.box for one in seen]), np.array([other.motion.box for other in lost]))
    ended: set[int] = set()
    for i, j in np.argwhere(overlaps > _DUPLICATE_IOU).tolist():
        one, other = seen[i], lost[j]
        lived = one.last.time_s - one.first.time_s > other.last.time_s - other.first.time_s
        ended.add(other.birth if lived else one.birth)
    return [thing for thing in things if thing.birth not in ended]
