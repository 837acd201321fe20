"""The values of flags, from text; argparse says what is wrong with one, by the name of its function."""

from __future__ import annotations

import argparse
import math
import re

#: More detector processes than cores gain nothing; far more than these exhaust what the system gives a process.
MAX_WORKERS = 256
#: 4,000×3,000 pixels are 3,000 tiles of 64 pixels; with an overlap of 0.8, 560 of 640.
MIN_TILE, MAX_OVERLAP = 64, 0.8


def positive(text: str) -> int:
    """A whole number of 1 or more."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return value


def whole(text: str) -> int:
    """A whole number of 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 0 or more")
    return value


def workers(text: str) -> int:
    """A number of detector processes."""
    value = positive(text)
    if value > MAX_WORKERS:
        raise argparse.ArgumentTypeError(f"{text} is more than {MAX_WORKERS}")
    return value


def seconds(text: str) -> float:
    """A number of seconds above 0."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds above 0")
    return value


def rate(text: str) -> float:
    """A number above 0, of something a second."""
    value = float(text)
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text} is not a number above 0")
    return value


def moment(text: str) -> float:
    """A time in a clip, as seconds or as [HH:]MM:SS, in seconds."""
    parts = [float(part) for part in text.split(":")]
    if (
        len(parts) > 3
        or not all(math.isfinite(part) and part >= 0 for part in parts)
        or max(parts[1:], default=0) >= 60
    ):
        raise argparse.ArgumentTypeError(f"{text} is not a time, as 90.5 or 00:01:30.5")
    return float(sum(part * 60.0**i for i, part in enumerate(reversed(parts))))


def share(text: str) -> float:
    """A number between 0 and 1."""
    value = float(text)
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def tile(text: str) -> int:
    """The side of a tile in pixels: smaller ones show nothing, and there would be very many."""
    value = int(text)
    if value < MIN_TILE:
        raise argparse.ArgumentTypeError(f"{text} is not a number of {MIN_TILE} or more")
    return value


def overlap(text: str) -> float:
    """The share that two tiles have in common: the number of tiles grows with the square of the rest."""
    value = float(text)
    if not 0 <= value <= MAX_OVERLAP:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {MAX_OVERLAP}")
    return value


# argparse names the type in its own message.
rate.__name__, moment.__name__ = "number", "time"
positive.__name__ = whole.__name__ = workers.__name__ = tile.__name__ = "whole number"
share.__name__ = overlap.__name__ = "number"


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


numbers.__name__ = "list of numbers"
counts.__name__ = wholes.__name__ = "list of whole numbers"


def names(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError(f"{text!r} names no class")
    return names
