"""Ground truths from COCO JSON and from TFRecords."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from beam_jobs.errors import UsageError
from beam_jobs.formats.evaluated import TRUTH_IMAGES, TRUTH_OBJECTS, GroundTruth
from beam_jobs.formats.ground_truth import load_ground_truth
from beam_jobs.formats.tf_example import Value, make_example
from beam_jobs.formats.tfrecord import frame, write_records
from beam_jobs.records import image_id_of

Json = dict[str, Any]


def dataset() -> Json:
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 9, "file_name": "b.jpg", "width": 64, "height": 32},
            {"id": 3, "file_name": "a/a.jpg"},
        ],
        "annotations": [
            {
                **{"id": 7, "image_id": 9, "category_id": 2, "bbox": [1, 2, 30.1, 4.5], "area": 70.25, "iscrowd": 1},
                **{"segmentation": {"size": [32, 64], "counts": [5, 3, 2040]}, "extra": None},
            },
            {"id": 1, "image_id": 3, "category_id": 90, "bbox": [0.1, 0, 0, 3], "segmentation": [[1, 2, 3.5, 4, 5, 6]]},
            {
                "id": 2,
                "image_id": 9,
                "category_id": 2,
                "bbox": [1, 1, 2, 2],
                "keypoints": [1, 2, 2, 0, 0, 0, 3.5, 4, 1],
            },
        ],
        "categories": [{"id": 90, "name": "brush", "supercategory": "x"}, {"id": 2, "name": "<b>"}],
    }


def save(path: Path, data: Any) -> str:
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "instances.json"


def refused(source: str | Path, **options: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load_ground_truth(str(source), **options)
    text = str(caught.value)
    assert text.startswith("the ground truth ")
    assert len(text) < 600
    return text


def test_json(path: Path) -> None:
    truth = load_ground_truth(save(path, dataset()))
    assert truth.images.schema == TRUTH_IMAGES
    assert truth.objects.schema == TRUTH_OBJECTS
    assert truth.images.to_pylist() == [
        {"image_id": 3, "file_name": "a/a.jpg", "width": 0, "height": 0},
        {"image_id": 9, "file_name": "b.jpg", "width": 64, "height": 32},
    ]
    rows = truth.objects.to_pylist()
    assert [list(row.values())[:9] for row in rows] == [
        [9, 7, 2, 1, 2, 30.1, 4.5, 70.25, True],
        [3, 1, 90, 0.1, 0, 0, 3, 0, False],
        [9, 2, 2, 1, 1, 2, 2, 4, False],
    ]
    assert [row["segmentation"] and json.loads(row["segmentation"]) for row in rows] == [
        {"size": [32, 64], "counts": [5, 3, 2040]},
        [[1, 2, 3.5, 4, 5, 6]],
        None,
    ]
    assert [row["keypoints"] for row in rows] == [None, None, [1, 2, 2, 0, 0, 0, 3.5, 4, 1]]
    assert [row["num_keypoints"] for row in rows] == [0, 0, 2]
    assert truth.categories == {2: "<b>", 90: "brush"}
    assert truth.warnings == (
        "2 of 3 objects have no area: width × height of the box stands in for it, also for segm, where COCO's is the"
        " area of the mask",
    )


def test_gzip_a_byte_order_mark_and_no_masks(path: Path) -> None:
    plain = load_ground_truth(save(path, dataset()))
    path.write_bytes(gzip.compress(b"\xef\xbb\xbf" + path.read_bytes()))
    assert load_ground_truth(str(path)).objects.equals(plain.objects)
    boxes = load_ground_truth(str(path), masks=False).objects
    assert boxes["segmentation"].null_count == 3
    assert boxes.drop_columns("segmentation").equals(plain.objects.drop_columns("segmentation"))


def test_an_empty_truth_and_the_id_0_are_said(path: Path) -> None:
    truth = load_ground_truth(save(path, {**dataset(), "annotations": []}))
    assert (truth.images.num_rows, truth.objects.num_rows) == (2, 0)
    assert truth.warnings == ("the ground truth has no objects: every detection is a false positive, and AP is -1",)
    data = dataset()
    data["annotations"][0]["id"] = 0
    assert "has the id 0: pycocotools counts" in load_ground_truth(save(path, data)).warnings[-1]


def without(key: str) -> Callable[[Json], None]:
    return lambda entry: entry.pop(key)


def having(**values: Any) -> Callable[[Json], None]:
    return lambda entry: entry.update(values)


@pytest.mark.parametrize(
    ("table", "index", "change", "message"),
    [
        ("annotations", 1, without("bbox"), r"annotations\[1\] \(id 1\): object missing required field `bbox`"),
        ("annotations", 2, without("id"), r"annotations\[2\]: object missing required field `id`"),
        ("annotations", 0, having(bbox=[1, 2, 3]), r"annotations\[0\] \(id 7\): bbox: expected `array` of length 4"),
        ("annotations", 0, having(bbox=[1, 2, 3, "4"]), r"\(id 7\): bbox\[3\]: expected `float`, got `str`"),
        (
            "annotations",
            0,
            having(bbox=[1, 2, 3, -4]),
            r"annotations\[0\] \(id 7\): bbox \[1.0, .* negative width or h",
        ),
        (
            "annotations",
            2,
            having(bbox=[1, 2, -3, 4]),
            r"annotations\[2\] \(id 2\): bbox .* correct it or leave it out",
        ),
        ("annotations", 1, having(image_id=4), r"annotations\[1\] \(id 1\) is of image 4, .* list the image or leave"),
        ("annotations", 1, having(category_id=4), r"annotations\[1\] \(id 1\) is of category 4, which the file does"),
        ("annotations", 1, having(id=7), r"annotations\[0\] and annotations\[1\] have the same id 7; each annotation"),
        ("annotations", 1, having(id=-1), r"annotations\[1\] \(id -1\): id: expected `int` >= 0"),
        ("annotations", 1, having(id="1"), r'annotations\[1\] \(id "1"\): id: expected `int`, got `str`'),
        ("annotations", 1, having(image_id=1.5), r"annotations\[1\] \(id 1\): image_id: expected `int`, got `float`"),
        ("annotations", 1, having(image_id=2**53), r"image_id: expected `int` <= 9007199254740991"),
        ("annotations", 1, having(category_id=2**31), r"category_id: expected `int` <= 2147483647"),
        ("annotations", 1, having(keypoints=[1, 2]), r"annotations\[1\] \(id 1\): keypoints holds 2 values; it must"),
        ("annotations", 1, having(segmentation="x"), r"annotations\[1\] \(id 1\): segmentation is neither"),
        ("images", 1, without("file_name"), r"images\[1\] \(id 3\): object missing required field `file_name`"),
        ("images", 1, having(file_name=""), r"images\[1\] \(id 3\): file_name: expected `str` of length >= 1"),
        ("images", 1, having(id=9), r"images\[0\] and images\[1\] have the same id 9; list each image once"),
        ("images", 1, having(id=2**60), r"images\[1\] \(id 1152921504606846976\): id: expected `int` <="),
        ("images", 1, having(width=-1), r"images\[1\] \(id 3\): width is -1; write pixels"),
        ("images", 0, having(id=5), r"annotations\[0\] \(id 7\) is of image 9"),
        ("categories", 1, having(id=90), r"categories\[0\] and categories\[1\] have the same id 90"),
        ("categories", 1, without("name"), r"categories\[1\] \(id 2\): object missing required field `name`"),
    ],
)
def test_a_wrong_entry_is_named(path: Path, table: str, index: int, change: Any, message: str) -> None:
    data = dataset()
    change(data[table][index])
    with pytest.raises(UsageError, match=message):
        load_ground_truth(save(path, data))
    assert repr(str(path)) in refused(path)


def test_an_image_that_is_listed_twice_alike(path: Path) -> None:
    data = dataset()
    data["images"].append(data["images"][0])
    assert "images[0] and images[2] have the same id 9" in refused(save(path, data))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [],\n"x": NaN}', "line 2 (byte 20) has NaN, which is not a JSON number; leave out"),
        ('{"images": [],\n"x": -Infinity}', "has -Infinity, which is not"),
        ('{"images": [],\n\n"x": }', "it is not JSON: invalid character, line 3"),
        ('{"images": [', "it ends early; copy or write it again"),
        ("", "it is empty"),
        ("rubbish", "it is neither JSON nor a TFRecord file"),
        ("[]", "it is an empty list, and no COCO dataset"),
        ('[{"image_id": 1, "score": 0.5}]', "it looks like COCO results, and no COCO dataset"),
        ('[{"b": 1, "a": 2}]', "it is a list of a, b, and no COCO dataset"),
        ("3", "neither an object nor a list"),
        ("{}", "it is an empty object"),
        ('{"images": [], "licenses": []}', "it is an object of images, licenses, and no COCO dataset (Object missing"),
        ('{"images": {}, "annotations": [], "categories": []}', "expected `array`, got `object` - at `$.images`"),
        ('{"x": ' + "[" * 100_000, "nested too deeply"),
    ],
)
def test_what_is_no_coco_dataset(path: Path, text: str, message: str) -> None:
    assert message in refused(save(path, text))


def test_what_cannot_be_read(tmp_path: Path, path: Path) -> None:
    assert "cannot be found" in refused(tmp_path / "none.json")
    path.write_bytes(gzip.compress(b"{}" * 1000)[:-9])
    assert "gzip file that is cut off" in refused(path)
    save(tmp_path / "other.json", dataset())
    assert "one of 2 files" in refused(tmp_path / "*.json")


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64) | st.integers(-(2**60), 2**60)
sizes = st.floats(0, 1e300) | st.integers(0, 2**60)
ids = st.integers(0, 2**53 - 1)


@st.composite
def datasets(draw: st.DrawFn) -> Json:
    image_ids = draw(st.lists(ids, min_size=1, max_size=4, unique=True))
    category_ids = draw(st.lists(st.integers(0, 2**31 - 1), min_size=1, max_size=4, unique=True))
    annotations = []
    for annotation_id in draw(st.lists(ids, max_size=6, unique=True)):
        annotation = {
            "id": annotation_id,
            "image_id": draw(st.sampled_from(image_ids)),
            "category_id": draw(st.sampled_from(category_ids)),
            "bbox": [draw(numbers), draw(numbers), draw(sizes), draw(sizes)],
        }
        optional = {
            "area": sizes,
            "iscrowd": st.sampled_from([0, 1, True, False]),
            "segmentation": st.lists(st.lists(numbers, max_size=6), max_size=2),
            "keypoints": st.lists(st.tuples(numbers, numbers, st.integers(0, 2)), max_size=3).map(
                lambda points: [value for point in points for value in point]
            ),
        }
        for key, values in optional.items():
            if draw(st.booleans()):
                annotation[key] = draw(values)
        annotations.append(annotation)
    names = st.text('aü\U0001f600"\\\n/<', min_size=1, max_size=5)
    return {
        "images": [{"id": image_id, "file_name": draw(names)} for image_id in image_ids],
        "annotations": annotations,
        "categories": [{"id": category_id, "name": draw(names)} for category_id in category_ids],
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(datasets(), st.booleans())
def test_the_numbers_are_those_of_json(tmp_path: Path, data: Json, ascii_only: bool) -> None:
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(data, ensure_ascii=ascii_only, indent=1 if ascii_only else None))
    expected = json.loads(path.read_text())
    truth = load_ground_truth(str(path))
    found = dict(zip(truth.images["image_id"].to_pylist(), truth.images["file_name"].to_pylist(), strict=True))
    assert found == {image["id"]: image["file_name"] for image in expected["images"]}
    assert dict(truth.categories) == {category["id"]: category["name"] for category in expected["categories"]}
    rows = truth.objects.to_pylist()
    assert len(rows) == len(expected["annotations"])
    for row, one in zip(rows, expected["annotations"], strict=True):
        box = [float(value) for value in one["bbox"]]
        assert [row[name] for name in ("x", "y", "width", "height")] == box
        assert (row["image_id"], row["truth_id"], row["category_id"]) == (
            one["image_id"],
            one["id"],
            one["category_id"],
        )
        assert row["area"] == (float(one["area"]) if "area" in one else box[2] * box[3])
        assert row["iscrowd"] == bool(one.get("iscrowd", 0))
        points = one.get("keypoints")
        assert row["keypoints"] == (None if points is None else [float(value) for value in points])
        assert row["num_keypoints"] == sum(v > 0 for v in one.get("keypoints", [])[2::3])
        assert (row["segmentation"] and json.loads(row["segmentation"])) == one.get("segmentation")


def random_dataset(seed: int) -> Json:
    rng = np.random.default_rng(seed)
    images: list[Json] = [
        {"id": int(i) * 7 + 1, "file_name": f"{i:03d}.jpg", "width": 64, "height": 48} for i in rng.permutation(12)
    ]
    annotations = []
    for i in range(40):
        image = images[int(rng.integers(len(images)))]
        x, y, w, h = (int(value) for value in rng.integers(0, 24, 4))
        annotations.append(
            {
                **{"id": 1 + i, "image_id": image["id"], "category_id": int(rng.integers(1, 4)) * 2},
                **{"bbox": [x, y, w, h], "area": w * h / 2, "iscrowd": int(rng.random() < 0.2)},
            }
        )
    annotations.sort(key=lambda one: [image["id"] for image in images].index(one["image_id"]))
    for i, one in enumerate(annotations):
        one["id"] = i + 1
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in (2, 4, 6)],
    }


def test_pycocotools_reads_the_same(path: Path) -> None:
    source = save(path, random_dataset(5))
    truth, oracle = load_ground_truth(source), COCO(source)
    assert truth.images["image_id"].to_pylist() == sorted(oracle.getImgIds())
    assert {i: category["name"] for i, category in oracle.cats.items()} == dict(truth.categories)
    for row in truth.objects.to_pylist():
        one = oracle.anns[row["truth_id"]]
        assert [row["x"], row["y"], row["width"], row["height"]] == one["bbox"]
        assert (row["image_id"], row["category_id"]) == (one["image_id"], one["category_id"])
        assert (row["area"], row["iscrowd"]) == (one["area"], one["iscrowd"])
    assert len(oracle.anns) == truth.objects.num_rows


def examples(data: Json, label: bool = True, source_id: bool = True) -> list[bytes]:
    """The data as the API's converter writes it."""
    records = []
    names = {category["id"]: category["name"] for category in data["categories"]}
    for image in data["images"]:
        found = [one for one in data["annotations"] if one["image_id"] == image["id"]]
        x0, y0, w, h = np.array([one["bbox"] for one in found], float).reshape(-1, 4).T
        features: dict[str, Value] = {
            "image/filename": image["file_name"],
            "image/width": image["width"],
            "image/height": image["height"],
            "image/encoded": b"not looked at",
            "image/object/bbox/xmin": (x0 / image["width"]).tolist(),
            "image/object/bbox/xmax": ((x0 + w) / image["width"]).tolist(),
            "image/object/bbox/ymin": (y0 / image["height"]).tolist(),
            "image/object/bbox/ymax": ((y0 + h) / image["height"]).tolist(),
            "image/object/area": [float(one["area"]) for one in found],
            "image/object/is_crowd": [one["iscrowd"] for one in found],
            "image/object/class/text": [names[one["category_id"]] for one in found],
        }
        if label:
            features["image/object/class/label"] = [one["category_id"] for one in found]
        if source_id:
            features["image/source_id"] = str(image["id"])
        records.append(make_example({key: value for key, value in features.items() if value != []}))
    return records


@pytest.mark.parametrize("label", [True, False])
@pytest.mark.parametrize("compress", [True, False])
def test_tfrecords_give_the_same_truth_as_json(tmp_path: Path, path: Path, label: bool, compress: bool) -> None:
    data = random_dataset(6)
    records = examples(data, label)
    (tmp_path / "t").mkdir()
    write_records(str(tmp_path / "t" / "x-0"), records[:5], compress=compress)
    write_records(str(tmp_path / "t" / "x-1"), [])
    write_records(str(tmp_path / "t" / "x-2"), records[5:], compress=compress)
    names = {category["id"]: category["name"] for category in data["categories"]}
    found = load_ground_truth(str(tmp_path / "t" / "x-*"), categories=None if label else names)
    expected = load_ground_truth(save(path, data))
    assert found.images.equals(expected.images)
    assert found.categories == expected.categories
    same = ["image_id", "truth_id", "category_id", "area", "iscrowd"]
    assert found.objects.select(same).equals(expected.objects.select(same))
    for side in ("x", "y", "width", "height"):
        np.testing.assert_allclose(found.objects[side].to_numpy(), expected.objects[side].to_numpy(), atol=1e-5)


def example(**changes: Value | None) -> bytes:
    features: dict[str, Value | None] = {
        "image/width": 8,
        "image/height": 4,
        "image/object/bbox/xmin": [0.0, 0.25],
        "image/object/bbox/ymin": [0.0, 0.25],
        "image/object/bbox/xmax": [0.5, 0.75],
        "image/object/bbox/ymax": [0.5, 1.0],
        "image/object/class/label": [3, 1],
        **{key.replace("__", "/"): value for key, value in changes.items()},
    }
    return make_example({key: value for key, value in features.items() if value is not None})


def read(tmp_path: Path, *records: bytes, **options: Any) -> GroundTruth:
    write_records(str(tmp_path / "truth.tfrecord"), records)
    return load_ground_truth(str(tmp_path / "truth.tfrecord"), **options)


def test_names_and_ids_of_records(tmp_path: Path) -> None:
    truth = read(
        tmp_path,
        example(image__source_id="17", image__filename="a.jpg"),
        example(image__source_id="18"),
        example(image__source_id="18", image__filename="c.jpg"),
        example(image__source_id="x", image__filename="d.jpg"),
        example(image__source_id=str(2**53)),
        example(),
        example(image__filename="d.jpg"),
        example(image__source_id="19", image__object__bbox__xmin=None, **dict.fromkeys(
            ["image__object__bbox__ymin", "image__object__bbox__xmax", "image__object__bbox__ymax"]
        ), image__object__class__label=None, image__width=None),
    )  # fmt: skip
    names = dict(zip(truth.images["image_id"].to_pylist(), truth.images["file_name"].to_pylist(), strict=True))
    assert names == {
        17: "a.jpg",
        image_id_of("18"): "18",
        image_id_of("c.jpg"): "c.jpg",
        image_id_of("d.jpg"): "d.jpg",
        image_id_of(str(2**53)): str(2**53),
        image_id_of("truth.tfrecord#5"): "truth.tfrecord#5",
        image_id_of("d.jpg", 0, 1): "d.jpg",
        19: "19",
    }
    assert list(names) == sorted(names)
    assert truth.objects["truth_id"].to_pylist() == list(range(1, 15))
    assert truth.categories == {1: "1", 3: "3"}
    assert truth.warnings[0].startswith("14 of 14 objects have no image/object/area")
    assert truth.warnings[1].startswith("1 record has the name of another one")


def test_objects_of_records(tmp_path: Path) -> None:
    png = io.BytesIO()
    mask = np.zeros((4, 8), np.uint8)
    mask[0, 0] = mask[1:3, 2:5] = 255
    Image.fromarray(mask).save(png, "PNG")
    record = example(
        image__object__group_of=[1, 0],
        image__object__is_crowd=[0, 0],
        image__object__class__text=["three", "one"],
        image__object__keypoint__x=[0.5, 0.0, 0.25, 1.0],
        image__object__keypoint__y=[0.5, 0.0, 0.25, 1.0],
        image__object__keypoint__visibility=[2, 0, 1, 2],
        image__object__mask=[png.getvalue()] * 2,
    )
    truth = read(tmp_path, record, categories={3: "drei", 7: "sieben"})
    assert truth.categories == {1: "one", 3: "drei", 7: "sieben"}
    first, second = truth.objects.to_pylist()
    assert [first[side] for side in ("x", "y", "width", "height", "area")] == [0, 0, 4, 2, 8]
    assert [second[side] for side in ("x", "y", "width", "height", "area")] == [2, 1, 4, 3, 12]
    assert (first["iscrowd"], second["iscrowd"]) == (True, False)
    assert (first["keypoints"], second["keypoints"]) == ([4, 2, 2, 0, 0, 0], [2, 1, 1, 8, 4, 2])
    assert (first["num_keypoints"], second["num_keypoints"]) == (1, 2)
    rle = coco_mask.frPyObjects(json.loads(first["segmentation"]), 4, 8)
    assert (coco_mask.decode(rle) == (mask > 0)).all()
    assert read(tmp_path, record, masks=False).objects["segmentation"].null_count == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image__width": None}, "record 0: image/width and image/height are missing or no size (0 × 4); write them"),
        ({"image__object__bbox__xmin": [0.0]}, "image/object/bbox has 1 xmin, 2 ymin, 2 xmax, 2 ymax"),
        ({"image__object__bbox__xmin": [0.0, 0.8]}, "image/object/bbox[1] (8 × 4 pixels): bbox [6.4"),
        ({"image__object__bbox__ymax": [0.5, float("nan")]}, "has a value that is not finite"),
        ({"image__object__class__label": [1]}, "2 objects have 1 image/object/class/label"),
        ({"image__object__class__label": [1, -2]}, "image/object/class/label has -2"),
        ({"image__object__class__label": None}, "2 objects have 0 image/object/class/text and no image/object/class/l"),
        ({"image__object__class__label": None, "image__object__class__text": ["a", "z"]}, "class 'z' has no id: there"),
        ({"image__object__class__label": None, "image__object__class__text": ["a", "d"]}, "gives it the ids [3, 4]"),
        ({"image__object__area": [1.0]}, "2 objects have 1 image/object/area"),
        ({"image__object__area": [1.0, float("inf")]}, "image/object/area has a value that is not finite"),
        ({"image__object__is_crowd": [1, 0, 0]}, "2 objects have 3 image/object/is_crowd"),
        ({"image__object__keypoint__x": [1.0]}, "2 objects have 1 image/object/keypoint/x"),
        ({"image__object__mask": [b"x"]}, "2 objects have 1 image/object/mask as PNG"),
        ({"image__object__mask": [1.0, 2.0]}, "2 objects have 0 image/object/mask as PNG"),
        ({"image__object__mask": [b"x", b"y"]}, "image/object/mask[0] is not a whole PNG"),
    ],
)
def test_a_wrong_record_is_named(tmp_path: Path, changes: dict[str, Value | None], message: str) -> None:
    write_records(str(tmp_path / "x"), [example(**changes)])
    text = refused(tmp_path / "x", categories={1: "a", 3: "d", 4: "d"})
    assert message in text
    assert repr(str(tmp_path / "x")) in text


def test_names_without_a_label_map(tmp_path: Path) -> None:
    record = example(image__object__class__label=None, image__object__class__text=["a", "b"])
    write_records(str(tmp_path / "x"), [record])
    assert "class 'a' has no id: there is no image/object/class/label, and no label map was given; give the label" in (
        refused(tmp_path / "x")
    )


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    png = io.BytesIO()
    Image.new("L", (3, 3)).save(png, "PNG")
    write_records(str(tmp_path / "x"), [example(image__object__mask=[png.getvalue()] * 2)])
    assert "mask[0] is not a mask of 8 × 4 pixels (mode L, 3 × 3)" in refused(tmp_path / "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (frame(example()) + frame(example())[:-20], "record 1: the file ends inside a record"),
        (frame(example()) + frame(example())[:-1] + b"x", "record 1: the data of a record have a wrong checksum"),
        (frame(b""), "record 0: the record is a tf.Example without features"),
    ],
)
def test_a_damaged_shard_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x").write_bytes(data)
    assert message in refused(tmp_path / "x")


def test_files_of_two_kinds(tmp_path: Path) -> None:
    write_records(str(tmp_path / "a"), [example()])
    save(tmp_path / "b", dataset())
    assert "and no TFRecord file" in refused(tmp_path)
