"""A file of flags: TOML, as words of a command line. What is wrong is said with the file and the line."""

from __future__ import annotations

import argparse
import difflib
import re
import tomllib
from collections.abc import Callable, Sequence
from typing import Any

from beam_jobs.errors import UsageError

#: How alike two names are, from 0 to 1, for one to be a misspelling of the other. Beam has hundreds of flags.
_ALIKE, _ALIKE_BEAM = 0.6, 0.8


def config_words(
    path: str, command: argparse.ArgumentParser, beam_flags: Callable[[], Sequence[str]], given: Sequence[str]
) -> list[str]:
    """The flags of a TOML file as words of a command line, to stand before those that were given.

    Args:
        command: the parser of our flags.
        beam_flags: all of Beam's; asked only for a name that is none of ours.
        given: the command line.

    Raises:
        UsageError: the file cannot be read, or holds what is no flag or no value of one; file, line and remedy.
    """
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
        config = tomllib.loads(text)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    inputs = ("input", "input_list")
    if any(word.split("=")[0] in ("--input", "--input_list") for word in given):
        config = {name: value for name, value in config.items() if name not in inputs}
    words: list[str] = []
    for name, value in config.items():
        try:
            words += _words(name, value, command, beam_flags)
        except ValueError as error:
            raise UsageError(f"--config {path}, line {_line_of(name, text)}: {error}.") from None
    return words


def nearest_flag(flag: str, ours: Sequence[str], beams: Sequence[str]) -> str | None:
    """The flag that was most likely meant: one of ours if any is like it, else one of Beam's that hardly differs."""

    def plain(name: str) -> str:
        return name.lstrip("-").replace("-", "_")

    # The negations are near to much: they are for who writes one.
    negated = plain(flag).startswith("no_")
    for flags, alike in ((ours, _ALIKE), (beams, _ALIKE_BEAM)):
        known = {plain(one): one for one in flags if negated or not plain(one).startswith("no_")}
        if nearest := difflib.get_close_matches(plain(flag), known, n=1, cutoff=alike):
            return known[nearest[0]]
    return None


def _words(
    name: str, value: Any, command: argparse.ArgumentParser, beam_flags: Callable[[], Sequence[str]]
) -> list[str]:
    flag = f"--{name}"
    if name in ("config", "help") or isinstance(value, dict):
        raise ValueError(f"{name} cannot be set in a file of flags")
    action = command._option_string_actions.get(flag)
    if action is None:
        if flag not in (beams := beam_flags()):
            nearest = nearest_flag(flag, list(command._option_string_actions), beams)
            raise ValueError(f"there is no flag {flag}" + (f"; did you mean {nearest.lstrip('-')}?" if nearest else ""))
        return _of_beam(flag, value)
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ValueError(f"{name} is true or false, not {value!r}")
        return [flag if value else f"--no_{name}"]
    if isinstance(value, bool):
        raise ValueError(f"{name} takes a value, not {str(value).lower()}")
    values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, list) and name != "input":
        values = [",".join(values)]
    for one in values:
        try:
            command._get_values(action, [one])
        except argparse.ArgumentError as error:
            raise ValueError(f"{name}: {error.message}") from None
    return [f"{flag}={one}" for one in values]


def _of_beam(flag: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [flag] if value else []
    return [f"{flag}={','.join(map(str, value)) if isinstance(value, list) else value}"]


def _line_of(name: str, text: str) -> int:
    """Where a name is set, or a section of this name begins."""
    pattern = rf"""^[ \t]*\[*[ \t]*["']?{re.escape(name)}["']?[ \t]*[=.\]]"""
    found = re.search(pattern, text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1
