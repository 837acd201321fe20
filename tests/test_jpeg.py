"""The quicker way to a JPEG's pixels: it gives what Pillow alone gives, picture or refusal."""

from __future__ import annotations

import io
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter, JpegImagePlugin

from beam_jobs.errors import InputError
from beam_jobs.imaging import decode as decoding
from beam_jobs.imaging.jpeg import plain_pixels


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1)).convert(mode)


def encoded(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def outcome(data: bytes) -> tuple[object, ...]:
    try:
        got = decoding.decode(data)
    except InputError as error:
        return error.code, error.message
    return got.pixels.shape, got.pixels.tobytes(), got.pixels.flags.c_contiguous, got.format, got.exif_orientation


def with_pillow_alone(data: bytes) -> tuple[object, ...]:
    with mock.patch.object(decoding, "plain_pixels", return_value=None):
        return outcome(data)


def is_quick(data: bytes) -> bool:
    return plain_pixels(data, JpegImagePlugin.JpegImageFile(io.BytesIO(data))) is not None


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 16), (33, 17), (100, 67), (259, 130)])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95},
        {"quality": 30, "progressive": True},
        {"optimize": True, "restart_marker_blocks": 2},
        {"progressive": True, "restart_marker_rows": 1},
        {"keep_rgb": True},
        {"comment": b"\xff\xd8\xff\xd9", "dpi": (72, 72)},
    ],
    ids=str,
)
def test_the_same_pixels(size: tuple[int, int], subsampling: str, options: dict[str, Any]) -> None:
    options = options if "keep_rgb" in options else {**options, "subsampling": subsampling}
    data = encoded(photograph(*size), **options)
    assert is_quick(data)
    assert outcome(data) == with_pillow_alone(data)


@pytest.mark.parametrize("orientation", range(10))
def test_the_same_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(photograph(37, 21), exif=exif)
    assert is_quick(data)
    assert outcome(data) == with_pillow_alone(data)
    assert decoding.decode(data).exif_orientation == (orientation if 1 <= orientation <= 8 else 1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_colours_are_left_to_pillow(mode: str) -> None:
    data = encoded(photograph(37, 21, mode))
    assert not is_quick(data)
    assert outcome(data) == with_pillow_alone(data)


def test_an_mpo_and_what_follows_the_picture() -> None:
    stream = io.BytesIO()
    photograph(40, 30).save(stream, "MPO", save_all=True, append_images=[photograph(20, 10)])
    plain = encoded(photograph(40, 30))
    for data in (stream.getvalue(), plain + b"garbage", plain + plain, plain[:-2], plain[:-2] + bytes(500)):
        assert outcome(data) == with_pillow_alone(data)


BASES = [
    encoded(photograph(45, 34), quality=90, subsampling="4:2:0"),
    encoded(photograph(45, 34), progressive=True, subsampling="4:2:2"),
    encoded(photograph(45, 34), restart_marker_blocks=1, subsampling="4:4:4"),
]


@given(base=st.sampled_from(BASES), share=st.floats(0, 1), tail=st.binary(max_size=4))
@settings(max_examples=400, deadline=None)
def test_the_same_of_what_is_cut(base: bytes, share: float, tail: bytes) -> None:
    data = base[: round(len(base) * share)] + tail
    assert outcome(data) == with_pillow_alone(data)


@given(base=st.sampled_from(BASES), share=st.floats(0, 1), bytes_=st.binary(min_size=1, max_size=4))
@settings(max_examples=400, deadline=None)
def test_the_same_of_what_is_damaged(base: bytes, share: float, bytes_: bytes) -> None:
    at = round(len(base) * share)
    data = base[:at] + bytes_ + base[at + len(bytes_) :]
    assert outcome(data) == with_pillow_alone(data)
