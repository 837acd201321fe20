"""The flags of `beam-detect`, the file that may hold them, and what becomes of those that are Beam's."""

from __future__ import annotations

import argparse
import difflib
import tomllib
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from beam_jobs.cli import values
from beam_jobs.errors import UsageError

_DESCRIPTION = "Object detection over folders and buckets of pictures, as an Apache Beam job."
_BEAM = "Flags that are not listed here go to Beam (--runner and those of the runner); DirectRunner is the default."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        # Without the usage: it is longer than a screen, and what is wrong would be below it.
        self.exit(2, f"beam-detect: error: {message.removeprefix('argument ')}. --help lists the flags.\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from beam_jobs.runs.manifest import program_version

        parser.exit(0, f"beam-detect {program_version()}\n")


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    main = _Parser(prog="beam-detect", description=_DESCRIPTION, allow_abbrev=False)
    main.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = main.add_subparsers(dest="command", metavar="COMMAND", required=True)
    detect = commands.add_parser(
        "detect",
        help="detect objects in pictures; write Parquet, COCO JSON, annotated pictures",
        description="Detects objects in pictures, and writes Parquet tables, COCO JSON and annotated pictures.",
        epilog=_BEAM,
        allow_abbrev=False,
    )
    _add_detect(detect)
    evaluate = commands.add_parser(
        "evaluate",
        help="COCO metrics of detections against a ground truth",
        description="Compares detections with a ground truth: COCO's metrics, matches, curves, and a report.",
        epilog=_BEAM,
        allow_abbrev=False,
    )
    _add_evaluate(evaluate)
    demo = commands.add_parser(
        "demo",
        help="run the default detector on a few photographs",
        description="Runs the default detector on the photographs that scikit-image carries, and shows what it saw.",
        allow_abbrev=False,
    )
    demo.add_argument("--output", metavar="DIR", default="demo-output", help="folder of the run (%(default)s)")
    _switch(demo, "verbose", "show what TensorFlow and Beam say, and tracebacks")
    return main


def _add_detect(detect: argparse.ArgumentParser) -> None:
    inputs = detect.add_argument_group("inputs")
    inputs.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a picture, a folder, or a glob with **; on any file system that Beam knows. May be given several times",
    )
    inputs.add_argument("--input_list", metavar="FILE", help="a file with one path a line")
    inputs.add_argument("--root", metavar="DIR", help="file names are relative to this folder")
    inputs.add_argument(
        "--input_format",
        choices=("auto", "image", "tfrecord"),
        default="auto",
        help="what the inputs are; auto looks at the first bytes of each (%(default)s)",
    )
    inputs.add_argument("--image_ids", metavar="JSON", help="take image ids from this COCO file, by file name")
    inputs.add_argument(
        "--ground_truth",
        metavar="SOURCE",
        help="evaluate as well, to DIR/evaluation; image ids are those of this truth",
    )
    inputs.add_argument("--limit", type=values.positive, metavar="N", help="only the first N inputs, in order of name")

    model = detect.add_argument_group("detector")
    model.add_argument(
        "--model",
        default="coco-ssd",
        metavar="MODEL",
        help="coco-ssd, a SavedModel folder, a folder of the TF2 zoo's layout, or module:factory (%(default)s)",
    )
    model.add_argument("--label_map", metavar="FILE", help="class names: a .pbtxt, or a COCO JSON with categories")
    model.add_argument(
        "--min_score", type=values.share, metavar="S", help="least score kept (0.05; with --ground_truth 0)"
    )
    model.add_argument(
        "--max_detections", type=values.positive, metavar="N", help="best N of a picture (what the model gives)"
    )
    model.add_argument("--categories", type=values.names, metavar="A,B", help="only these classes, by name or id")

    output = detect.add_argument_group("outputs")
    output.add_argument("--output", metavar="DIR", help="folder of the run; new, or empty (required)")
    _switch(output, "overwrite", "replace the run that is in DIR")
    _switch(output, "annotate", "write pictures with boxes, classes and scores to DIR/annotated")
    output.add_argument(
        "--annotate_min_score", type=values.share, default=0.30, metavar="S", help="least score drawn (%(default)s)"
    )
    output.add_argument(
        "--annotate_max_boxes", type=values.positive, default=200, metavar="N", help="most boxes drawn (%(default)s)"
    )
    _switch(output, "class_agnostic", "draw all boxes in one colour, with the score alone")
    output.add_argument(
        "--part_size",
        type=values.positive,
        default=500,
        metavar="N",
        help="inputs a part, one file a table (%(default)s)",
    )

    running = detect.add_argument_group("running")
    running.add_argument("--workers", type=values.workers, metavar="N", help="detector processes (the number of cores)")
    running.add_argument(
        "--threads", type=values.positive, default=1, metavar="N", help="threads a process (%(default)s)"
    )
    running.add_argument(
        "--max_failure_rate",
        type=values.share,
        default=1.0,
        metavar="R",
        help="exit with 1 when a greater share of the inputs failed (%(default)s)",
    )
    _switch(running, "dry_run", "make the plan, open the model, show both, and stop")
    running.add_argument(
        "--config", metavar="TOML", help="a file of these flags (min_score = 0.5); the command line wins"
    )
    _switch(running, "verbose", "show what TensorFlow and Beam say, and tracebacks")


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--detections", metavar="SOURCE", help="a run's folder, a COCO results file, or Parquet files (required)"
    )
    evaluate.add_argument(
        "--ground_truth", metavar="SOURCE", help="a COCO dataset, or TFRecords with image/object/* (required)"
    )
    evaluate.add_argument("--output", metavar="DIR", help="folder of the evaluation; new, or empty (required)")
    _switch(evaluate, "overwrite", "replace the evaluation that is in DIR")
    evaluate.add_argument(
        "--iou_type", choices=("bbox", "segm", "keypoints"), default="bbox", help="what is compared (%(default)s)"
    )
    evaluate.add_argument("--categories", type=values.names, metavar="A,B", help="only these classes, by name or id")
    evaluate.add_argument("--label_map", metavar="FILE", help="class names of TFRecords that hold no class ids")
    evaluate.add_argument(
        "--iou_thresholds", type=values.numbers, metavar="T,T", help="IoU thresholds (0.5,0.55,…,0.95)"
    )
    evaluate.add_argument(
        "--area_ranges", type=values.area_ranges, metavar="NAME:LOW:HIGH,…", help="areas in square pixels (COCO's)"
    )
    evaluate.add_argument(
        "--max_detections", type=values.counts, metavar="N,N", help="detections an image and class (1,10,100)"
    )
    evaluate.add_argument(
        "--engine",
        choices=("streaming", "pycocotools"),
        default="streaming",
        help="what computes the metrics; pycocotools is slow, in one process, and gives the same (%(default)s)",
    )
    evaluate.add_argument("--config", metavar="TOML", help="a file of these flags; the command line wins")
    _switch(evaluate, "verbose", "show what Beam says, and tracebacks")


def _switch(group: argparse.ArgumentParser | argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(f"--{name}", action="store_true", help=text)
    # So that the command line can win over a file; not worth a line of help each.
    group.add_argument(
        f"--no_{name}", dest=name, action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


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
    needed = {"detect": ("output",), "evaluate": ("detections", "ground_truth", "output")}
    for name in needed.get(options.command, ()):
        what = "DIR" if name == "output" else "SOURCE"
        if not getattr(options, name):
            raise UsageError(f"--{name} {what} is missing.")
    if rest and options.command == "demo":
        raise UsageError(_unknown(rest[0], ours))
    if rest:
        _check_beam(rest, ours)
    return options, rest


def beam_flags() -> list[str]:
    """Every flag that Beam knows. Imports Beam."""
    return [flag for action in _beam_parser()._actions for flag in action.option_strings]


def _flags_of(main: argparse.ArgumentParser, command: str) -> list[str]:
    (commands,) = (action for action in main._actions if isinstance(action, argparse._SubParsersAction))
    actions = commands.choices[command]._actions
    return [flag for action in actions for flag in action.option_strings if flag.startswith("--")]


def _check_beam(rest: Sequence[str], ours: Iterable[str]) -> None:
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
        raise UsageError(_unknown(unknown[0], [*ours, *beam_flags()]))


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


def _unknown(word: str, known: Iterable[str]) -> str:
    flag = word.split("=")[0]
    if not flag.startswith("-"):
        return f"{word}: what is this for? Inputs are given as --input PATTERN, with quotes around a pattern ('*.jpg')."
    nearest = difflib.get_close_matches(flag.replace("-", "_").replace("__", "--", 1), list(known), n=1, cutoff=0.5)
    hint = f" Did you mean {nearest[0]}?" if nearest else " `beam-detect detect --help` lists the flags."
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
