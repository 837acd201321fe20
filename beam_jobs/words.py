"""Numbers and addresses in sentences: one picture, two pictures; a URL without what is secret in it."""

from __future__ import annotations

import re

_MAY_HOLD_SECRETS = re.compile(r"(https?|rtsps?|udp)://", re.IGNORECASE)


def plural(number: int, one: str, many: str = "") -> str:
    """`one` for a number of 1, else `many`; left out, it is `one` with an s."""
    return one if number == 1 else many or f"{one}s"


def counted(number: int, one: str, many: str = "") -> str:
    """The number, its thousands apart, and what there are so many of: `1 image is`, `1,234 images are`."""
    return f"{number:,} {plural(number, one, many)}"


def shown_url(url: str) -> str:
    """The address without what may be secret in it: user, password, and a signed address's query."""
    if not _MAY_HOLD_SECRETS.match(url):
        return url
    place, *query = without_user(url).split("?", 1)
    return place + "?…" * len(query)


def without_user(url: str) -> str:
    """The address without user and password."""
    return re.sub(r"^(\w+://)[^/?#]*@", r"\1", url)
