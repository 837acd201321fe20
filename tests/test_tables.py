import numpy as np
import pyarrow as pa
import pytest

from beam_jobs.errors import InputError
from beam_jobs.formats import tables
from beam_jobs.formats.rows import ImageFacts, Place, Rows, RowsBuilder
from beam_jobs.formats.tables import STEPS
from beam_jobs.records import Detections, ImageKey


def one(name: str, input: int, scores: list[float], record: int | None = None, category: int = 1) -> bytes:
    builder = RowsBuilder("fake@1", {1: "red"})
    n = len(scores)
    boxes = np.array([[1, 2, 4, 6 + i] for i in range(n)], np.float32).reshape(-1, 4)
    found = Detections(boxes, np.array(scores, np.float32), np.full(n, category, np.int32))
    key = ImageKey(input + 7, f"/in/{name}", name, record)
    builder.image(key, Place(input, record), key.uri, ImageFacts(10, 20, "PNG", 1, 99, "ab"), found, 0)
    builder.timing(key, Place(input, record), "host:1", dict(zip(STEPS, range(5), strict=True)), 1, 0)
    return builder.encode()


def test_rows_have_what_was_collected():
    builder = RowsBuilder("m", {})
    builder.failure(ImageKey(3, "/in/x", "x"), Place(3), "/in/x", InputError("decode", "truncated", "cut"))
    builder.container(4, 12)
    rows = Rows.of([one("a", 1, [0.5, 0.25]), builder.encode(), RowsBuilder("m", {}).encode()]).tables
    place = {"input": 1, "record": -1}
    key = {"image_id": 8, "file_name": "a", "frame": 0}
    facts = {"width": 10, "height": 20, "format": "PNG", "exif_orientation": 1, "bytes": 99, "sha256": "ab"}
    no_clip = {"timestamp_s": None, "video": None}
    assert rows["images"].to_pylist() == [
        {**key, **no_clip, "uri": "/in/a", **facts, "num_detections": 2, "model": "fake@1", **place}
    ]
    nulls = {"track_id": None, "mask": None, "mask_area": None, "keypoints": None, **no_clip}
    box = {"xmin": 1.0, "ymin": 2.0, "xmax": 4.0}
    assert rows["detections"].to_pylist() == [
        {**key, "rank": i, "category_id": 1, "category": "red", "score": score, **box, "ymax": 6.0 + i, "area": area}
        | nulls
        | place
        for i, score, area in ((0, 0.5, 12.0), (1, 0.25, 15.0))
    ]
    assert rows["failures"].to_pylist() == [
        {"uri": "/in/x", "file_name": "x", "frame": 0, "stage": "decode", "code": "truncated", "message": "cut"}
        | {"attempts": 1, "input": 3, "record": -1, **no_clip}
    ]
    assert rows["containers"].to_pylist() == [{"input": 4, "records": 12}]
    times = {f"{step}_ms": float(i) for i, step in enumerate(STEPS)}
    assert rows["timings"].to_pylist() == [
        {**key, "process": "host:1", **times, "call_pictures": 1, "shrunk_calls": 0, **place}
    ]


def test_order_does_not_depend_on_how_the_work_was_divided():
    groups = [one("b", 1, [0.9]), one("a", 0, [0.8, 0.7]), one("é", 4, []), one("Z", 3, [0.1]), one("b", 2, [0.6])]
    straight, reverse = Rows.of(groups), Rows.of(groups[::-1])
    for name, table in straight.tables.items():
        assert table.equals(reverse.tables[name]), name
    assert straight.tables["images"]["file_name"].to_pylist() == ["Z", "a", "b", "b", "é"]
    detections = straight.tables["detections"].select(["file_name", "input", "rank"]).to_pylist()
    assert [tuple(row.values()) for row in detections] == [
        ("Z", 3, 0), ("a", 0, 0), ("a", 0, 1), ("b", 1, 0), ("b", 2, 0),
    ]  # fmt: skip


def test_a_class_without_a_name_keeps_its_number_and_is_counted():
    rows = Rows.of([one("a", 0, [0.9, 0.8], category=77), one("b", 1, [0.7])])
    assert rows.tables["detections"]["category"].to_pylist() == ["77", "77", "red"]
    assert rows.counters == {"unnamed_category_ids": 2, "category:77": 2}


@pytest.mark.parametrize("name", [*tables.TABLES, "annotated"])
def test_written_tables_have_exactly_the_schema_also_without_rows(name):
    schema = {**tables.TABLES, "annotated": tables.ANNOTATED}[name]
    for rows in (Rows.of([]), Rows.of([one("a", 0, [0.5])])):
        assert tables.written(name, rows.tables[name]).schema.equals(schema, check_metadata=True)


def test_area_is_that_of_the_box_in_square_pixels():
    assert Rows.of([one("a", 0, [0.9])]).tables["detections"]["area"].to_pylist() == [12.0]


def test_detections_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"boxes must be float32 \[2, 4\], got float32 \[1, 4\]"):
        Detections(np.zeros((1, 4), np.float32), np.zeros(2, np.float32), np.zeros(2, np.int32))
    with pytest.raises(ValueError, match="category_ids must be int32"):
        Detections(np.zeros((1, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64))


def test_schema_carries_its_version():
    assert pa.schema(tables.IMAGES).metadata[b"beam_detect.schema_version"] == b"4"
