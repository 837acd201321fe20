"""Where objects will be: a Kalman filter of constant velocity over (cx, cy, aspect, height).

As in DeepSORT (N. Wojke, A. Bewley, D. Paulus, "Simple online and realtime tracking with a deep association metric",
ICIP 2017), whose filter and noise ByteTrack takes over: the noise is proportional to the height of the box. The four
quantities do not mix there (all covariances are diagonal), so the filter is four filters of a value and its speed each,
which is the same in less arithmetic. Numbers are Python's: for so few of them numpy takes ten times as long.
"""

from __future__ import annotations

from dataclasses import dataclass

Box = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax in pixels

#: Standard deviations: of places and speeds as shares of the height, of the aspect as they are.
_PLACE, _SPEED = 1 / 20, 1 / 160
_ASPECT, _ASPECT_SEEN, _ASPECT_SPEED = 1e-2, 1e-1, 1e-5


@dataclass(slots=True)
class _Value:
    """A quantity that changes at constant speed, with the variances of both and their covariance."""

    value: float
    variance: float
    speed_variance: float
    speed: float = 0.0
    covariance: float = 0.0

    def predict(self, steps: float, noise: float, speed_noise: float) -> None:
        """`steps` later. Noises are standard deviations in a step; variances grow with time, as a random walk's."""
        self.value += steps * self.speed
        self.variance += steps * (2 * self.covariance + steps * self.speed_variance + noise * noise)
        self.covariance += steps * self.speed_variance
        self.speed_variance += steps * speed_noise * speed_noise

    def update(self, seen: float, noise: float) -> None:
        """It was measured, with this standard deviation."""
        total = self.variance + noise * noise
        surprise = (seen - self.value) / total
        self.value += self.variance * surprise
        self.speed += self.covariance * surprise
        self.speed_variance -= self.covariance * self.covariance / total
        self.variance *= noise * noise / total
        self.covariance *= noise * noise / total


class Motion:
    """The state of one object, seen once and at rest; time counts in steps.

    Args:
        box: where it was seen.
    """

    __slots__ = ("_aspect", "_height", "_x", "_y")

    def __init__(self, box: Box) -> None:
        x, y, aspect, height = _measured(box)
        place, speed = (2 * _PLACE * height) ** 2, (10 * _SPEED * height) ** 2
        self._x, self._y, self._height = (_Value(value, place, speed) for value in (x, y, height))
        self._aspect = _Value(aspect, _ASPECT**2, _ASPECT_SPEED**2)

    def predict(self, steps: float) -> None:
        """Moves on by `steps`; 1 is the reference's frame."""
        place, speed = _PLACE * self._height.value, _SPEED * self._height.value
        for one in (self._x, self._y, self._height):
            one.predict(steps, place, speed)
        self._aspect.predict(steps, _ASPECT, _ASPECT_SPEED)

    def update(self, box: Box) -> None:
        """Takes in where the object was seen."""
        x, y, aspect, height = _measured(box)
        noise = _PLACE * self._height.value
        for one, seen in ((self._x, x), (self._y, y), (self._height, height)):
            one.update(seen, noise)
        self._aspect.update(aspect, _ASPECT_SEEN)

    def rest_height(self) -> None:
        """The height is taken to change no more: what an object that is lost would otherwise grow or shrink by."""
        self._height.speed = 0.0

    @property
    def state(self) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
        """Centre x and y, aspect (width / height) and height; and their changes in a step."""
        x, y, aspect, height = self._x, self._y, self._aspect, self._height
        return (x.value, y.value, aspect.value, height.value), (x.speed, y.speed, aspect.speed, height.speed)

    @property
    def box(self) -> Box:
        """Where the object is."""
        x, y, height = self._x.value, self._y.value, self._height.value
        width = self._aspect.value * height
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _measured(box: Box) -> tuple[float, float, float, float]:
    width, height = box[2] - box[0], box[3] - box[1]
    return box[0] + width / 2, box[1] + height / 2, width / height, height
