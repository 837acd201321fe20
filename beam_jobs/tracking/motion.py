"""Where objects will be: a Kalman filter of constant velocity over (cx, cy, aspect, height).

As in DeepSORT (N. Wojke, A. Bewley, D. Paulus, "Simple online and realtime tracking with a deep association metric",
ICIP 2017), whose filter and noise ByteTrack takes over: the noise is proportional to the height of the box. The four
quantities do not mix there (all covariances are diagonal), so the filter is four filters of position and velocity each,
which is the same in less arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_POSITION, _VELOCITY = 1 / 20, 1 / 160  # standard deviations as shares of the height
_HEIGHT = 3


@dataclass(slots=True, eq=False)
class Motion:
    """The state of one object, in steps of time.

    Args:
        position: float64 [4]: centre x and y in pixels, width / height, height in pixels.
        velocity: float64 [4]: their change in a step.
        covariance: float64 [4, 3]: of each, the variances of position and velocity, and their covariance.
    """

    position: Floats
    velocity: Floats
    covariance: Floats

    @classmethod
    def begun(cls, box: Floats) -> Motion:
        """The state of an object seen once, at rest. `box` is xmin, ymin, xmax, ymax."""
        position = _measured(box)
        height = position[_HEIGHT]
        spread = _spread(height, 2 * _POSITION, 1e-2)
        speed = _spread(height, 10 * _VELOCITY, 1e-5)
        return cls(position, np.zeros(4), np.stack([spread**2, speed**2, np.zeros(4)], axis=1))

    def predict(self, steps: float) -> None:
        """Moves on by `steps`; 1 is the reference's frame, whose noise grows with time as a random walk's does."""
        height = self.position[_HEIGHT]
        spread = _spread(height, _POSITION, 1e-2)
        speed = _spread(height, _VELOCITY, 1e-5)
        position, velocity, both = self.covariance.T
        self.covariance = np.stack(
            [
                position + 2 * steps * both + steps**2 * velocity + steps * spread**2,
                velocity + steps * speed**2,
                both + steps * velocity,
            ],
            axis=1,
        )
        self.position = self.position + steps * self.velocity

    def update(self, box: Floats) -> None:
        """Takes in where the object was seen: xmin, ymin, xmax, ymax."""
        noise = _spread(self.position[_HEIGHT], _POSITION, 1e-1) ** 2
        position, velocity, both = self.covariance.T
        total = position + noise
        surprise = _measured(box) - self.position
        self.position = self.position + position / total * surprise
        self.velocity = self.velocity + both / total * surprise
        self.covariance = np.stack(
            [position * noise / total, velocity - both**2 / total, both * noise / total],
            axis=1,
        )

    def rest_height(self) -> None:
        """The height is taken to change no more: what an object that is lost would otherwise grow or shrink by."""
        self.velocity[_HEIGHT] = 0.0

    def box(self) -> Floats:
        """float64 [4], xmin, ymin, xmax, ymax in pixels."""
        centre, (aspect, height) = self.position[:2], self.position[2:]
        half = np.array([aspect * height / 2, height / 2])
        return np.concatenate([centre - half, centre + half])


def _measured(box: Floats) -> Floats:
    width, height = box[2] - box[0], box[3] - box[1]
    return np.array([box[0] + width / 2, box[1] + height / 2, width / height, height])


def _spread(height: float, share: float, of_aspect: float) -> Floats:
    """Standard deviations of centre x, centre y, aspect and height."""
    return np.array([share * height, share * height, of_aspect, share * height])
