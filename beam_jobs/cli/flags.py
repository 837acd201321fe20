"""From a command line to options: the file that may hold flags, and what becomes of those that are Beam's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from beam_jobs.cli.commands import parser
from beam_jobs.cli.config_file import config_words, nearest_flag
from beam_jobs.errors import UsageError


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the flags that are Beam's.

    Raises:
        UsageError: a flag that nobody knows, or a file of flags that cannot be used.
    """
    main = parser()
    options, rest = main.parse_known_args(argv)
    command = _command(main, options.command)
    ours = list(_all_flags(command))
    if getattr(options, "config", None):
        lines = config_words(options.config, command, beam_flags, given=argv)
        at = list(argv).index(options.command) + 1
        options, rest = main.parse_known_args([*argv[:at], *lines, *argv[at:]])
    # What is misspelt is said before what is missing for it.
    if rest and options.command == "demo":
        raise UsageError(_unknown(rest[0], options.command, ours))
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


def _command(main: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    (commands,) = (action for action in main._actions if isinstance(action, argparse._SubParsersAction))
    found: argparse.ArgumentParser = commands.choices[name]
    return found


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


def _check_beam(rest: Sequence[str], ours: Sequence[str], command: str) -> None:
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
        raise UsageError(_unknown(unknown[0], command, ours, beam_flags()))


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


def _unknown(word: str, command: str, ours: Sequence[str], beams: Sequence[str] = ()) -> str:
    flag = word.split("=")[0]
    if not flag.startswith("-"):
        inputs = "Inputs are given as --input PATTERN, with quotes around a pattern ('*.jpg')"
        return f"{word}: what is this for? {_STRAY.get(command, inputs)}."
    nearest = nearest_flag(flag, ours, beams)
    hint = f" Did you mean {nearest}?" if nearest else f" `beam-detect {command} --help` lists the flags."
    return f"There is no flag {flag}.{hint}"
