"""Results from runs, COCO files and Parquet files, and how their images are joined to a truth."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from beam_jobs.errors import UsageError
from beam_jobs.formats import coco
from beam_jobs.formats.evaluated import RESULTS, TRUTH_IMAGES, TRUTH_OBJECTS, GroundTruth, IouType
from beam_jobs.formats.image_join import How, ImageJoin
from beam_jobs.formats.results import RESULT_IMAGES, ResultChunk, result_sources
from beam_jobs.formats.tables import DETECTIONS, IMAGES
from beam_jobs.formats.tfrecord import write_records

Json = dict[str, Any]
BOXES = [
    {"image_id": 9, "category_id": 2, "bbox": [1, 2, 30.1, 4.5], "score": 0.5},
    {"image_id": 3, "category_id": 90, "bbox": [0.1, -1, 0, 3], "score": 1, "extra": [None]},
    {"image_id": 9, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5, "segmentation": None},
]


def save(path: Path, data: Any) -> str:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def read(source: str | Path, iou_type: IouType = "bbox") -> ResultChunk:
    (one,) = pickle.loads(pickle.dumps(result_sources(str(source), iou_type)))
    chunk: ResultChunk = one.read()
    assert chunk.results.schema == RESULTS
    assert chunk.images.schema == RESULT_IMAGES
    assert one.read_images().equals(chunk.images)
    return chunk


def refused(source: str | Path, iou_type: IouType = "bbox") -> str:
    with pytest.raises(UsageError) as caught:
        [one.read() for one in result_sources(str(source), iou_type)]
    return str(caught.value)


def test_coco_boxes(tmp_path: Path) -> None:
    chunk = read(save(tmp_path / "results.json", BOXES))
    assert not chunk.all_images
    assert chunk.images.to_pylist() == [{"image_id": 3, "file_name": None}, {"image_id": 9, "file_name": None}]
    assert [list(row.values()) for row in chunk.results.to_pylist()] == [
        [9, 0, 2, 1, 2, 30.1, 4.5, 0.5, None, None],
        [3, 0, 90, 0.1, -1, 0, 3, 1, None, None],
        [9, 1, 2, 1, 2, 3, 4, 0.5, None, None],
    ]
    (tmp_path / "results.json").write_bytes(gzip.compress((tmp_path / "results.json").read_bytes()))
    assert read(tmp_path / "results.json").results.equals(chunk.results)


def test_no_results(tmp_path: Path) -> None:
    chunk = read(save(tmp_path / "results.json", []))
    assert (chunk.results.num_rows, chunk.images.num_rows) == (0, 0)


def test_coco_masks(tmp_path: Path) -> None:
    rle = {"size": [6, 7], "counts": "=330a0"}  # 2 x 3 pixels from 2, 1
    plain = {"image_id": 1, "category_id": 1, "score": 0.1, "segmentation": rle}
    row = read(save(tmp_path / "a", [plain]), "segm").results.to_pylist()[0]
    assert json.loads(row["segmentation"]) == rle
    assert np.isnan([row["x"], row["y"], row["width"], row["height"]]).all()
    row = read(tmp_path / "a").results.to_pylist()[0]
    assert [row[side] for side in ("x", "y", "width", "height")] == [2, 1, 2, 3]
    with_box = {**plain, "bbox": [1, 2, 3, 4]}
    row = read(save(tmp_path / "a", [with_box]), "segm").results.to_pylist()[0]
    assert (json.loads(row["segmentation"]), row["width"]) == (rle, 3)
    without_mask = {**with_box, "segmentation": None}
    rows = read(save(tmp_path / "a", [without_mask, with_box]), "segm").results.to_pylist()
    assert [row["segmentation"] is None for row in rows] == [True, False]
    broken = {**plain, "segmentation": {"size": [6, 7], "counts": "zzzzzz"}}
    assert "[1] (image_id 1): segmentation: invalid RLE" in refused(save(tmp_path / "a", [plain, broken]))


def test_keypoints_have_the_box_that_pycocotools_gives_them(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    found = [
        {"image_id": 1, "category_id": 1, "score": 0.5, "keypoints": rng.uniform(0, 99, 51).tolist()} for _ in range(5)
    ]
    truth = COCO()
    truth.dataset = {"images": [{"id": 1}], "categories": [{"id": 1}], "annotations": []}
    truth.createIndex()
    oracle = truth.loadRes(save(tmp_path / "a", found))
    for row, one, expected in zip(
        read(tmp_path / "a", "keypoints").results.to_pylist(), found, oracle.anns.values(), strict=True
    ):
        assert row["keypoints"] == one["keypoints"]
        assert [row[side] for side in ("x", "y", "width", "height")] == expected["bbox"]
        assert row["width"] * row["height"] == expected["area"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": None}, "[1] (image_id 3): score: expected `float`, got `null`"),
        ({"score": ...}, "[1] (image_id 3): object missing required field `score`"),
        ({"image_id": ...}, "[1]: object missing required field `image_id`"),
        ({"image_id": "3"}, '[1] (image_id "3"): image_id: expected `int`, got `str`'),
        ({"image_id": -3}, "[1] (image_id -3): image_id: expected `int` >= 0"),
        ({"category_id": 1.5}, "[1] (image_id 3): category_id: expected `int`, got `float`"),
        ({"bbox": [1, 2, 3]}, "[1] (image_id 3): bbox: expected `array` of length 4"),
        (
            {"bbox": [1, 2, -3, 4]},
            "[1] (image_id 3): bbox [1.0, 2.0, -3.0, 4.0] has a negative width or height; a bbox",
        ),
        ({"bbox": ...}, "[0] (image_id 9) has bbox and [1] (image_id 3) has none; results of one file must be of one"),
        (
            {"bbox": ..., "segmentation": {"size": [1, 1], "counts": "x"}},
            "[0] (image_id 9) has bbox and [1] (image_id 3)",
        ),
        ({"segmentation": [[1, 2]]}, "[1] (image_id 3): segmentation: expected `object | null`, got `array`"),
        ({"segmentation": {"size": [1, 1], "counts": [1]}}, "segmentation.counts: expected `str`, got `array`"),
        ({"keypoints": [1, 2]}, "[1] (image_id 3): keypoints holds 2 values"),
    ],
)
def test_a_wrong_result_is_named(tmp_path: Path, change: Json, message: str) -> None:
    wrong = {key: value for key, value in {**BOXES[1], **change}.items() if value is not ...}
    if "keypoints" in change:
        data = [{**one, "keypoints": [1, 2, 2]} for one in BOXES]
        data[1] = wrong
    else:
        data = [BOXES[0], wrong, BOXES[2]]
    text = refused(save(tmp_path / "results.json", data))
    assert message in text
    assert text.startswith(f"the detections {str(tmp_path / 'results.json')!r} cannot be used: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n{"score": NaN}]', "line 2 (byte 12) has NaN, which is not a JSON number"),
        ('[{"image_id": 1, "category_id": 1, "score": 1}]', "[0] (image_id 1) has no bbox, segmentation or keypoints"),
        ('{"images": [], "annotations": []}', "it looks like a COCO ground truth, and no list of COCO results; give a"),
        ('{"job": 1, "files": [], "counts": 1}', "it looks like the run.json of a run, and no list"),
        ("[1]", "[0]: expected `object`, got `int`"),
        ("", "it is empty"),
        ("GIF89a", "it is neither JSON nor a TFRecord file"),
    ],
)
def test_what_is_no_results_file(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(save(tmp_path / "x", text))


def detections(rng: np.random.Generator, image_ids: list[int], n: int) -> pa.Table:
    ids = np.sort(rng.choice(image_ids, n))
    corners = rng.uniform(0, 100, (4, n)).astype(np.float32)
    corners[2:] += corners[:2]
    columns: dict[str, Any] = {
        **{"image_id": ids, "file_name": [f"{i}.jpg" for i in ids], "frame": np.zeros(n, np.int32)},
        **{"rank": np.zeros(n, np.int32), "category_id": rng.integers(1, 5, n).astype(np.int32)},
        **{"category": ["x"] * n, "score": rng.uniform(0, 1, n).astype(np.float32)},
        **dict(zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)),
        "area": np.zeros(n, np.float32),
    }
    nulls = {field.name: pa.nulls(n, field.type) for field in DETECTIONS if field.nullable}
    return pa.table({**nulls, **columns}, schema=DETECTIONS)


def make_run(root: Path, parts: list[tuple[list[int], pa.Table]]) -> None:
    files = []
    for number, (image_ids, table) in enumerate(parts):
        columns = {
            name: image_ids
            if name == "image_id"
            else [f"{i}.jpg" for i in image_ids]
            if name == "file_name"
            else ["" if IMAGES.field(name).type == pa.string() else 0] * len(image_ids)
            for name in IMAGES.names
        }
        for name, rows in (("images", pa.table(columns, schema=IMAGES)), ("detections", table)):
            (root / name).mkdir(parents=True, exist_ok=True)
            path = f"{name}/part-{number:05d}.parquet"
            pq.write_table(rows, root / path)
            digest = hashlib.sha256((root / path).read_bytes()).hexdigest()
            files.append({"path": path, "rows": rows.num_rows, "bytes": 1, "sha256": digest})
    (root / "detections" / "part-99999.parquet").write_bytes(b"left behind, and in no manifest")
    save(root / "run.json", {"files": sorted(files, key=lambda file: str(file["path"])), "job": {}})


def test_a_run_has_the_numbers_of_its_coco_file(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    parts = [([5, 7, 2**53 - 1], detections(rng, [5, 7], 40)), ([1, 2], detections(rng, [1, 2], 30)), ([4], None)]
    parts[2] = ([4], DETECTIONS.empty_table())
    make_run(tmp_path, parts)
    sources = result_sources(str(tmp_path))
    assert len(sources) == 3
    out = io.BytesIO()
    coco.write_results(out, [table for _, table in parts])
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "detections.json").write_bytes(out.getvalue())
    expected = read(tmp_path / "coco" / "detections.json").results
    chunks = [one.read() for one in sources]
    assert pa.concat_tables([chunk.results for chunk in chunks]).combine_chunks().equals(expected.combine_chunks())
    assert [chunk.images["image_id"].to_pylist() for chunk in chunks] == [[5, 7, 2**53 - 1], [1, 2], [4]]
    assert chunks[1].images["file_name"].to_pylist() == ["1.jpg", "2.jpg"]
    assert all(chunk.all_images and chunk.images.schema == RESULT_IMAGES for chunk in chunks)
    assert sources[0].read_images().equals(chunks[0].images)


def test_a_run_that_is_damaged(tmp_path: Path) -> None:
    make_run(tmp_path / "run", [([1], detections(np.random.default_rng(1), [1], 3))])
    (tmp_path / "run" / "detections" / "part-00000.parquet").write_bytes(b"PAR1 and nothing else")
    assert "part-00000.parquet' cannot be used: it cannot be read as Parquet" in refused(tmp_path / "run")
    save(tmp_path / "run" / "run.json", {"files": [{"path": "detections/part-00000.parquet"}]})
    assert "its images and detections are not of the same parts" in refused(tmp_path / "run")
    save(tmp_path / "run" / "run.json", {})
    assert "run.json' cannot be used: object missing required field `files`" in refused(tmp_path / "run")
    (tmp_path / "run" / "run.json").unlink()
    (tmp_path / "run" / "_plan").mkdir()
    assert "is not finished: it has no run.json; run it to its end" in refused(tmp_path / "run")


def test_a_column_whose_name_is_no_text(tmp_path: Path) -> None:
    pq.write_table(detections(np.random.default_rng(1), [1], 3), tmp_path / "a.parquet", store_schema=False)
    data = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(data.replace(b"score", b"\x8ccore"))
    assert "it cannot be read as Parquet" in refused(tmp_path / "a.parquet")


def test_parquet_whose_schema_has_a_column_that_is_not_there(tmp_path: Path) -> None:
    ids = {"image_id": [7], "category_id": [1]}
    rest = {name: [0.5] for name in ("score", "xmin", "ymin", "xmax", "ymax")}
    pq.write_table(pa.table(ids | rest), tmp_path / "a.parquet", store_schema=False)
    data = (tmp_path / "a.parquet").read_bytes()
    # Thrift's SchemaElement whose type (field 1, 0x15 for a number) is of a kind that nobody knows: a group of nothing.
    damaged = data.replace(b"\x15\x0a\x25\x02\x18\x04ymin", b"\x1a\x0a\x25\x02\x18\x04ymin")
    # The orders of columns (field 7 behind 6), of which there would be too many, become a field that nobody knows.
    damaged = damaged.replace(b"\x19\x7c\x1c\x00\x00\x1c", b"\x89\x7c\x1c\x00\x00\x1c")
    (tmp_path / "a.parquet").write_bytes(damaged)
    assert "its schema has ymin, and there is no such column" in refused(tmp_path / "a.parquet")


def test_parquet_files(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    tables = [detections(rng, [5, 7], 40), detections(rng, [1, 2], 30)]
    for i, table in enumerate(tables):
        pq.write_table(table, tmp_path / f"{i}.parquet")
    for source in (tmp_path, tmp_path / "*.parquet"):
        chunks = [one.read() for one in result_sources(str(source))]
        assert [chunk.results.num_rows for chunk in chunks] == [40, 30]
        assert chunks[1].images.to_pylist() == [{"image_id": i, "file_name": f"{i}.jpg"} for i in (1, 2)]
    wide = tables[0].select(["score", "xmin", "ymin", "xmax", "ymax"]).append_column("image_id", tables[0]["image_id"])
    wide = wide.append_column("category_id", tables[0]["category_id"].cast(pa.int64()))
    pq.write_table(wide, tmp_path / "wide")
    chunk = read(tmp_path / "wide")
    assert chunk.results.equals(result_sources(str(tmp_path / "0.parquet"))[0].read().results)
    assert chunk.images["file_name"].to_pylist() == [None, None]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("xmax", None, "it has no column xmax; it has "),
        ("score", [0.5, None], "the column score has 1 null;"),
        ("score", [0.5, float("nan")], "row [1] (image_id 2): the score is NaN"),
        ("score", ["a", "b"], "the column score is string: "),
        ("xmax", [0.0, 5.0], "row [0] (image_id 1): bbox [1.0, 1.0, -1.0, 2.0] has a negative width or height"),
        ("ymax", [2.0, float("inf")], "row [1] (image_id 2): bbox"),
        ("image_id", [1, -2], "row [1]: image_id is -2; ids are 0 to"),
        ("image_id", ["1", "x"], "the column image_id is string"),
        ("category_id", [1, 2**40], "the column category_id is int64: "),
    ],
)
def test_a_wrong_column_is_named(tmp_path: Path, column: str, values: Any, message: str) -> None:
    columns: Json = {"image_id": [1, 2], "category_id": [1, 1], "score": [0.5, 0.5]}
    columns |= {"xmin": [1.0, 1.0], "ymin": [1.0, 1.0], "xmax": [3.0, 3.0], "ymax": [3.0, 3.0]}
    columns[column] = values
    pq.write_table(pa.table({k: v for k, v in columns.items() if v is not None}), tmp_path / "x.parquet")
    text = refused(tmp_path / "x.parquet")
    assert message in text
    assert repr(str(tmp_path / "x.parquet")) in text


def test_masks_and_keypoints_of_parquet_files(tmp_path: Path) -> None:
    table = detections(np.random.default_rng(2), [5, 7], 4)
    rle = {"size": [6, 7], "counts": "=330a0"}
    points = [1.0, 2.0, 0.5] * 17
    given = {"mask": [rle, None, rle, None], "mask_area": [6, None, 6, None], "keypoints": [None, points, None, None]}
    for name, column in given.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), pa.array(column, table.schema.field(at).type))
    pq.write_table(table, tmp_path / "x.parquet")
    boxes, masks, poses = (read(tmp_path / "x.parquet", kind) for kind in get_args(IouType))
    numbers = boxes.results["detection"].to_pylist()
    assert boxes.results["segmentation"].null_count == boxes.results["keypoints"].null_count == 4
    assert [json.loads(text) for text in masks.results["segmentation"].to_pylist()] == [rle, rle]
    assert masks.results["detection"].to_pylist() == [numbers[0], numbers[2]]
    assert np.isnan(masks.results["width"].to_numpy()).all()
    assert poses.results["keypoints"].to_pylist() == [points]
    assert poses.results["width"].to_pylist() == boxes.results["width"].to_pylist()[1:2]
    assert boxes.images.equals(masks.images)
    assert boxes.images.equals(poses.images)  # also those in which nothing has a mask


@pytest.mark.parametrize(
    ("iou_type", "column", "values", "message"),
    [
        ("segm", None, None, "it has no masks; compare by bbox, or"),
        ("segm", "mask", pa.array(["a", "b"]), "the column mask is string; write it as {size: [height, width], counts"),
        ("keypoints", None, None, "it has no keypoints; compare by bbox, or"),
        ("keypoints", "keypoints", pa.array([1.0, 2.0]), "the column keypoints is double; write it as a list of x, y,"),
        (
            "keypoints",
            "keypoints",
            pa.array([[1.0, np.nan, 1.0], None]),
            "the column keypoints has numbers that are not",
        ),
    ],
)
def test_a_wrong_shape_is_named(tmp_path: Path, iou_type: IouType, column: str, values: Any, message: str) -> None:
    table = detections(np.random.default_rng(2), [5], 2)
    if column:
        table = table.set_column(table.schema.get_field_index(column), column, values)
    pq.write_table(table, tmp_path / "x.parquet")
    assert message in refused(tmp_path / "x.parquet", iou_type)
    pq.write_table(table.drop_columns(["mask", "keypoints"]), tmp_path / "x.parquet")
    assert "; compare by bbox, or detect with a model that gives" in refused(tmp_path / "x.parquet", iou_type)


def test_sources_that_cannot_be(tmp_path: Path) -> None:
    assert "the detections cannot be found: " in refused(tmp_path / "none")
    table = detections(np.random.default_rng(2), [5, 7], 4)
    pq.write_table(table, tmp_path / "a")
    pq.write_table(table, tmp_path / "b")
    text = refused(tmp_path)
    assert "is also in" in text
    assert "write all detections of an image into one file" in text
    save(tmp_path / "c", BOXES)
    assert "it is one of 3 files" in refused(tmp_path)
    write_records(str(tmp_path / "d"), [b"x"])
    assert "it is a TFRecord file; give a run's folder" in refused(tmp_path / "d")


def truth_of(images: dict[int, str]) -> GroundTruth:
    rows = [{"image_id": i, "file_name": name, "width": 0, "height": 0} for i, name in sorted(images.items())]
    return GroundTruth(pa.Table.from_pylist(rows, TRUTH_IMAGES), TRUTH_OBJECTS.empty_table(), {})


def images_of(*images: tuple[int, str | None]) -> pa.Table:
    return pa.table([[i for i, _ in images], [name for _, name in images]], schema=RESULT_IMAGES)


TRUTH = truth_of({0: "zero.jpg", 5: "a/one.jpg", 6: "a/two.jpg", 7: "b/two.jpg", 8: "same", 9: "same"})


@pytest.mark.parametrize(
    ("image_id", "name", "truth_id", "how"),
    [
        (5, None, 5, How.ID),
        (0, None, 0, How.ID),
        (4, None, -1, How.NOTHING),
        (5, "elsewhere/one.jpg", 5, How.ID),
        (5, "b/two.jpg", 7, How.EXACT_NAME),
        (5, "other.jpg", -1, How.NOTHING),
        (99, "a/two.jpg", 6, How.EXACT_NAME),
        (99, "x/y/one.jpg", 5, How.BASE_NAME),
        (99, "two.jpg", -1, How.NOTHING),
        (6, "two.jpg", 6, How.ID),
        (99, "same", -1, How.NOTHING),
        (9, "same", 9, How.ID),
    ],
)
def test_one_image_is_joined(image_id: int, name: str | None, truth_id: int, how: How) -> None:
    found, reason = pickle.loads(pickle.dumps(ImageJoin.of(TRUTH))).find(images_of((image_id, name)))
    assert (found.tolist(), reason.tolist()) == ([truth_id], [how])


def test_images_are_joined_and_counted() -> None:
    joined = ImageJoin.of(TRUTH).join(
        images_of((90, "x/one.jpg"), (91, "a/one.jpg"), (92, "c/one.jpg"), (7, None), (93, "none"), (94, None))
    )
    assert joined.truth_ids.tolist() == [-1, 5, -1, 7, -1, -1]
    assert [joined.count(how) for how in How] == [1, 1, 0, 0]
    assert (joined.repeated, joined.repeated_examples) == (2, ("c/one.jpg", "x/one.jpg"))
    assert (joined.unmatched, joined.unmatched_examples) == (2, ("image_id 94", "none"))
    assert joined.missing.tolist() == [0, 6, 8, 9]


def test_of_equals_the_first_by_name_is_joined() -> None:
    images = [(90, "x/one.jpg"), (91, "c/one.jpg"), (92, "d/one.jpg")]
    for order in (images, images[::-1]):
        joined = ImageJoin.of(TRUTH).join(images_of(*order))
        assert dict(zip(joined.image_ids.tolist(), joined.truth_ids.tolist(), strict=True)) == {90: -1, 91: 5, 92: -1}


def test_empty_sides() -> None:
    joined = ImageJoin.of(TRUTH).join(images_of())
    assert (len(joined.truth_ids), joined.missing.tolist()) == (0, [0, 5, 6, 7, 8, 9])
    joined = ImageJoin.of(truth_of({})).join(images_of((1, "a"), (2, None)))
    assert (joined.truth_ids.tolist(), joined.unmatched) == ([-1, -1], 2)


names = st.sampled_from(["a", "b", "x/a", "y/a", "x/b", "c"])


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(0, 6), names, max_size=5),
    st.dictionaries(st.integers(0, 9), names | st.none(), max_size=6),
)
def test_joining_is_what_it_says(truth: dict[int, str], images: dict[int, str | None]) -> None:
    asked: dict[int, list[tuple[int, bytes, int]]] = {}
    for image_id, name in images.items():
        exact = [i for i, other in truth.items() if other == name]
        base = [i for i, other in truth.items() if name and other.split("/")[-1] == name.split("/")[-1]]
        if image_id in truth and (name is None or image_id in base):
            asked.setdefault(image_id, []).append((0, (name or "").encode(), image_id))
        elif name and len(exact) == 1:
            asked.setdefault(exact[0], []).append((1, name.encode(), image_id))
        elif name and len(base) == 1:
            asked.setdefault(base[0], []).append((2, name.encode(), image_id))
    expected = {min(reasons)[2]: truth_id for truth_id, reasons in asked.items()}
    joined = ImageJoin.of(truth_of(truth)).join(images_of(*images.items()))
    assert joined.truth_ids.tolist() == [expected.get(image_id, -1) for image_id in images]
    assert joined.unmatched == len(images) - sum(map(len, asked.values()))
    assert joined.repeated == sum(map(len, asked.values())) - len(asked)
    assert joined.missing.tolist() == sorted(set(truth) - set(expected.values()))
