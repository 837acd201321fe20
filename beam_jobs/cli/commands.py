"""The commands of `beam-detect` and their flags, as `--help` shows them."""

from __future__ import annotations

import argparse
from typing import NoReturn

from beam_jobs.cli import values
from beam_jobs.cli.detect_flags import IOU_TYPES, add_detect, switch

_DESCRIPTION = "Object detection over folders and buckets of pictures and video, as an Apache Beam job."
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
        help="detect objects in pictures and video; write Parquet, COCO JSON, annotated pictures",
        description="Detects objects in pictures and video; writes Parquet tables, COCO JSON and annotated pictures.",
        epilog=_BEAM,
        allow_abbrev=False,
    )
    add_detect(detect)
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
    check = commands.add_parser(
        "check",
        help="whether a finished run is whole",
        description="Reads a finished run again, and says what is wrong with it: files that are missing or "
        "changed, rows that do not add up, boxes outside pictures, COCO files that tell something else. "
        "Exit status 1 if anything is.",
        epilog="Flags of Beam's that a file system needs are passed on.",
        allow_abbrev=False,
    )
    check.add_argument("run", metavar="RUN_DIR", help="the folder of a finished run")
    switch(check, "verbose", "show tracebacks")
    models = commands.add_parser(
        "models",
        help="list, show, fetch, verify and remove detectors",
        description="Lists the detectors that have a name: the default and TensorFlow's TF2 zoo, with what was "
        "published of them: milliseconds a picture, COCO's mAP of boxes, of masks or keypoints. --json has more.",
        epilog="Models are kept in BEAM_DETECT_CACHE (~/.cache/beam-detect). BEAM_DETECT_MODEL_MIRROR names a server, "
        "bucket or folder to fetch the zoo from instead: DATE/NAME.tar.gz, or a folder DATE/NAME.",
        allow_abbrev=False,
    )
    _add_models(models)
    export = commands.add_parser(
        "export",
        help="make a SavedModel of a checkpoint",
        description="Makes a SavedModel of a checkpoint that the Object Detection API's TF2 training wrote. The API "
        "itself does it, in an environment of its own that is made once in the cache (Python 3.11, 2.3 GB, some "
        "minutes); an export takes minutes too. All paths are of this machine.",
        allow_abbrev=False,
    )
    _add_export(export)
    demo = commands.add_parser(
        "demo",
        help="run the default detector on a few photographs",
        description="Runs the default detector on the photographs that scikit-image carries, and shows what it saw.",
        allow_abbrev=False,
    )
    demo.add_argument("--output", metavar="DIR", default="demo-output", help="folder of the run (%(default)s)")
    switch(demo, "verbose", "show what TensorFlow and Beam say, and tracebacks")
    return main


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    evaluate.add_argument(
        "--detections", metavar="SOURCE", help="a run's folder, a COCO results file, or Parquet files (required)"
    )
    evaluate.add_argument(
        "--ground_truth", metavar="SOURCE", help="a COCO dataset, or TFRecords with image/object/* (required)"
    )
    evaluate.add_argument(
        "--images", metavar="DIR", help="the truth's pictures, some of which the page shows; of a run it knows its own"
    )
    evaluate.add_argument("--output", metavar="DIR", help="folder of the evaluation; new, or empty (required)")
    switch(evaluate, "overwrite", "replace the evaluation that is in DIR")
    evaluate.add_argument("--iou_type", choices=IOU_TYPES, default="bbox", help="what is compared (%(default)s)")
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
    switch(evaluate, "verbose", "show what Beam says, and tracebacks")


def _add_compare(compare: argparse.ArgumentParser) -> None:
    for name in ("a", "b"):
        text = "a run's folder, a COCO results file, or Parquet files; differences are B - A"
        compare.add_argument(f"detections_{name}", metavar=name.upper(), help=text)
    compare.add_argument(
        "--ground_truth", metavar="SOURCE", help="a COCO dataset, or TFRecords with image/object/* (required)"
    )
    compare.add_argument(
        "--images", metavar="DIR", help="the truth's pictures, some of which the page shows; of a run it knows its own"
    )
    compare.add_argument("--output", metavar="DIR", help="folder of the comparison; new, or empty (required)")
    switch(compare, "overwrite", "replace the comparison that is in DIR")
    compare.add_argument("--iou_type", choices=IOU_TYPES, default="bbox", help="what is compared (%(default)s)")
    compare.add_argument("--categories", type=values.names, metavar="A,B", help="only these classes, by name or id")
    compare.add_argument("--label_map", metavar="FILE", help="class names of TFRecords that hold no class ids")
    compare.add_argument(
        "--samples", type=values.positive, default=1000, metavar="N", help="resamples of the images (%(default)s)"
    )
    compare.add_argument("--seed", type=values.integer, default=0, metavar="N", help="of the resamples (%(default)s)")
    compare.add_argument(
        "--confidence", type=values.share, default=0.95, metavar="C", help="of the intervals (%(default)s)"
    )
    compare.add_argument("--workers", type=values.workers, metavar="N", help="processes (the number of cores)")
    compare.add_argument("--config", metavar="TOML", help="a file of these flags; the command line wins")
    switch(compare, "verbose", "show tracebacks")


def _add_report(report: argparse.ArgumentParser) -> None:
    report.add_argument("run", metavar="RUN_DIR", help="the folder of a finished run")
    report.add_argument("--output", metavar="FILE", help="the page to write, FILE.html (required)")
    report.add_argument(
        "--min_score", type=values.share, default=0.30, metavar="S", help="least score counted and drawn (%(default)s)"
    )
    switch(report, "overwrite", "replace FILE")
    switch(report, "verbose", "show tracebacks")


def _add_models(models: argparse.ArgumentParser) -> None:
    models.add_argument("--json", action="store_true", help="as JSON")
    switch(models, "verbose", "show tracebacks")
    actions = models.add_subparsers(dest="action", metavar="ACTION", title="actions")

    def action(name: str, text: str, description: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=description, allow_abbrev=False)
        made.add_argument("--verbose", action="store_true", default=argparse.SUPPRESS, help="show tracebacks")
        return made

    show = action(
        "show", "open one, and say what it is", "Opens a detector, fetched first when need be, and describes it."
    )
    show.add_argument("model", metavar="MODEL", help="what --model of `beam-detect detect` takes")
    show.add_argument("--label_map", metavar="FILE", help="class names: a .pbtxt, or a COCO JSON with categories")
    show.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="as JSON")
    fetch = action(
        "fetch",
        "download some to the cache",
        "Downloads models to the cache. What a model's first download gave (sha256) is kept in models.lock.json there, "
        "and later ones must match it.",
    )
    fetch.add_argument("model", nargs="+", metavar="NAME", help="a listed name, or a URL")
    fetch.add_argument(
        "--sha256", type=values.sha256, metavar="HEX", help="what its archive must have, whatever was there before"
    )
    verify = action(
        "verify",
        "check those in the cache",
        "Checks every file in the cache, and says which forms of models are not used, and why.",
    )
    verify.add_argument("model", nargs="*", metavar="NAME", help="only these")
    remove = action(
        "remove",
        "remove some from the cache",
        "Removes models from the cache, with what was made of them; models.lock.json stays.",
    )
    remove.add_argument("model", nargs="+", metavar="NAME", help="a listed name, a URL, or what verify names")


def _add_export(export: argparse.ArgumentParser) -> None:
    export.add_argument("--pipeline_config", metavar="FILE", help="the pipeline.config it was trained by (required)")
    export.add_argument(
        "--checkpoint", metavar="DIR|PREFIX", help="a folder: its latest checkpoint; or …/ckpt-7 (required)"
    )
    export.add_argument(
        "--output",
        metavar="DIR",
        help="new folder: saved_model/, checkpoint/, pipeline.config, label map (required)",
    )
    export.add_argument(
        "--engine",
        choices=("tensorflow", "litert"),
        default="tensorflow",
        help="litert: also its LiteRT form, for SSD, EfficientDet and CenterNet (%(default)s)",
    )
    export.add_argument("--label_map", metavar="FILE", help="a .pbtxt to put beside it (the one that FILE names)")
    switch(export, "overwrite", "replace the export that is in DIR")
    switch(export, "verbose", "show what the API and TensorFlow say, and tracebacks")
