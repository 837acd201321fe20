"""tf.Example without TensorFlow, and against it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs.errors import InputError
from beam_jobs.formats.tf_example import Features, ImageRecord, make_example, parse_image


def test_the_picture_and_its_names() -> None:
    record = make_example(
        {"image/encoded": b"\xff\xd8", "image/filename": "dir/ü.jpg", "image/source_id": "12", "image/height": 3}
    )
    assert parse_image(record) == ImageRecord(b"\xff\xd8", "dir/ü.jpg", "12")


def test_names_may_be_missing_empty_numbers_or_no_utf8() -> None:
    def names(**features: bytes | int | list[str]) -> tuple[str | None, str | None]:
        found = parse_image(make_example({"image/encoded": b"x", **{f"image/{k}": v for k, v in features.items()}}))
        return found.filename, found.source_id

    assert names() == (None, None)
    assert names(filename=b"", source_id=[]) == (None, None)
    assert names(filename=b"caf\xe9.jpg", source_id=139) == ("caf%E9.jpg", "139")


@pytest.mark.parametrize(
    ("record", "code", "words"),
    [
        (b"", "not_an_example", "without features"),
        (b"some text", "not_an_example", "not a tf.Example"),
        (b"\x0a\xff", "not_an_example", "not a tf.Example"),
        (make_example({"image/encoded": b"x"})[:-1], "not_an_example", "not a tf.Example"),
        (make_example({f"k{i}": i for i in range(9)}), "no_image", "it has k0, k1, k2, k3, k4, …"),
        (make_example({"image/encoded": 3}), "no_image", "it has image/encoded"),
        (make_example({"image/encoded": []}), "no_image", "no image/encoded"),
        (make_example({"image/encoded": b""}), "empty", "is empty"),
    ],
)
def test_refusals(record: bytes, code: str, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        parse_image(record)
    assert (caught.value.stage, caught.value.code) == ("read", code)


def test_features_by_kind() -> None:
    features = Features(make_example({"f": [0.5, 1], "i": [1, -(2**62)], "b": [b"x", b"\xff"], "n": 2.5}))
    assert features.keys() == ["b", "f", "i", "n"]
    np.testing.assert_array_equal(features.floats("f"), np.array([0.5, 1], np.float32))
    np.testing.assert_array_equal(features.ints("i"), np.array([1, -(2**62)]))
    assert features.bytes("b") == [b"x", b"\xff"]
    assert features.floats("n").tolist() == [2.5]
    assert features.floats("i").size == features.ints("missing").size == len(features.bytes("f")) == 0
    assert features.floats("missing").dtype == np.float32
    assert features.keys() == ["b", "f", "i", "n"], "asking for a key does not make it"


def test_mixed_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="bbox"):
        make_example({"bbox": [1, "x"]})  # type: ignore[dict-item]


def test_the_same_features_are_the_same_bytes() -> None:
    features: dict[str, bytes | int] = {f"key{i}": i for i in range(50)}
    assert make_example(features) == make_example(dict(reversed(features.items())))


@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda tail: make_example({"image/encoded": b"x"}) + tail))
def test_any_bytes_are_a_picture_or_an_input_error(record: bytes) -> None:
    refused = None
    try:
        assert parse_image(record).encoded
    except InputError as error:
        refused = error.code
    assert refused in {None, "not_an_example", "no_image", "empty"}


@pytest.mark.slow
def test_tensorflow_agrees(tmp_path: Path) -> None:
    ours = tmp_path / "ours"
    theirs = tmp_path / "theirs"
    ours.write_bytes(make_example({"image/encoded": b"x", "image/filename": "ü", "f": [0.5, 2.0], "i": [-1, 2**40]}))
    code = f"""if True:
        import tensorflow as tf
        example = tf.train.Example.FromString(open({str(ours)!r}, "rb").read())
        feature = example.features.feature
        assert feature["image/filename"].bytes_list.value[0].decode() == "ü"
        assert list(feature["f"].float_list.value) == [0.5, 2.0]
        assert list(feature["i"].int64_list.value) == [-1, 2**40]
        # Both in one process, in either order: the descriptors do not meet.
        from beam_jobs.formats.tf_example import parse_image
        data = example.SerializeToString(deterministic=True)
        assert parse_image(data).filename == "ü"
        open({str(theirs)!r}, "wb").write(data)
    """
    subprocess.run([sys.executable, "-c", code], check=True)
    assert theirs.read_bytes() == ours.read_bytes()
    assert Features(theirs.read_bytes()).ints("i").tolist() == [-1, 2**40]
