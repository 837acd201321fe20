"""The commands of `beam-detect` and their flags, as `--help` shows them."""

from __future__ import annotations

import argparse
from typing import NoReturn

from beam_jobs.cli import values

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
    compare = commands.add_parser(
        "compare",
        help="two sets of detections against one ground truth",
        description="Compares COCO metrics of two sets of detections, with confidence intervals, by class and image.",
        epilog="A flag of Beam's that a file system needs stands after A and B.",
        allow_abbrev=False,
    )
    _add_compare(compare)
    report = commands.add_parser(
        "report",
        help="a page of what a run found",
        description="Writes one HTML file of what a run found: classes, scores, failures, speed, pictures.",
        epilog="Flags of Beam's that a file system needs are passed on.",
        allow_abbrev=False,
    )
    _add_report(report)
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
        help="coco-ssd, a folder with a SavedModel (as the zoo's), a frozen graph, or module:factory (%(default)s)",
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


def _add_compare(compare: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        text = "a run's folder, a COCO results file, or Parquet files; differences are B - A"
        compare.add_argument(f"detections_{name}", metavar=name.upper(), help=text)
    compare.add_argument(
        "--ground_truth", metavar="SOURCE", help="a COCO dataset, or TFRecords with image/object/* (required)"
    )
    compare.add_argument("--output", metavar="DIR", help="folder of the comparison; new, or empty (required)")
    _switch(compare, "overwrite", "replace the comparison that is in DIR")
    compare.add_argument(
        "--iou_type", choices=("bbox", "segm", "keypoints"), default="bbox", help="what is compared (%(default)s)"
    )
    compare.add_argument("--categories", type=values.names, metavar="A,B", help="only these classes, by name or id")
    compare.add_argument("--label_map", metavar="FILE", help="class names of TFRecords that hold no class ids")
    compare.add_argument(
        "--samples", type=values.positive, default=1000, metavar="N", help="resamples of the images (%(default)s)"
    )
    compare.add_argument("--seed", type=int, default=0, metavar="N", help="of the resamples (%(default)s)")
    compare.add_argument(
        "--confidence", type=values.share, default=0.95, metavar="C", help="of the intervals (%(default)s)"
    )
    _switch(compare, "verbose", "show tracebacks")


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("run", metavar="RUN_DIR", help="the folder of a finished run")
    report.add_argument("--output", metavar="FILE", help="the page to write, FILE.html (required)")
    _switch(report, "overwrite", "replace FILE")
    _switch(report, "verbose", "show tracebacks")


def _switch(group: argparse.ArgumentParser | argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(f"--{name}", action="store_true", help=text)
    # So that the command line can win over a file; not worth a line of help each.
    group.add_argument(
        f"--no_{name}", dest=name, action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
