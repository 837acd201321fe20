"""Numbers in sentences: one picture, two pictures."""

from __future__ import annotations


def plural(number: int, one: str, many: str = "") -> str:
    """`one` for a number of 1, else `many`; left out, it is `one` with an s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """The number, its thousands apart, and what there are so many of: `1 image is`, `1,234 images are`."""
    return f"{number:,} {plural(number, one, many)}"
