"""Which flags of `beam-detect detect` go together."""

from __future__ import annotations

import argparse

from beam_jobs import matching
from beam_jobs.cli.detect_job import streams_of
from beam_jobs.errors import UsageError
from beam_jobs.words import shown_url


def check_flags(options: argparse.Namespace, *, local: bool) -> None:
    """Refuses flags that do not go together, or not with where the job runs.

    Raises:
        UsageError: it names them, and what to do.
    """
    if options.no_wait and local:
        raise UsageError("--no_wait: the local engine ends with this program. Leave it out, or name a --runner.")
    if options.profile and not local:
        raise UsageError("--profile: only the local engine can tell; leave --runner out.")
    _check_streams(options, local=local)
    if options.resume and (options.overwrite or options.dry_run):
        other = "--overwrite" if options.overwrite else "--dry_run"
        raise UsageError(f"--resume goes on with what is there, {other} does not: leave one of them out.")
    if options.since and options.ground_truth:
        raise UsageError(
            "--since leaves pictures out, which --ground_truth would count as missed: give it as --image_ids, and"
            " evaluate the runs together."
        )
    if options.iou_type != "bbox" and not options.ground_truth:
        raise UsageError(f"--iou_type {options.iou_type} says what is evaluated: give --ground_truth SOURCE as well.")
    if options.dedupe and options.input_format == "tfrecord":
        raise UsageError("--dedupe compares files of pictures, not records: leave it out with --input_format tfrecord.")
    if options.dedupe and options.input_format == "video":
        raise UsageError("--dedupe compares pictures, not frames: leave it out with --input_format video.")
    chosen = [f"--{name}" for name in ("fps", "every", "keyframes_only") if getattr(options, name)]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(chosen)} choose frames in different ways: leave all but one of them out.")
    if chosen and options.input_format in ("image", "tfrecord"):
        raise UsageError(f"{chosen[0]} is for clips: leave it out with --input_format {options.input_format}.")
    if options.start is not None and options.end is not None and options.start >= options.end:
        raise UsageError(f"--start must be before --end; they are {options.start:g} and {options.end:g} seconds.")
    if options.end == 0:
        raise UsageError("--end 0: no frame is before that time; give the seconds at which to end, or leave it out.")
    if (options.annotate_frames or options.annotate_every) and not options.annotate:
        raise UsageError("--annotate_frames and --annotate_every say which frames are drawn: give --annotate as well.")
    if options.display and not local:
        raise UsageError("--display: the pictures of another runner are not here to be shown; leave --runner out.")
    for name in ("track_score", "track_lost_s"):
        if getattr(options, name) is not None and not options.track:
            raise UsageError(f"--{name} says how objects are followed: give --track as well.")
    if options.tile_overlap is not None and not options.tile:
        raise UsageError("--tile_overlap says how much tiles have in common: give --tile N as well.")


def _check_streams(options: argparse.Namespace, *, local: bool) -> None:
    """Refuses what cannot be done with live streams, and what is for them alone.

    Raises:
        UsageError: it names the flag.
    """
    streams = streams_of(options)
    limits = [f"--{name}" for name in ("max_frames", "duration") if getattr(options, name)]
    if options.input_format == "stream" and (options.input_list or len(streams) < len(options.input)):
        raise UsageError(
            "--input_format stream: every input must be a live stream, given as --input v4l2:/dev/…, rtsp://…,"
            " rtsps://…, udp://… or http(s)://…"
        )
    if options.input_format != "stream":
        for one in options.input:
            if matching.is_stream(one, stated=True) and one not in streams:
                raise UsageError(
                    f"--input {shown_url(one)}: over http only live streams are read: give --input_format stream, and"
                    " --max_frames N or --duration SECONDS."
                )
    if not streams:
        if limits:
            raise UsageError(f"{limits[0]} is for live streams, and no input is one (http: --input_format stream).")
        return
    name = f"--input {shown_url(streams[0])}"
    if not local:
        raise UsageError(f"{name}: live streams are read on this machine only. Leave --runner out.")
    if options.input_format not in ("auto", "stream"):
        raise UsageError(f"{name} is a live stream: leave --input_format {options.input_format} out.")
    if not limits:
        raise UsageError(f"{name} is a live stream, which has no end: give --max_frames N or --duration SECONDS.")
    if options.dedupe or options.since:
        flag = "--dedupe" if options.dedupe else "--since"
        raise UsageError(f"{flag} compares files, and {name} is a live stream: leave one of them out.")
    if options.start is not None or options.end is not None:
        raise UsageError(f"--start and --end are for clips; of {name}, a live stream, --duration says how much.")


def check_goes_on(options: argparse.Namespace) -> None:
    """Refuses to go on with a run that has live streams.

    Raises:
        UsageError: it says why.
    """
    if streams_of(options):
        raise UsageError(
            f"--resume: {options.output} was to have a live stream, which cannot be read again: what was not committed"
            " is lost. --overwrite begins afresh."
        )
