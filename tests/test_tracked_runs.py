"""Runs that track and draw clips, from the flags to `check`."""

import json

import pandas as pd
import pytest

from beam_jobs.cli.main import main
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from tests.clips import make_clip
from tests.made_clips import times_of

FAKE = "--model=tests.fake_detectors:colours"


def test_a_clip_is_tracked_and_drawn(tmp_path):
    source = make_clip(tmp_path / "in/a.mp4", 36, options={"bf": "2"}, audio=True)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE, "--track", "--annotate"]
    assert main(["detect", *words]) == 0
    assert list(check_run(str(tmp_path / "out"))) == []
    manifest = Manifest.read(str(tmp_path / "out"))
    assert "annotated/a.mp4" in [file.path for file in manifest.files]
    assert manifest.stage_s["annotate"] > 0
    assert times_of(tmp_path / "out/annotated/a.mp4") == times_of(source)
    tracks = pd.read_parquet(tmp_path / "out/tracks")
    detections = pd.read_parquet(tmp_path / "out/detections")
    assert manifest.counts.tracks == len(tracks) > 0
    red = tracks[tracks["category"] == "red"]  # the square that moves through the clip, until it starts again
    assert red[["video", "first_frame", "last_frame", "length"]].to_numpy().tolist() == [["a.mp4", 0, 35, 36]]
    assert (detections["track_id"] == int(red["track_id"].iloc[0])).sum() == 36
    assert main(["detect", *words, "--overwrite"]) == 0
    assert Manifest.read(str(tmp_path / "out")).counts == manifest.counts


def test_a_run_that_was_stopped_while_it_drew_goes_on_and_says_what_it_cannot_draw(tmp_path):
    for name in ("a", "b", "c"):
        make_clip(tmp_path / f"in/{name}.mp4", 12)
    words = [f"--input={tmp_path}/in", f"--output={tmp_path}/out", FAKE, "--annotate"]
    out = tmp_path / "out"
    assert main(["detect", *words]) == 0
    whole = {video.name: video.read_bytes() for video in (out / "annotated").iterdir()}
    for path in ("run.json", "_SUCCESS", "annotated/b.mp4", "annotated/c.mp4"):
        (out / path).unlink()
    (tmp_path / "in/c.mp4").write_bytes(b"no clip any more")
    assert main(["detect", *words, "--resume"]) == 0
    assert list(check_run(str(out))) == []
    del whole["c.mp4"]
    assert {video.name: video.read_bytes() for video in (out / "annotated").iterdir()} == whole
    lines = [json.loads(line) for file in (out / "log").iterdir() for line in file.read_text().splitlines()]
    said = [(line["code"], line["input"]) for line in lines if line["stage"] == "annotate"]
    assert said == [("changed", str(tmp_path / "in/c.mp4"))]


@pytest.mark.parametrize("flag", ["--track_score=0.3", "--track_lost_s=2"])
def test_flags_of_tracking_ask_for_tracking(tmp_path, capsys, flag):
    words = [f"--input={tmp_path}", f"--output={tmp_path}/out", FAKE, flag]
    assert main(["detect", *words]) == 2
    assert f"{flag.partition('=')[0]} says how objects are followed: give --track" in capsys.readouterr().err
