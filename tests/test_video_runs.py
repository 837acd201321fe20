"""Runs over clips: every frame once, the same tables whatever the ranges, and frames that kill or hang."""

from __future__ import annotations

import json
import re
from pathlib import Path

import apache_beam as beam
import pandas as pd
import pytest
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.testing.util import assert_that
from apache_beam.utils.shared import Shared

from beam_jobs.cli.main import main
from beam_jobs.detectors.base import DetectorSpec
from beam_jobs.errors import JobError
from beam_jobs.formats.rows import Rows, RowsBuilder
from beam_jobs.processes.feed import Feeder
from beam_jobs.processes.pool import DetectorPool
from beam_jobs.processes.work import PictureSettings, Work
from beam_jobs.records import ImageKey, frame_id_of
from beam_jobs.runs import parts
from beam_jobs.runs.log import RunLog
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.parts import commit_part
from beam_jobs.runs.plan import PlannedInput
from beam_jobs.transforms.detect import DetectObjects, PoolSource
from beam_jobs.transforms.plan import Group
from tests.clips import make_clip, make_sound
from tests.fake_detectors import CATEGORIES, FATAL_FRAME
from tests.pictures import write_pictures

FAKE = "--model=tests.fake_detectors:colours"


def detect(output: Path, *words: str) -> Manifest:
    assert main(["detect", f"--output={output}", FAKE, *words]) == 0
    return Manifest.read(str(output))


def colliding_names() -> tuple[str, str]:
    """Two clips whose names have the same digest."""
    seen: dict[int, str] = {}
    for name in (f"{i}.mp4" for i in range(1_000_000)):
        other = seen.setdefault(frame_id_of(name, 0), name)
        if other != name:
            return other, name
    raise AssertionError("no two names have the same digest of 31 bits")


def encoded(paths: list[Path], settings: PictureSettings, factory: str = "colours", processes: int = 2) -> list[bytes]:
    spec = DetectorSpec("factory", "fake", f"tests.fake_detectors:{factory}", "f" * 64, CATEGORIES)
    pool = DetectorPool(spec, settings, processes)
    try:
        feeder = Feeder.of(pool, settings)
        works = tuple(Work(ImageKey(i, str(path), path.name), i) for i, path in enumerate(paths))
        return [rows.rows for rows in (*feeder.put(0, works), *feeder.drain())]
    finally:
        pool.close()


def planned(path: Path) -> PlannedInput:
    return PlannedInput(0, ImageKey(1, str(path), path.name), 1, 1, 0)


def test_every_frame_of_clips_among_pictures_leaves_once(tmp_path, capsys):
    write_pictures(tmp_path / "in", 3)
    make_clip(tmp_path / "in/a.mp4", 60, options={"bf": "2"})
    make_clip(tmp_path / "in/b.avi", 20, options={"bf": "3"})
    make_sound(tmp_path / "in/sound.mp4")
    (tmp_path / "in/nothing.mp4").write_bytes(b"")
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", "--annotate", "--annotate_frames=30,59")
    counts = manifest.counts
    assert (counts.inputs, counts.images, counts.clips, counts.sequential_clips) == (85, 83, 2, 1)
    assert counts.failures == {"empty": 1, "no_video": 1}
    assert counts.annotated == 3 + 2
    assert (tmp_path / "out/annotated/a.mp4#000030.jpg").exists()
    assert "of which clips: 2" in capsys.readouterr().out
    images = pd.read_parquet(tmp_path / "out/images")
    of_clip = images[images.video == "a.mp4"]
    assert of_clip.file_name.tolist() == [f"a.mp4#{n:06d}" for n in range(60)]
    assert of_clip.image_id.tolist() == [frame_id_of("a.mp4", n) for n in range(60)]
    assert of_clip.timestamp_s.tolist() == pytest.approx([n / 25 for n in range(60)])
    assert images[images.video.isna()].timestamp_s.isna().all()
    red = pd.read_parquet(tmp_path / "out/detections").query("video == 'a.mp4' and category == 'red'")
    assert red.xmin.tolist() == pytest.approx([2 * n % 72 for n in range(60)], abs=2)
    dataset = json.loads((tmp_path / "out/coco/dataset.json").read_text())
    assert {"id": frame_id_of("a.mp4", 7), "file_name": "a.mp4#000007", "width": 96, "height": 64} in dataset["images"]


@pytest.mark.parametrize("factory", ["colours", "Together"])
def test_one_range_and_two_and_seven_give_the_same_tables(tmp_path, factory):
    clip = make_clip(tmp_path / "a.mp4", 224, options={"bf": "2", "g": "32", "sc_threshold": "0"})
    found = []
    for size, ranges in ((1000, 1), (128, 2), (32, 7)):
        some = encoded([clip], PictureSettings(range_frames=size, batch_pixels=4000), factory)
        assert Rows.of(some).tables["spans"].num_rows == ranges
        root = tmp_path / str(size)
        commit_part(str(root), 0, [planned(clip)], some, RunLog())
        found.append([(root / name / "part-00000.parquet").read_bytes() for name in ("images", "detections")])
    assert found[0] == found[1] == found[2]


def test_a_part_of_many_frames_has_files_of_few(tmp_path, monkeypatch):
    make_clip(tmp_path / "in/a.mp4", 70, options={"bf": "2"})
    make_clip(tmp_path / "in/b.avi", 25)
    write_pictures(tmp_path / "in", 4)
    truth = {"images": [{"id": 7, "file_name": "a.mp4#000065", "width": 96, "height": 64}], "categories": []}
    (tmp_path / "ids.json").write_text(json.dumps({**truth, "annotations": []}))
    words = [f"--input={tmp_path}/in", "--track", "--annotate", "--annotate_every=9", "--workers=1"]
    words.append(f"--image_ids={tmp_path}/ids.json")
    tables = []
    for output, images in (("one", 2000), ("many", 10)):
        monkeypatch.setattr(parts, "FILE_IMAGES", images)
        detect(tmp_path / output, *words)
        files = {name: sorted((tmp_path / output / name).iterdir()) for name in ("images", "detections", "timings")}
        assert {len(paths) for paths in files.values()} == {1 if output == "one" else 10}
        assert len({tuple(path.name for path in paths) for paths in files.values()}) == 1
        some = {name: pd.concat(map(pd.read_parquet, paths)) for name, paths in files.items()}
        some["timings"] = some["timings"][["image_id", "file_name", "frame"]]
        tables.append({**some, "tracks": pd.read_parquet(tmp_path / output / "tracks")})
        tables[-1]["coco"] = (tmp_path / output / "coco/detections.json").read_bytes()
        tables[-1]["video"] = (tmp_path / output / "annotated/a.mp4").read_bytes()
        assert main(["report", str(tmp_path / output), f"--output={tmp_path}/{output}.html"]) == 0
    one, many = tables
    for name in ("images", "detections", "timings", "tracks"):
        pd.testing.assert_frame_equal(one[name].reset_index(drop=True), many[name].reset_index(drop=True))
    assert (one["coco"], one["video"]) == (many["coco"], many["video"])
    sections = [
        re.search(r'(?s)<section id="clips".*?</section>', (tmp_path / f"{name}.html").read_text())
        for name in ("one", "many")
    ]
    assert sections[0] is not None
    assert sections[1] is not None
    assert sections[0][0].replace('"one/', '"many/') == sections[1][0]
    # Begun afresh with other files, none of the old ones is left.
    monkeypatch.setattr(parts, "FILE_IMAGES", 30)
    detect(tmp_path / "many", *words, "--overwrite")
    assert len(list((tmp_path / "many/images").iterdir())) == 4


def test_ids_that_collide_are_settled_in_all_files_of_a_part(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "FILE_IMAGES", 7)
    first, second = colliding_names()
    clip = make_clip(tmp_path / "in" / first, 20)
    (tmp_path / "in" / second).write_bytes(clip.read_bytes())
    detect(tmp_path / "out", f"--input={tmp_path}/in", "--annotate", "--annotate_every=6")
    images, detections = (pd.read_parquet(tmp_path / "out" / name) for name in ("images", "detections"))
    assert images["image_id"].is_unique
    both = images.merge(detections, on=["file_name", "frame"], suffixes=("", "_of_detection"))
    assert len(both) == len(detections)
    assert (both["image_id"] == both["image_id_of_detection"]).all()


def test_many_clips_in_small_parts_add_up(tmp_path):
    """Ranges wait for a free process while rows of others come back: their part is not complete before they are."""
    for i in range(12):
        make_clip(tmp_path / f"in/{i}.avi", 3)
    counts = detect(tmp_path / "out", f"--input={tmp_path}/in", "--part_size=1", "--workers=1").counts
    assert (counts.images, counts.clips) == (36, 12)


@pytest.mark.parametrize(("factory", "code"), [("KillsAtFrame", "crashed"), ("HangsAtFrame", "timed_out")])
def test_a_frame_that_is_fatal_costs_itself_only(tmp_path, factory, code):
    for name in ("a.mp4", "a.avi"):
        clip = make_clip(tmp_path / name, 40, options={"bf": "2"})
        some = encoded([clip], PictureSettings(max_seconds=2.0), factory)
        counts = commit_part(str(tmp_path / f"{name}-out"), 0, [planned(clip)], some, RunLog()).counts
        assert (counts.images, counts.failures) == (39, {code: 1})
        (failure,) = Rows.of(some).tables["failures"].to_pylist()
        assert (failure["frame"], failure["file_name"]) == (FATAL_FRAME, f"{name}#{FATAL_FRAME:06d}")


def test_a_frame_without_a_row_is_noticed(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", 30)
    some = encoded([clip], PictureSettings(range_frames=10))
    with pytest.raises(JobError, match="leave out"):
        commit_part(str(tmp_path / "out"), 0, [planned(clip)], some[:-1], RunLog())
    builder = RowsBuilder("m", {})
    builder.span(0, 0, None, 2)
    with pytest.raises(JobError, match="2 have no row"):
        commit_part(str(tmp_path / "out"), 0, [planned(clip)], [builder.encode()], RunLog())


def test_elsewhere_ranges_are_spread_before_they_are_done(tmp_path):
    clip = make_clip(tmp_path / "a.mp4", 70, options={"sc_threshold": "0"})
    spec = DetectorSpec("factory", "fake", "tests.fake_detectors:colours", "f" * 64, CATEGORIES)
    source = PoolSource(spec, PictureSettings(range_frames=10), 1, (), False, Shared())

    def check(found: list[list[tuple[int, bytes]]]) -> None:
        tables = Rows.of(rows for _, rows in found[0]).tables
        assert len(found[0]) == 8  # the clip's own, and those of seven ranges
        assert tables["images"]["frame"].to_pylist() == list(range(70))

    with beam.Pipeline(runner=FnApiRunner()) as pipeline:
        groups = pipeline | beam.Create([(0, (Work(ImageKey(1, str(clip), "a.mp4"), 0),))]).with_output_types(Group)
        assert_that(groups | DetectObjects(source) | beam.combiners.ToList(), check)


def test_frames_that_flags_choose(tmp_path):
    make_clip(tmp_path / "in/a.mp4", 60)
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", "--fps=5", "--start=00:00:01", "--annotate")
    assert pd.read_parquet(tmp_path / "out/images").frame.tolist() == list(range(25, 60, 5))
    assert manifest.counts.annotated == 0
    for words in (
        ["--fps=2", "--every=3"],
        ["--start=2", "--end=1"],
        ["--every=2", "--input_format=image"],
        ["--annotate_every=2"],
    ):
        assert main(["detect", f"--output={tmp_path}/no", FAKE, f"--input={tmp_path}/in", *words]) == 2


def test_a_clip_of_which_no_frame_is_chosen_is_said(tmp_path, capsys):
    make_clip(tmp_path / "in/long.mp4", 60)
    make_clip(tmp_path / "in/short.mp4", 10)
    counts = detect(tmp_path / "out", f"--input={tmp_path}/in", "--start=1").counts
    assert (counts.images, counts.clips, counts.clips_without_frames) == (35, 2, 1)
    assert "1 clip has no frame of those that --start" in capsys.readouterr().out


def test_a_clip_that_cannot_be_opened_is_named_as_a_clip(tmp_path):
    (tmp_path / "in").mkdir()
    make_sound(tmp_path / "in/sound.mp4")
    (tmp_path / "in/text.mp4").write_text("no clip")
    detect(tmp_path / "out", f"--input={make_clip(tmp_path / 'a.mp4', 3)}", f"--input={tmp_path}/in")
    failures = pd.read_parquet(tmp_path / "out/failures").set_index("file_name")
    assert failures["video"].dropna().to_dict() == {"in/sound.mp4": "in/sound.mp4"}
    assert failures["code"].to_dict() == {"in/sound.mp4": "no_video", "in/text.mp4": "not_an_image"}
    assert "no clip of a kind that is known, and not a JPEG" in failures["message"]["in/text.mp4"]


def test_a_clip_of_more_frames_than_the_limit_costs_itself_only(tmp_path):
    make_clip(tmp_path / "in/long.mp4", 30)
    make_clip(tmp_path / "in/short.mp4", 20)
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", "--max_clip_frames=20")
    assert (manifest.counts.images, manifest.counts.failures) == (20, {"too_long": 1})
    (failure,) = pd.read_parquet(tmp_path / "out/failures").to_dict("records")
    assert (failure["file_name"], failure["stage"]) == ("long.mp4", "decode")
    assert failure["message"] == "The clip has more than 20 frames, which is the limit."


def test_clips_whose_names_have_the_same_digest_get_ids_of_their_own(tmp_path):
    pair = colliding_names()
    clip = make_clip(tmp_path / "in" / pair[0], 5)
    (tmp_path / "in" / pair[1]).write_bytes(clip.read_bytes())
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in")
    images = pd.read_parquet(tmp_path / "out/images")
    first, second = (images[images["video"] == name] for name in sorted(pair))
    assert images["image_id"].is_unique
    assert first["image_id"].tolist() == [frame_id_of(sorted(pair)[0], number) for number in range(5)]
    assert {one.file_name for one in manifest.renamed} == set(second["file_name"])


def test_copies_of_a_clip_are_clips_of_their_own(tmp_path):
    clip = make_clip(tmp_path / "in/a.mp4", 20)
    (tmp_path / "in/b.mp4").write_bytes(clip.read_bytes())
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", "--dedupe")
    assert (manifest.counts.images, manifest.counts.clips, manifest.counts.deduplicated) == (40, 2, 0)


def test_clips_are_evaluated_by_the_names_of_their_frames(tmp_path):
    make_clip(tmp_path / "in/a.mp4", 20)
    boxes = [(2 * n % 72, 32, 24, 24) for n in range(20)]
    truth = {
        "images": [{"id": 500 + n, "file_name": f"a.mp4#{n:06d}", "width": 96, "height": 64} for n in range(20)],
        "annotations": [
            {"id": n + 1, "image_id": 500 + n, "category_id": 1, "bbox": box, "area": 576, "iscrowd": 0}
            for n, box in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "red"}],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    manifest = detect(tmp_path / "out", f"--input={tmp_path}/in", f"--ground_truth={tmp_path}/truth.json")
    assert manifest.known_image_ids == 20
    assert json.loads((tmp_path / "out/evaluation/metrics.json").read_text())["metrics"]["AP"] > 0.7


def test_the_page_of_a_run_over_a_clip(tmp_path):
    make_clip(tmp_path / "in/a.mp4", 20)
    detect(tmp_path / "out", f"--input={tmp_path}/in")
    assert main(["report", str(tmp_path / "out"), f"--output={tmp_path}/page.html"]) == 0
    assert "a.mp4#000005" in (tmp_path / "page.html").read_text()
