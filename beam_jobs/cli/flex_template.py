"""The Flex Template of Dataflow: its parameters are the flags of `beam-detect detect`.

Format: https://cloud.google.com/dataflow/docs/guides/templates/configuring-flex-templates#metadata
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from beam_jobs.cli import values
from beam_jobs.cli.commands import parser
from beam_jobs.cli.main import main as run_program

#: Flags that make no sense for a job that is started so: a file of the launcher's, an end without a job, live streams.
_LEFT_OUT = ("config", "dry_run", "duration", "help", "max_frames", "no_wait", "profile", "reconnect_s")
_NUMBERS = (
    values.clip_frames,
    values.overlap,
    values.positive,
    values.rate,
    values.seconds,
    values.share,
    values.tile,
    values.whole,
    values.workers,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Submits the job that a template's launcher was asked for; returns the exit status, as `cli.main`."""
    given = sys.argv[1:] if argv is None else argv
    return run_program(["detect", *flags_of(given), "--no_wait"])


def flags_of(parameters: Sequence[str]) -> Iterator[str]:
    """The command line of a template's parameters, `--name=value` each: there a switch has a value."""
    switches = {action.dest for _, action in _flags() if _is_switch(action)}
    for word in parameters:
        name, _, value = word.removeprefix("--").partition("=")
        if name in switches and value.lower() in ("true", "false"):
            yield f"--{name}" if value.lower() == "true" else f"--no_{name}"
        else:
            yield word


def metadata() -> str:
    """`metadata.json`: what the console and `gcloud` know of the template."""
    parameters = [_parameter(group, action) for group, action in _flags()]
    description = "Detects objects in pictures and video, and writes Parquet tables, COCO JSON and annotated pictures."
    content = {"name": "beam-detect", "description": description, "parameters": parameters}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _flags() -> Iterator[tuple[str, argparse.Action]]:
    """The flags that are parameters, with the title of their group."""
    (commands,) = (action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    for group in commands.choices["detect"]._action_groups:
        for action in group._group_actions:
            if action.help != argparse.SUPPRESS and action.dest not in _LEFT_OUT:
                yield group.title or "", action


def _parameter(group: str, action: argparse.Action) -> dict[str, Any]:
    default = {"default": action.default}
    parameter: dict[str, Any] = {
        "name": action.dest,
        "label": action.dest.replace("_", " ").capitalize(),
        "helpText": (action.help or "") % default,
        "groupName": group.capitalize(),
        "isOptional": action.dest != "output",
        "paramType": "TEXT",
    }
    if _is_switch(action):
        parameter["paramType"] = "BOOLEAN"
    elif action.choices:
        parameter["paramType"] = "ENUM"
        parameter["enumOptions"] = [{"value": choice, "label": choice} for choice in action.choices]
    elif action.type in _NUMBERS:
        parameter["paramType"] = "NUMBER"
    if action.dest == "output":
        parameter["regexes"] = [r"^gs://[^/]+/.+$"]
    if action.default not in (None, False, []):
        parameter["defaultValue"] = str(action.default)
    return parameter


def _is_switch(action: argparse.Action) -> bool:
    return action.nargs == 0
