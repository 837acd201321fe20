"""Image ids from a COCO dataset."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from beam_jobs.errors import UsageError
from beam_jobs.formats.coco_ids import CocoImage, ImageIds, load_image_ids

IMAGES = [
    {"id": 5, "file_name": "a/one.jpg", "width": 3},
    {"id": 0, "file_name": "a/two.jpg"},
    {"id": 2**53 - 1, "file_name": "b/two.jpg"},
    {"id": 7, "file_name": "ü.jpg"},
    {"id": 7, "file_name": "ü.jpg", "license": 1},
]


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    path = tmp_path / "instances.json"
    rest: dict[str, Any] = {"info": {}, "annotations": [{"id": 1, "segmentation": [[1.0, 2.0]]}], "categories": None}
    path.write_text(json.dumps({**rest, "images": IMAGES}))
    return path


def check(ids: ImageIds) -> None:
    assert len(ids) == 4
    assert [ids.exact(name) for name in ("a/one.jpg", "a/two.jpg", "b/two.jpg", "ü.jpg")] == [5, 0, 2**53 - 1, 7]
    assert [ids.exact(name) for name in ("one.jpg", "", "A/one.jpg")] == [None, None, None]
    assert [ids.by_base(name) for name in ("one.jpg", "ü.jpg")] == [5, 7]
    assert [ids.by_base(name) for name in ("two.jpg", "a/one.jpg", "")] == [None, None, None]


def test_ids_by_name(truth: Path) -> None:
    check(load_image_ids(str(truth)))


def test_gzip_and_a_byte_order_mark(truth: Path) -> None:
    truth.write_bytes(gzip.compress(b"\xef\xbb\xbf" + truth.read_bytes()))
    check(load_image_ids(str(truth)))


def test_saved_and_loaded(truth: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "ids.arrow")
    load_image_ids(str(truth)).save(path)
    check(ImageIds.load(path))


def test_the_saved_file_is_the_same_for_any_order(tmp_path: Path) -> None:
    images = [CocoImage(i, f"{i % 7}/{i}.jpg") for i in range(1000)]
    ImageIds.of(images).save(str(tmp_path / "a"))
    ImageIds.of(images[::-1]).save(str(tmp_path / "b"))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert len((tmp_path / "a").read_bytes()) < 34_000


def test_no_images(tmp_path: Path) -> None:
    ImageIds.of([]).save(str(tmp_path / "ids"))
    loaded = ImageIds.load(str(tmp_path / "ids"))
    assert (len(loaded), loaded.exact("x"), loaded.by_base("x")) == (0, None, None)


@pytest.mark.parametrize("data", [b"", b"rubbish", b"ARROW1\0\0" + b"x" * 50])
def test_another_file_is_no_index(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "ids").write_bytes(data)
    with pytest.raises(OSError, match="not an index"):
        ImageIds.load(str(tmp_path / "ids"))


def images(*found: dict[str, Any]) -> bytes:
    return json.dumps({"images": found}).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ["truncated"]),
        (b'{"images": [\n{"id": 1,\n}', ["malformed", "line 3"]),
        (b"[]", ["expected `object`, got `array`"]),
        (b"{}", ["missing required field `images`"]),
        (images({"id": 1}), ["missing required field `file_name`", "images[0]"]),
        (images({"id": 1, "file_name": "a"}, {"file_name": "a"}), ["field `id`", "images[1]"]),
        (images({"id": "1", "file_name": "a"}), ["expected `int`, got `str`", "images[0].id"]),
        (images({"id": 1.5, "file_name": "a"}), ["expected `int`, got `float`"]),
        (images({"id": True, "file_name": "a"}), ["expected `int`, got `bool`"]),
        (images({"id": -1, "file_name": "a"}), ["`int` >= 0"]),
        (images({"id": 2**53, "file_name": "a"}), ["images[0].id"]),
        (images({"id": 2**70, "file_name": "a"}), ["images[0].id"]),
        (images({"id": 1, "file_name": ""}), ["images[0].file_name"]),
        (
            images({"id": 2, "file_name": "x"}, {"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}),
            ["images[1] (1, 'a') and images[2] (1, 'b') have the same id", "of its own"],
        ),
        (
            images({"id": 2, "file_name": "x"}, {"id": 1, "file_name": "x"}),
            ["images[0] (2, 'x') and images[1] (1, 'x') have the same file_name"],
        ),
        (b'{"images": [], "x": ' + b"[" * 100_000 + b"}", []),
        (b'{"images": [{"id": 1, "file_name": "\xff"}]}', []),
        (b'{"images": [{"id": 1, "file_name": "\\ud800"}]}', []),
        (b"\x89PNG\r\n\x1a\n", ["malformed"]),
        (gzip.compress(b"{}" * 1000, mtime=0)[:-20], ["gzip file that is cut off"]),
        (b"\x1f\x8b\x08rubbish rubbish", ["damaged gzip"]),
    ],
)
def test_refusals(tmp_path: Path, data: bytes, words: list[str]) -> None:
    path = tmp_path / "truth.json"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_image_ids(str(path))
    for word in [*words, "truth.json"]:
        assert word in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nope\.json.*No such file"):
        load_image_ids(str(tmp_path / "nope.json"))
