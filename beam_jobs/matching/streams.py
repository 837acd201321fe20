"""Live streams as inputs: which addresses are such, and what they are called where others read it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from beam_jobs.errors import UsageError
from beam_jobs.words import shown_url

_STREAM = re.compile(r"(rtsps?|udp)://|v4l2:/", re.IGNORECASE)
#: What may be a picture's address as well: it is a stream only where all inputs are said to be such.
_HTTP = re.compile(r"https?://", re.IGNORECASE)


def is_stream(address: str, *, stated: bool = False) -> bool:
    """Whether it is the address of a live stream.

    Args:
        stated: whoever gave it says that it is one: http and https are streams, too.
    """
    return bool(_STREAM.match(address) or (stated and _HTTP.match(address)))


def named_streams(addresses: Sequence[str]) -> Mapping[str, str]:
    """The addresses by their names, which are what is shown of them: user, password and query are not.

    Raises:
        UsageError: two differ in these only.
    """
    named: dict[str, str] = {}
    for address in addresses:
        name = shown_url(address)
        if named.setdefault(name, address) != address:
            raise UsageError(
                f"--input {name}: two streams have this name, because user, password and query are not shown."
                " Read each in a run of its own."
            )
    return named
