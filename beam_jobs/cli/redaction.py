"""A command line without what is secret in it: it is written down in `run.json`, which others read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from beam_jobs.words import shown_url

HIDDEN = "***"
_SECRET = re.compile(r"--\w*(access_key|secret|token|password|credential)\w*", re.IGNORECASE)


def redacted(words: Sequence[str]) -> list[str]:
    """The words, with the values of flags that name a key, a token or a password hidden, and what URLs hold of such."""
    return list(_redacted(words))


def _redacted(words: Sequence[str]) -> Iterator[str]:
    is_value = False
    for word in words:
        flag, equals, value = word.partition("=")
        if is_value and not word.startswith("--"):
            yield HIDDEN
            is_value = False
        elif _SECRET.fullmatch(flag):
            yield f"{flag}={HIDDEN}" if equals else flag
            is_value = not equals
        else:
            yield f"{flag}={shown_url(value)}" if equals and flag.startswith("--") else shown_url(word)
            is_value = False
