"""The values of flags, from text; what is wrong with one, argparse says after the name of the flag."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Callable
from typing import TypeVar

#: More detector processes than cores gain nothing; far more than these exhaust what the system gives a process.
MAX_WORKERS = 256
#: 4,000×3,000 pixels are 3,000 tiles of 64 pixels; with an overlap of 0.8, 560 of 640.
MIN_TILE, MAX_OVERLAP = 64, 0.8
#: The number of a frame is a part of its image id.
MAX_CLIP_FRAMES = (1 << 22) - 1

_N = TypeVar("_N", int, float)


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    return _number(int, text, lambda value: value >= 1, "a whole number of 1 or more")


def whole(text: str) -> int:
    """A whole number of 0 or more."""
    return _number(int, text, lambda value: value >= 0, "a whole number of 0 or more")


def integer(text: str) -> int:
    """A whole number."""
    return _number(int, text, lambda _: True, "a whole number")


def workers(text: str) -> int:
    """A number of detector processes."""
    return _number(int, text, lambda value: 1 <= value <= MAX_WORKERS, f"a whole number from 1 to {MAX_WORKERS}")


def clip_frames(text: str) -> int:
    """A number of frames of a clip."""
    right = f"a whole number from 1 to {MAX_CLIP_FRAMES}"
    return _number(int, text, lambda value: 1 <= value <= MAX_CLIP_FRAMES, right)


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    return _number(float, text, lambda value: value > 0, "a number of seconds above 0")


def rate(text: str) -> float:
    """A number above 0, of something a second."""
    return _number(float, text, lambda value: value > 0, "a number above 0")


def share(text: str) -> float:
    """A number between 0 and 1."""
    return _number(float, text, lambda value: 0 <= value <= 1, "a number between 0 and 1")


def tile(text: str) -> int:
    """The side of a tile in pixels: smaller ones show nothing, and there would be very many."""
    return _number(int, text, lambda value: value >= MIN_TILE, f"a whole number of {MIN_TILE} or more")


def overlap(text: str) -> float:
    """The share that two tiles have in common: the number of tiles grows with the square of the rest."""
    return _number(float, text, lambda value: 0 <= value <= MAX_OVERLAP, f"a number between 0 and {MAX_OVERLAP}")


def _number(kind: Callable[[str], _N], text: str, is_right: Callable[[_N], bool], words: str) -> _N:
    try:
        value = kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {words}") from None
    if not math.isfinite(value) or not is_right(value):
        raise argparse.ArgumentTypeError(f"{text} is not {words}")
    return value


def moment(text: str) -> float:
    """A time in a clip, as seconds or as [HH:]MM:SS, in seconds."""
    words = "a time, as 90.5 or 00:01:30.5"
    parts = [_number(float, part, lambda value: value >= 0, words) for part in text.split(":")]
    if len(parts) > 3 or max(parts[1:], default=0) >= 60:
        raise argparse.ArgumentTypeError(f"{text} is not {words}")
    return float(sum(part * 60.0**i for i, part in enumerate(reversed(parts))))


def sha256(text: str) -> str:
    """A sha256 in hexadecimal."""
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError(f"{text} is not a sha256: 64 hexadecimal digits")
    return text.lower()


def numbers(text: str) -> tuple[float, ...]:
    """Shares with commas between them, ascending, each once."""
    return tuple(sorted({share(part) for part in text.split(",")}))


def counts(text: str) -> tuple[int, ...]:
    """Whole numbers with commas between them, ascending, each once."""
    return tuple(sorted({positive(part) for part in text.split(",")}))


def wholes(text: str) -> tuple[int, ...]:
    """Whole numbers of 0 or more with commas between them, ascending, each once."""
    return tuple(sorted({whole(part) for part in text.split(",")}))


def area_ranges(text: str) -> tuple[tuple[str, float, float], ...]:
    """NAME:LOW:HIGH with commas between them."""
    ranges = []
    for part in text.split(","):
        name, *bounds = part.split(":")
        try:
            low, high = map(float, bounds)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{part} is not NAME:LOW:HIGH, as small:0:1024") from None
        ranges.append((name, low, high))
    return tuple(ranges)


def names(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no class")
    return names
