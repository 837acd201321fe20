"""The flags of `beam-detect detect`, as `--help` shows them."""

from __future__ import annotations

import argparse

from beam_jobs.cli import values

#: What is evaluated.
IOU_TYPES = ("bbox", "segm", "keypoints")
#: A group of flags, or the parser itself.
Group = argparse._ActionsContainer


def switch(group: Group, name: str, text: str) -> None:
    """Adds a flag without a value."""
    group.add_argument(f"--{name}", action="store_true", help=text)
    # So that the command line can win over a file; not worth a line of help each.
    group.add_argument(
        f"--no_{name}", dest=name, action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )


def add_detect(detect: argparse.ArgumentParser) -> None:
    """Adds the flags, in the groups in which `--help` shows them."""
    _add_inputs(detect.add_argument_group("inputs"))
    _add_detector(detect.add_argument_group("detector"))
    _add_outputs(detect.add_argument_group("outputs"))
    _add_running(detect.add_argument_group("running"))


def _add_inputs(inputs: Group) -> None:
    inputs.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATTERN",
        help="a picture, a clip, a folder, or a glob with **, on any file system that Beam knows; or a live stream."
        " May be repeated",
    )
    inputs.add_argument("--input_list", metavar="FILE", help="a file with one path a line")
    inputs.add_argument("--root", metavar="DIR", help="file names are relative to this folder")
    inputs.add_argument(
        "--input_format",
        choices=("auto", "image", "tfrecord", "video", "stream"),
        default="auto",
        help="what the inputs are; auto looks at the first bytes of each (%(default)s). http(s):// is a live stream"
        " with stream only; v4l2:/dev/video0, rtsp(s):// and udp:// always are",
    )
    inputs.add_argument(
        "--fps", type=values.rate, metavar="N", help="of clips, N frames a second (all; pictures are taken as they are)"
    )
    inputs.add_argument("--every", type=values.positive, metavar="N", help="of clips, every Nth frame, from frame 0")
    inputs.add_argument(
        "--start",
        type=values.moment,
        metavar="T",
        help="of clips, frames from this presentation time on: 90.5, 00:01:30.5",
    )
    inputs.add_argument("--end", type=values.moment, metavar="T", help="of clips, frames before this time")
    switch(inputs, "keyframes_only", "of clips, only keyframes: few, and quick to decode")
    inputs.add_argument(
        "--max_frames", type=values.positive, metavar="N", help="of a live stream, end when N frames are done"
    )
    inputs.add_argument(
        "--duration", type=values.seconds, metavar="S", help="of a live stream, end S seconds after its first frame"
    )
    inputs.add_argument(
        "--reconnect_s",
        type=values.seconds,
        default=30.0,
        metavar="S",
        help="how long it is tried to open a live stream again that broke off (%(default)g)",
    )
    inputs.add_argument("--image_ids", metavar="JSON", help="take image ids from this COCO file, by file name")
    inputs.add_argument(
        "--ground_truth",
        metavar="SOURCE",
        help="evaluate as well, to DIR/evaluation; image ids are those of this truth",
    )
    inputs.add_argument("--iou_type", choices=IOU_TYPES, default="bbox", help="what is evaluated (%(default)s)")
    inputs.add_argument("--limit", type=values.positive, metavar="N", help="only the first N inputs, in order of name")
    switch(
        inputs, "dedupe", "detect once in files of the same content (files of one size are read first, to know that)"
    )


def _add_detector(model: Group) -> None:
    model.add_argument(
        "--model",
        default="coco-ssd",
        metavar="MODEL",
        help="a name that `beam-detect models` lists, a folder with a SavedModel or a checkpoint, a frozen graph, a "
        ".tflite file, the URL of one of these or of a .tar.gz, or module:factory (%(default)s)",
    )
    model.add_argument(
        "--engine",
        choices=("auto", "tensorflow", "litert"),
        default="auto",
        help="what runs the model; auto is LiteRT where the model has such a form (%(default)s)",
    )
    model.add_argument(
        "--label_map", metavar="FILE", help="class names: a .pbtxt, a COCO JSON with categories, or TFLite's .txt"
    )
    model.add_argument(
        "--min_score", type=values.share, metavar="S", help="least score kept (0.05; with --ground_truth 0)"
    )
    model.add_argument(
        "--max_detections", type=values.positive, metavar="N", help="best N of a picture (what the model gives)"
    )
    model.add_argument("--categories", type=values.names, metavar="A,B", help="only these classes, by name or id")
    model.add_argument(
        "--tile",
        type=values.tile,
        metavar="N",
        help="detect in tiles of NxN pixels as well as in the whole picture, for small objects in large pictures",
    )
    model.add_argument(
        "--tile_overlap", type=values.overlap, metavar="R", help="share of a tile that the next has as well (0.2)"
    )


def _add_outputs(output: Group) -> None:
    output.add_argument("--output", metavar="DIR", help="folder of the run; new, or empty (required)")
    switch(output, "overwrite", "replace the run that is in DIR")
    switch(
        output,
        "annotate",
        "write pictures, and videos of clips, with boxes, masks, keypoints, classes and scores to DIR/annotated",
    )
    output.add_argument(
        "--annotate_frames",
        type=values.wholes,
        metavar="N,N",
        help="with --annotate: of clips, draw the frames of these numbers, of those that were detected on (none)",
    )
    output.add_argument(
        "--annotate_every",
        type=values.positive,
        metavar="N",
        help="with --annotate: of clips, draw every Nth frame (none)",
    )
    output.add_argument(
        "--annotate_min_score", type=values.share, default=0.30, metavar="S", help="least score drawn (%(default)s)"
    )
    output.add_argument(
        "--annotate_max_boxes", type=values.positive, default=200, metavar="N", help="most boxes drawn (%(default)s)"
    )
    switch(output, "class_agnostic", "draw all boxes in one colour, with the score alone")
    switch(
        output,
        "display",
        "show what is detected on, with its boxes, in a window, where there is a screen; with one detector process,"
        " unless --workers says otherwise, so that the frames of a clip come in order",
    )
    switch(output, "track", "follow the objects of a clip from frame to frame: track_id, DIR/tracks, ids drawn")
    output.add_argument(
        "--track_score",
        type=values.share,
        metavar="S",
        help="with --track: boxes above it are matched first, lower ones to what is left; it takes 0.1 more to begin a"
        " track (0.5)",
    )
    output.add_argument(
        "--track_lost_s",
        type=values.seconds,
        metavar="S",
        help="with --track: how long an object that is not seen keeps its track (1)",
    )
    output.add_argument(
        "--part_size",
        type=values.positive,
        default=500,
        metavar="N",
        help="inputs a part, one file a table (%(default)s)",
    )


def _add_running(running: Group) -> None:
    running.add_argument(
        "--workers", type=values.workers, metavar="N", help="detector processes (the number of GPUs, or else of cores)"
    )
    running.add_argument(
        "--threads", type=values.positive, default=1, metavar="N", help="threads a process (%(default)s)"
    )
    running.add_argument(
        "--batch_pixels",
        type=values.whole,
        metavar="N",
        help="let pictures share calls of the detector, up to N pixels of the network's input together;"
        " 0: one picture a call (4194304 on a GPU, 0 on a CPU, where one a call is quicker)",
    )
    running.add_argument(
        "--gpu_memory_limit_mb",
        type=values.positive,
        metavar="N",
        help="the most that a process takes of its GPU (what it needs, as it goes)",
    )
    running.add_argument(
        "--max_failure_rate",
        type=values.share,
        default=1.0,
        metavar="R",
        help="exit with 1 when a greater share of the inputs failed (%(default)s)",
    )
    switch(running, "no_wait", "on another runner: submit the job and end; the job itself completes DIR")
    running.add_argument(
        "--max_pixels",
        type=values.positive,
        default=200_000_000,
        metavar="N",
        help="larger pictures, by their header, are not decoded but failures (%(default)s)",
    )
    running.add_argument(
        "--max_bytes",
        type=values.positive,
        default=1 << 30,
        metavar="N",
        help="larger pictures, and records, are not read but failures; clips may have any size (%(default)s)",
    )
    running.add_argument(
        "--max_clip_frames",
        type=values.clip_frames,
        default=values.MAX_CLIP_FRAMES,
        metavar="N",
        help="longer clips are not decoded but failures (%(default)s)",
    )
    running.add_argument(
        "--max_seconds",
        type=values.seconds,
        default=300.0,
        metavar="S",
        help="a picture that takes longer is tried once more, and is then a failure (%(default)g)",
    )
    running.add_argument(
        "--max_memory_mb",
        type=values.positive,
        metavar="N",
        help="so is one at which a detector process holds more (its share of the machine's memory, at least 4096)",
    )
    switch(running, "resume", "go on with the run in DIR that was stopped; does nothing if it is complete")
    running.add_argument(
        "--since",
        metavar="RUN_DIR",
        help="only inputs that are new, or not what they were, since this run of the same job; DIR goes with it, and"
        " lists what of it has other rows now, or is gone",
    )
    switch(running, "dry_run", "make the plan, open the model, show both, and stop")
    running.add_argument(
        "--config", metavar="TOML", help="a file of these flags (min_score = 0.5); the command line wins"
    )
    switch(running, "profile", "show at the end where the time of all cores went, by step")
    switch(running, "verbose", "show what TensorFlow and Beam say, how many threads there are, and tracebacks")
