"""Label maps."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from beam_jobs.errors import UsageError
from beam_jobs.formats import label_map
from beam_jobs.formats.label_map import COCO_CATEGORIES, load_label_map


def loaded(tmp_path: Path, content: str | bytes, name: str = "map.pbtxt") -> dict[int, str]:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_label_map(str(tmp_path / name))


TEXT = """
# A comment with item { and "quotes
item {
  name: "/m/0k4j"
  id: 3
  display_name: "car"
}
item: < id: 1, name: 'person # 1' >
item { name: "background" id: 0 }
item { id: 7 name: "caf\\303\\251" keypoints { id: 1 label: "nose" } frequency: FREQUENT instance_count: 3 }
item { id: 9 }
item { id: 8 name: "ü" }
"""
NAMES = {1: "person # 1", 3: "car", 7: "café", 8: "ü"}


def test_text(tmp_path: Path) -> None:
    found = loaded(tmp_path, TEXT)
    assert found == NAMES
    assert list(found) == sorted(found)


def test_binary(tmp_path: Path) -> None:
    message = label_map._LabelMap()
    message.item.add(id=3, name="/m/0k4j", display_name="car")
    message.item.add(id=1, name="person")
    assert loaded(tmp_path, message.SerializeToString()) == {1: "person", 3: "car"}


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    categories = [{"id": 3, "name": "car", "supercategory": "vehicle"}, {"id": 1, "name": "person"}]
    assert loaded(tmp_path, json.dumps({"images": [], "categories": categories})) == {1: "person", 3: "car"}
    assert loaded(tmp_path, "\n" + json.dumps(categories)) == {1: "person", 3: "car"}
    assert loaded(tmp_path, TEXT, "map.json") == NAMES
    assert loaded(tmp_path, gzip.compress(b"\xef\xbb\xbf" + TEXT.encode())) == NAMES


def test_an_id_may_be_repeated_with_its_name(tmp_path: Path) -> None:
    assert loaded(tmp_path, 'item { id: 1 name: "a" }\nitem { id: 1 name: "a" }\n') == {1: "a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["names no class"]),
        ('item { id: 0 name: "background" }', ["names no class"]),
        ('\nitem { id: 1 name: "a" }\n\nitem { name: "b" }', ["item 2 (line 4) has no id"]),
        (
            'item { id: 2 name: "a" }\nitem { id: 2 name: "b" }',
            ["item 2 (line 2) calls class 2 'b', which is 'a' already"],
        ),
        ('[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]', ["[1] calls class 1 'b', which is 'a' already"]),
        ('item { id: -1 name: "a" }', ["item 1 (line 1) has the negative id -1"]),
        ('item {\n id: 1\n name: "a\n}', ["line 3"]),
        ('item {\n id: "one"\n}', ["line 2"]),
        ('item { id: 99999999999 name: "a" }', ["line 1"]),
        ("person\ncar\n", ["line"]),
        ('model { ssd { num_classes: 90 } }\ntrain_config { x: "y" }', ["names no class"]),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", ["neither text nor a binary"]),
        ("item { " * 5000, []),
        ("{}", ["missing required field `categories`"]),
        ('{"categories": [{"id": 1}]}', ["field `name`", "categories[0]"]),
        ('{"categories": [\n{"id": 1,}]}', ["line 2"]),
        ('[{"id": "1", "name": "a"}]', ["expected `int`"]),
        ('[{"id": -4, "name": "a"}]', ["[0] has the negative id -4"]),
        ("[" * 100_000, []),
        ("[]", ["names no class"]),
    ],
)
def test_refusals(tmp_path: Path, content: str | bytes, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        loaded(tmp_path, content)
    for word in [*words, "map.pbtxt", "it must hold items like"]:
        assert word in str(caught.value)
    assert len(str(caught.value)) < 600 + len(str(tmp_path))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unpacks to"):
        loaded(tmp_path, gzip.compress(bytes(100 << 20)))


@pytest.mark.parametrize("name", [".", "nope.pbtxt"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_label_map(str(tmp_path / name))


@given(
    st.binary(max_size=100)
    | st.text(max_size=100).map(str.encode)
    | st.integers(0, 400).map(lambda n: TEXT[:n].encode())
)
@example(b"item { id: 1 name: '\\377' }")
def test_any_bytes_are_a_label_map_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.pbtxt"
    path.write_bytes(content)
    try:
        found = load_label_map(str(path))
    except UsageError:
        return
    assert found
    assert all(i > 0 and name.encode() for i, name in found.items())


def test_coco_has_80_classes_with_gaps() -> None:
    assert len(COCO_CATEGORIES) == 80
    assert (min(COCO_CATEGORIES), max(COCO_CATEGORIES)) == (1, 90)
    assert set(range(1, 91)) - set(COCO_CATEGORIES) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}
    assert (COCO_CATEGORIES[1], COCO_CATEGORIES[17], COCO_CATEGORIES[90]) == ("person", "cat", "toothbrush")
