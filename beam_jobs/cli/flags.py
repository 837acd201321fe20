"""From a command line to options: the file that may hold flags, and what becomes of those that are Beam's."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from beam_jobs.cli.commands import parser
from beam_jobs.errors import UsageError


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the flags that are Beam's.

    Raises:
        UsageError: a flag that nobody knows, or a file of flags that cannot be used.
    """
    main = parser()
    options, rest = main.parse_known_args(argv)
    ours = _flags_of(main, options.command)
    if getattr(options, "config", None):
        lines = _config_flags(options.config, ours, given=argv)
        at = list(argv).index(options.command) + 1
        options, rest = main.parse_known_args([*argv[:at], *lines, *argv[at:]])
    # What is misspelt is said before what is missing for it.
    if rest and options.command == "demo":
        raise UsageError(_unknown(rest[0], ours, options.command))
    if rest:
        _check_beam(rest, ours, options.command)
    needed = {"detect": ("output",), "evaluate": ("detections", "ground_truth", "output")}
    needed["compare"] = ("ground_truth", "output")
    needed["report"] = ("output",)
    for name in needed.get(options.command, ()):
        what = "SOURCE" if name != "output" else "FILE" if options.command == "report" else "DIR"
        if not getattr(options, name):
            raise UsageError(f"--{name} {what} is missing.")
    return options, rest


def beam_flags() -> list[str]:
    """Every flag that Beam knows. Imports Beam."""
    return [flag for action in _beam_parser()._actions for flag in action.option_strings]


def _flags_of(main: argparse.ArgumentParser, command: str) -> list[str]:
    (commands,) = (action for action in main._actions if isinstance(action, argparse._SubParsersAction))
    return list(_all_flags(commands.choices[command]))


def _all_flags(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (flag for flag in action.option_strings if flag.startswith("--"))
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _all_flags(below)


#: What a word is, that stands where none is looked for.
_STRAY = {
    "check": "`check` takes one folder",
    "compare": "`compare` takes two sources, A and B; Beam's flags follow",
    "evaluate": "Detections are given as --detections SOURCE, the truth as --ground_truth SOURCE",
    "report": "`report` takes one folder",
}


def _check_beam(rest: Sequence[str], ours: Iterable[str], command: str) -> None:
    for word in rest:
        if not word.startswith("-"):
            break
        # What the local engine is, is not the user's to choose: it would change how the job recovers.
        if word.split("=")[0] in ("--direct_num_workers", "--direct_running_mode"):
            raise UsageError(
                f"{word.split('=')[0]} has no use here: --workers says how many detector processes there are."
            )
    _, unknown = _beam_parser().parse_known_args(list(rest))
    if unknown:
        raise UsageError(_unknown(unknown[0], [*ours, *beam_flags()], command))


def _beam_parser() -> argparse.ArgumentParser:
    from apache_beam.options.pipeline_options import PipelineOptions

    collected = argparse.ArgumentParser(allow_abbrev=False, add_help=False, conflict_handler="resolve")
    pending = PipelineOptions.__subclasses__()
    while pending:
        options = pending.pop()
        pending.extend(options.__subclasses__())
        if "_add_argparse_args" in vars(options):
            options._add_argparse_args(collected)
    return collected


def _unknown(word: str, known: Iterable[str], command: str) -> str:
    flag = word.split("=")[0]
    if not flag.startswith("-"):
        inputs = "Inputs are given as --input PATTERN, with quotes around a pattern ('*.jpg')"
        return f"{word}: what is this for? {_STRAY.get(command, inputs)}."
    nearest = difflib.get_close_matches(flag.replace("-", "_").replace("__", "--", 1), list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]}?" if nearest else f" `beam-detect {command} --help` lists the flags."
    return f"There is no flag {flag}.{hint}"


def _config_flags(path: str, ours: Sequence[str], given: Sequence[str]) -> list[str]:
    """The flags of a TOML file as words of a command line, to stand before those that were given."""
    try:
        with open(path, "rb") as file:
            config = tomllib.load(file)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None
    inputs = ("input", "input_list")
    if any(word.split("=")[0] in ("--input", "--input_list") for word in given):
        config = {name: value for name, value in config.items() if name not in inputs}
    words: list[str] = []
    for name, value in config.items():
        if name in ("config", "help") or isinstance(value, dict):
            raise UsageError(f"--config {path}: {name} cannot be set in a file of flags.")
        words += _words(name, value, switch=f"--no_{name}" in ours)
    return words


def _words(name: str, value: Any, *, switch: bool) -> list[str]:
    if isinstance(value, bool):
        if switch:
            return [f"--{name}" if value else f"--no_{name}"]
        return [f"--{name}"] if value else []
    if isinstance(value, list):
        if name == "input":
            return [f"--input={item}" for item in value]
        return [f"--{name}={','.join(map(str, value))}"]
    return [f"--{name}={value}"]
