"""What is fuzzed: for each reader, files that it takes, and the errors that it may raise. All else is a finding."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from beam_jobs.detectors.archive import ArchiveError, unpack
from beam_jobs.detectors.pipeline_config import parse as parse_config
from beam_jobs.errors import InputError, JobError, UsageError
from beam_jobs.formats.coco_ids import load_image_ids
from beam_jobs.formats.ground_truth import load_ground_truth
from beam_jobs.formats.label_map import load_label_map
from beam_jobs.formats.results import result_sources
from beam_jobs.formats.tf_example import make_example, parse_image
from beam_jobs.formats.tfrecord import frame, read_records
from beam_jobs.imaging.decode import decode
from beam_jobs.imaging.video import HEAD_BYTES, ClipFile, demuxer_of
from beam_jobs.imaging.video_index import index_clip
from beam_jobs.imaging.video_ranges import FrameChoice, frames_of
from beam_jobs.runs.check import check_run
from beam_jobs.runs.manifest import Manifest
from beam_jobs.runs.plan import Plan, Planner, read_part
from tests.clips import make_clip
from tests.pictures import BLUE, RED, encode, picture

_PIXELS = picture(40, 30, ((2, 3, 20, 20), RED), ((25, 5, 35, 25), BLUE))


@dataclass(frozen=True)
class Target:
    """A reader.

    Args:
        seeds: files that it takes.
        read: reads one, given its bytes and an empty folder of its own.
        allowed: what it may raise.
    """

    seeds: tuple[bytes, ...]
    read: Callable[[bytes, Path], object]
    allowed: tuple[type[BaseException], ...]


def _pictures() -> tuple[bytes, ...]:
    formats = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
    progressive = encode(_PIXELS, "JPEG", progressive=True, quality=80)
    compressed = [encode(_PIXELS, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "jpeg")]
    return (*(encode(_PIXELS, format) for format in formats), progressive, *compressed)


def _example() -> bytes:
    sides = {"xmin": 0.1, "xmax": 0.6, "ymin": 0.1, "ymax": 0.7}
    numbers: dict[str, list[float]] = {f"image/object/bbox/{side}": [value] for side, value in sides.items()}
    return make_example(
        {
            "image/encoded": [encode(_PIXELS, "PNG")],
            "image/filename": [b"a.png"],
            "image/height": [30],
            "image/width": [40],
            "image/source_id": [b"7"],
            "image/object/class/label": [1],
            "image/object/class/text": [b"red"],
            **numbers,
        }
    )


def _coco() -> bytes:
    segmentation = [[1.0, 1.0, 9.0, 1.0, 9.0, 9.0]]
    return json.dumps(
        {
            "images": [{"id": 7, "file_name": "a 0.png", "width": 40, "height": 30}],
            "annotations": [
                {"id": 1, "image_id": 7, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0,
                 "segmentation": segmentation, "keypoints": [1, 2, 2], "num_keypoints": 1},
                {"id": 2, "image_id": 7, "category_id": 1, "bbox": [1, 1, 2, 2], "area": 4, "iscrowd": 1,
                 "segmentation": {"size": [30, 40], "counts": [0, 30, 1170]}},
            ],
            "categories": [{"id": 1, "name": "red"}],
        }
    ).encode()  # fmt: skip


def _results() -> bytes:
    mask = {"size": [30, 40], "counts": "0N:0n4"}
    box = {"image_id": 7, "category_id": 1, "bbox": [1.5, 2, 3, 4], "score": 0.5}
    return json.dumps([box, {**box, "segmentation": mask}, {**box, "keypoints": [1, 2, 0.5]}]).encode()


_LABELS = (
    b"item {\n  id: 1\n  name: 'a'\n  display_name: \"person\"\n}\nitem { id: 3 name: '\\303\\244' }\n",
    b'\n\n\n\x06person\x10\x01\n\x07\n\x03car\x10\x03',
    json.dumps({"categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "car"}]}).encode(),
    gzip.compress(b"item { id: 1 name: 'a' }", mtime=0),
)  # fmt: skip
_CONFIG = b"""model { ssd { num_classes: 90 image_resizer { fixed_shape_resizer { height: 300 width: 300 } }
  feature_extractor { type: "ssd_mobilenet_v2_keras" }
  post_processing { batch_non_max_suppression { score_threshold: 1e-8 iou_threshold: 0.6 max_detections_per_class: 100
    max_total_detections: 100 } score_converter: SIGMOID } } }
train_config { batch_size: 24 }
eval_input_reader { label_map_path: "labels.pbtxt" }
"""


def _archive() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for name in ("model/saved_model/saved_model.pb", "model/pipeline.config", "model/" + "long/" * 30 + "x"):
            info = tarfile.TarInfo(name)
            info.size = 5
            tar.addfile(info, io.BytesIO(b"12345"))
    return out.getvalue()


def _parquet_results() -> bytes:
    columns = {"image_id": [7, 7], "category_id": [1, 1], "score": [0.5, 0.4]}
    columns |= {side: [1.0, 2.0] for side in ("xmin", "ymin")} | {side: [11.0, 12.0] for side in ("xmax", "ymax")}
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


def _plan(name: str) -> bytes:
    import tempfile

    from beam_jobs.matching import Found

    with tempfile.TemporaryDirectory() as root, Planner() as planner:
        planner.add([Found(f"/in/{letter}.png", f"{letter}.png", 10, 1) for letter in "abc"])
        planner.arrange()
        planner.write(root, 2, {"model": "fake", "categories": {"1": "red"}})
        return Path(root, "_plan", name).read_bytes()


def _manifest() -> bytes:
    """A manifest with something in each of its fields."""
    from beam_jobs.runs.manifest import DetectorRecord
    from beam_jobs.runs.parts import Counts, FileRecord
    from beam_jobs.runs.records import InputsRecord, ModelRecord

    model = ModelRecord("fake", "0" * 64, "python", {"input": "uint8"})
    file = FileRecord("images/part-00000.parquet", 3, 100, "0" * 64)
    counts = Counts(inputs=3, images=2, failures={"corrupt": 1})
    manifest = Manifest(
        1, "succeeded", "1", ["beam-detect"], {"model": "fake"}, model, InputsRecord(3, 1, 0, 0, 0, 0), counts, None,
        [],
        DetectorRecord(1, 1, 0.1), {"total": 1.0}, {"infer": 0.5}, 3.0, "2026-01-01", "2026-01-01", {}, {}, [file],
    )  # fmt: skip
    return msgspec.json.encode(manifest)


def _file(read: Callable[[str], object], name: str = "file") -> Callable[[bytes, Path], object]:
    def on_disk(data: bytes, folder: Path) -> object:
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return read(str(path))

    return on_disk


def _read_results(path: str) -> None:
    refused: list[UsageError] = []
    for iou_type in ("segm", "keypoints", "bbox"):
        try:
            for source in result_sources(path, iou_type):
                source.read()
        except UsageError as error:
            refused.append(error)
    if len(refused) == 3:
        raise refused[0]


def _read_slice(data: bytes, folder: Path) -> None:
    (folder / "_plan").mkdir()
    (folder / "_plan" / "inputs-00000.parquet").write_bytes(data)
    for part in range(2):
        read_part(str(folder), part)


def _read_run(data: bytes, folder: Path) -> list[str]:
    """`beam-detect check` on a folder with this manifest alone: it must tell, not fall."""
    (folder / "run.json").write_bytes(data)
    return list(check_run(str(folder)))


def _unpack(data: bytes, folder: Path) -> None:
    (folder / "archive").write_bytes(data)
    (folder / "out").mkdir()
    try:
        unpack(folder / "archive", folder / "out", max_bytes=10 << 20)
    finally:
        shutil.rmtree(folder / "out")
    strangers = [path.name for path in folder.iterdir() if path.name != "archive"]
    if strangers:
        raise AssertionError(f"wrote {strangers} outside of its folder")


def _clips() -> tuple[bytes, ...]:
    kinds = (("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx"), ("a.avi", "mpeg4"), ("a.ts", "libx264"))
    with tempfile.TemporaryDirectory() as folder:
        made = [make_clip(Path(folder) / name, 8, codec=codec, size=(48, 32)) for name, codec in kinds]
        return tuple(path.read_bytes() for path in made)


def _read_clip(data: bytes, folder: Path) -> None:
    path = folder / "clip"
    path.write_bytes(data)
    demuxer = demuxer_of(data[:HEAD_BYTES])
    if demuxer is None:
        return
    index = index_clip(ClipFile(str(path), demuxer))
    for part in index.ranges(FrameChoice(), 4):
        for _ in frames_of(part, lambda _: None, 1 << 22):
            pass


@cache
def targets() -> dict[str, Target]:
    """All of them, by name."""
    example = _example()
    records = frame(example) * 3
    truths = (_coco(), gzip.compress(_coco(), mtime=0))
    return {
        "pictures": Target(_pictures(), lambda data, _: decode(data, max_pixels=1 << 22), (InputError,)),
        "clips": Target(_clips(), _read_clip, (InputError,)),
        "tf.Example": Target((example,), lambda data, _: parse_image(data), (InputError,)),
        "TFRecord": Target(
            (records, gzip.compress(records, mtime=0)),
            lambda data, _: list(read_records(io.BytesIO(data), max_bytes=1 << 20)),
            (InputError, OSError),
        ),
        "label maps": Target(_LABELS, _file(load_label_map), (UsageError,)),
        "COCO ground truth": Target(truths, _file(load_ground_truth), (UsageError,)),
        "TFRecord ground truth": Target((records,), _file(load_ground_truth), (UsageError,)),
        "image ids": Target((_coco(),), _file(load_image_ids), (UsageError,)),
        "COCO results": Target((_results(),), _file(_read_results, "results.json"), (UsageError,)),
        "Parquet results": Target((_parquet_results(),), _file(_read_results, "x.parquet"), (UsageError,)),
        "pipeline.config": Target((_CONFIG,), lambda data, _: parse_config(data, "pipeline.config"), (UsageError,)),
        "model archives": Target((_archive(),), _unpack, (ArchiveError,)),
        "plan.json": Target(
            (_plan("plan.json"),),
            _file(lambda path: Plan.read(str(Path(path).parent.parent)), "_plan/plan.json"),
            (UsageError,),
        ),
        "plan slices": Target((_plan("inputs-00000.parquet"),), _read_slice, (UsageError, JobError)),
        "run.json": Target((_manifest(),), _read_run, (UsageError,)),
    }
