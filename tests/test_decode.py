"""What decode makes of real encoded files, good and bad."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import Decoded, decode, encode

# pytest puts its own filters before the module's.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL")

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP")
RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)


def save(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def scene(width: int = 24, height: int = 16) -> Image.Image:
    """A picture whose quarters are red, green, blue and white: no flip or turn of it equals another."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2] = RED
    pixels[: height // 2, width // 2 :] = GREEN
    pixels[height // 2 :, : width // 2] = BLUE
    pixels[height // 2 :, width // 2 :] = WHITE
    return Image.fromarray(pixels)


def noise(width: int = 40, height: int = 30) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8))


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[271] = "a maker"
    tags[274] = orientation
    return tags


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of `rows` (each with its filter byte), with `chunks` between header and data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


def tiff(width: int, height: int, samples: bytes, **tags: int | tuple[int, ...]) -> bytes:
    """A little-endian TIFF in one strip, uncompressed unless the tags, given as `t258=16`, say otherwise."""
    fields: dict[int, int | tuple[int, ...]] = {
        256: width,
        257: height,
        258: 8,
        259: 1,
        262: 1,
        273: 8,
        277: 1,
        278: height,
        279: len(samples),
    }
    fields |= {int(name[1:]): value for name, value in tags.items()}
    where = 8 + len(samples)
    after = where + 2 + 12 * len(fields) + 4
    entries, tail = b"", b""
    for tag, value in sorted(fields.items()):
        values = value if isinstance(value, tuple) else (value,)
        packed = struct.pack(f"<{len(values)}I", *values)
        if len(packed) > 4:
            tail, packed = tail + packed, struct.pack("<I", after + len(tail))
        entries += struct.pack("<HHI", tag, 4, len(values)) + packed
    ifd = struct.pack("<H", len(fields)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", where) + samples + ifd + tail


def tiff_with_its_data_last() -> bytes:
    pixels = np.asarray(noise())
    data = zlib.compress(pixels.tobytes())
    directory = tiff(40, 30, b"", t258=8, t262=2, t277=3, t259=8, t273=0, t279=len(data))
    return directory.replace(struct.pack("<HHII", 273, 4, 1, 0), struct.pack("<HHII", 273, 4, 1, len(directory))) + data


def refused(data: bytes, **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        decode(data, **options)
    assert caught.value.stage == "decode"
    assert " at 0x" not in caught.value.message
    return caught.value


def attempt(data: bytes, **options: Any) -> Decoded | InputError:
    try:
        return decode(data, **options)
    except InputError as error:
        return error


def close(pixel: NDArray[np.uint8], colour: tuple[int, int, int], by: int = 6) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= by).all())


# What is read


@pytest.mark.parametrize("format", FORMATS)
def test_a_picture_of_each_format(format: str) -> None:
    image = noise()
    data = save(image, format, **({"lossless": True} if format == "WEBP" else {}))
    got = decode(data)
    assert (got.format, got.exif_orientation, got.width, got.height) == (format, 1, 40, 30)
    assert got.pixels.dtype == np.uint8
    assert got.pixels.shape == (30, 40, 3)
    assert got.pixels.flags.c_contiguous
    np.testing.assert_array_equal(got.pixels, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_the_first_frame_is_taken(format: str) -> None:
    first, second = scene(), Image.new("RGB", (24, 16), (9, 9, 9))
    data = save(first, format, save_all=True, append_images=[second])
    got = decode(data)
    assert (got.width, got.height) == (24, 16)
    assert close(got.pixels[2, 2], RED, 12)
    assert close(got.pixels[-2, 2], BLUE, 12)


def test_an_mpo_is_a_jpeg() -> None:
    data = save(scene(), "MPO", quality=95, subsampling=0, save_all=True, append_images=[Image.new("RGB", (24, 16))])
    got = decode(data)
    assert got.format == "JPEG"
    assert close(got.pixels[2, 2], RED, 12)


# How pixels become RGB


def test_grey_and_one_bit_are_replicated() -> None:
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    for format in ("PNG", "TIFF", "BMP", "GIF"):
        got = decode(save(grey, format)).pixels
        np.testing.assert_array_equal(got, np.repeat(np.asarray(grey)[..., None], 3, axis=2))
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    for format in ("PNG", "TIFF", "BMP"):
        got = decode(save(bits, format)).pixels
        np.testing.assert_array_equal(got[..., 1], np.eye(8, dtype=np.uint8) * 255)


def test_a_palette_is_looked_up() -> None:
    image = scene().quantize(4)
    for format in ("PNG", "GIF", "BMP", "TIFF"):
        np.testing.assert_array_equal(decode(save(image, format)).pixels, np.asarray(scene()))


def test_alpha_is_composited_over_white() -> None:
    image = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        image.putpixel((x, 0), (200, 0, 40, alpha))
    lossless: dict[str, dict[str, Any]] = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True, "exact": True}}
    for format, options in lossless.items():
        got = decode(save(image, format, **options)).pixels[0]
        assert got[0].tolist() == [255, 255, 255]
        assert close(got[1], (227, 127, 147), 1)
        assert got[2].tolist() == [200, 0, 40]


def test_alpha_of_grey_and_palette() -> None:
    grey = Image.new("LA", (2, 1), (100, 255))
    grey.putpixel((0, 0), (100, 0))
    for format in ("PNG", "TIFF"):
        assert decode(save(grey, format)).pixels[0].tolist() == [[255] * 3, [100] * 3]
    palette = scene().quantize(4)
    red = palette.getpixel((0, 0))
    for transparency in (red, bytes(0 if i == red else 255 for i in range(4))):
        got = decode(save(palette, "PNG", transparency=transparency)).pixels
        assert got[0, 0].tolist() == [255, 255, 255]
        assert got[0, -1].tolist() == list(GREEN)
    assert decode(save(palette, "GIF", transparency=red)).pixels[0, 0].tolist() == [255, 255, 255]
    with_alpha = save(palette.convert("PA"), "TIFF")
    np.testing.assert_array_equal(decode(with_alpha).pixels, np.asarray(scene()))


@pytest.mark.parametrize(
    ("depth", "colour", "transparent", "row", "expected"),
    [
        (8, 2, struct.pack(">HHH", 255, 0, 0), bytes([255, 0, 0, 250, 0, 0]), [WHITE, (250, 0, 0)]),
        (16, 2, struct.pack(">HHH", 0x1234, 0, 0), struct.pack(">6H", 0x1234, 0, 0, 0x2234, 0, 0), [WHITE, (34, 0, 0)]),
        (8, 0, struct.pack(">H", 7), bytes([7, 8]), [WHITE, (8, 8, 8)]),
        (16, 0, struct.pack(">H", 0x1234), struct.pack(">HH", 0x1234, 0x1235), [WHITE, (18, 18, 18)]),
        (4, 0, struct.pack(">H", 5), bytes([0x56]), [WHITE, (102, 102, 102)]),
        (2, 0, struct.pack(">H", 1), bytes([0b01100000]), [WHITE, (170, 170, 170)]),
        (1, 0, struct.pack(">H", 0), bytes([0b01000000]), [WHITE, WHITE]),
        (1, 0, struct.pack(">H", 1), bytes([0b01000000]), [BLACK, WHITE]),
    ],
)
def test_the_transparent_colour_of_a_png(
    depth: int, colour: int, transparent: bytes, row: bytes, expected: list[tuple[int, int, int]]
) -> None:
    data = png(2, 1, depth, colour, b"\0" + row, (b"tRNS", transparent))
    assert [tuple(pixel) for pixel in decode(data).pixels[0].tolist()] == expected


def test_a_bmp_whose_alpha_is_zero_everywhere_is_opaque() -> None:
    header = struct.pack("<IiiHHIIiiII4I", 56, 2, 1, 1, 32, 3, 8, 0, 0, 0, 0, 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    for alphas, expected in (((0, 0), [[30, 20, 10], [60, 50, 40]]), ((0, 255), [[255] * 3, [60, 50, 40]])):
        body = bytes([10, 20, 30, alphas[0], 40, 50, 60, alphas[1]])
        file = struct.pack("<2sIII", b"BM", 14 + len(header) + 8, 0, 14 + len(header)) + header + body
        assert decode(file).pixels[0].tolist() == expected


def test_cmyk_is_converted_with_adobes_inversion_undone() -> None:
    cmyk = Image.merge("CMYK", [Image.new("L", (16, 16), v) for v in (0, 255, 255, 0)])  # red ink
    assert close(decode(save(cmyk, "JPEG", quality=95)).pixels[8, 8], RED)
    assert close(decode(save(cmyk, "TIFF")).pixels[8, 8], RED)


def test_lab_and_ycbcr_tiffs_become_rgb() -> None:
    orange = Image.new("RGB", (8, 8), (220, 120, 40))
    lab = decode(save(orange.convert("YCbCr"), "TIFF", compression="tiff_lzw")).pixels
    assert close(lab[4, 4], (220, 120, 40))
    middle_grey = tiff(1, 1, bytes([137, 0, 0]), t258=(8, 8, 8), t262=8, t277=3)  # L* 53.7, a* = b* = 0
    assert close(decode(middle_grey).pixels[0, 0], (128, 128, 128), 3)


def test_the_high_byte_of_16_bits_is_kept() -> None:
    values = np.array([[0, 255, 256, 0x1280, 0xFFFF]], np.uint16)
    expected = [[0, 0, 1, 0x12, 0xFF]]
    image = Image.fromarray(values)
    files = [save(image, "PNG"), save(image, "TIFF"), save(image, "TIFF", compression="tiff_lzw")]
    files.append(save(Image.frombytes("I;16B", (5, 1), values.astype(">u2").tobytes()), "TIFF"))
    files.append(png(5, 1, 16, 2, b"\0" + np.repeat(values, 3).astype(">u2").tobytes()))
    files.append(png(5, 1, 16, 4, b"\0" + np.stack([values, values * 0 + 0xFFFF], -1).astype(">u2").tobytes()))
    for data in files:
        got = decode(data).pixels
        assert got[..., 0].tolist() == expected
        assert (got == got[..., :1]).all()
    inverted = tiff(5, 1, values.astype("<u2").tobytes(), t258=16, t262=0)
    assert decode(inverted).pixels[..., 0].tolist() == [[255, 255, 254, 255 - 0x12, 0]]


def test_the_upper_eight_of_12_bits_are_kept() -> None:
    two = bytes([0xAB, 0xCD, 0xEF])  # 0xABC and 0xDEF
    assert decode(tiff(2, 1, two, t258=12)).pixels[0, :, 0].tolist() == [0xAB, 0xDE]


# Orientation

#: Where red, green, blue and white of the stored picture are seen: upper left, upper right, lower left, lower right.
SEEN = {
    1: (RED, GREEN, BLUE, WHITE),
    2: (GREEN, RED, WHITE, BLUE),
    3: (WHITE, BLUE, GREEN, RED),
    4: (BLUE, WHITE, RED, GREEN),
    5: (RED, BLUE, GREEN, WHITE),
    6: (BLUE, RED, WHITE, GREEN),
    7: (WHITE, GREEN, BLUE, RED),
    8: (GREEN, WHITE, RED, BLUE),
}


def corners(got: Decoded) -> tuple[NDArray[np.uint8], ...]:
    return got.pixels[3, 3], got.pixels[3, -4], got.pixels[-4, 3], got.pixels[-4, -4]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("format", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ],
)
def test_the_orientation_is_applied_once(format: str, options: dict[str, Any], orientation: int) -> None:
    got = decode(save(scene(), format, exif=exif(orientation), **options))
    assert got.exif_orientation == orientation
    assert (got.width, got.height) == ((16, 24) if orientation >= 5 else (24, 16))
    assert got.pixels.flags.c_contiguous
    for pixel, colour in zip(corners(got), SEEN[orientation], strict=True):
        assert close(pixel, colour, 12)


def test_orientation_of_a_16_bit_tiff() -> None:
    values = np.array([[0x1000, 0x2000, 0x3000]], "<u2")
    got = decode(tiff(3, 1, values.tobytes(), t258=16, t274=6))
    assert got.pixels[:, 0, 0].tolist() == [0x10, 0x20, 0x30]


@pytest.mark.parametrize("order", "<>")
def test_exif_of_either_byte_order(order: str) -> None:
    head = b"II*\0" if order == "<" else b"MM\0*"
    block = b"Exif\0\0" + head + struct.pack(f"{order}IHHHIHHI", 8, 1, 274, 3, 1, 8, 0, 0)
    for format in ("JPEG", "PNG", "WEBP"):
        got = decode(save(scene(), format, exif=block))
        assert (got.exif_orientation, got.width) == (8, 16)


@pytest.mark.parametrize(
    ("type_", "count", "value"),
    [(3, 1, b"\0\0\0\0"), (3, 1, b"\x09\0\0\0"), (2, 2, b"6\0\0\0"), (3, 1, b"\xff\xff\0\0")],
)
def test_an_invalid_orientation_counts_as_upright(type_: int, count: int, value: bytes) -> None:
    block = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI", 274, type_, count) + value + bytes(4)
    for format in ("JPEG", "PNG", "WEBP"):
        got = decode(save(scene(), format, exif=block))
        assert (got.exif_orientation, got.width) == (1, 24)
    for orientation in (0, 9, 65535):
        got = decode(tiff(3, 1, bytes(3), t274=orientation))
        assert (got.exif_orientation, got.width) == (1, 3)


def test_an_orientation_that_only_xmp_states_is_not_applied() -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for data in (save(scene(), "JPEG", xmp=xmp), save(scene(), "TIFF", tiffinfo={700: xmp})):
        got = decode(data)
        assert (got.exif_orientation, got.width) == (1, 24)


@given(at=st.integers(0, 80), value=st.binary(min_size=1, max_size=8))
@settings(max_examples=150, deadline=None)
def test_broken_exif_never_costs_the_picture(at: int, value: bytes) -> None:
    block = bytearray(exif(6).tobytes())
    at = 6 + at % (len(block) - 6)
    block[at : at + len(value)] = value
    for format in ("JPEG", "PNG", "WEBP"):
        got = decode(save(scene(), format, exif=bytes(block)))
        assert {got.width, got.height} == {24, 16}


@pytest.mark.parametrize("offset", [0, 1, 7, 10_000, 2**32 - 1])
def test_a_broken_exif_directory_of_a_tiff_costs_nothing(offset: int) -> None:
    got = decode(tiff(3, 1, bytes([1, 2, 3]), t274=6, t34665=offset))
    assert got.pixels[:, 0, 0].tolist() == [1, 2, 3]


# What is refused


def test_empty() -> None:
    assert refused(b"").code == "empty"


@pytest.mark.parametrize(
    "data",
    [b"x", b"BM", b"BMW is a maker of cars, and more text", b"GIF", b"%PDF-1.7\n", bytes(100), b"<svg/>", b"RIFF"],
)
def test_not_an_image(data: bytes) -> None:
    error = refused(data)
    assert error.code == "not_an_image"
    assert repr(data[:12]) in error.message


def huge_files() -> dict[str, bytes]:
    """Files that claim 30000x30000 pixels or more."""
    size = struct.pack("<HH", 60000, 60000)
    control = struct.pack(">IIIIIHHBB", 0, 30000, 30000, 0, 0, 1, 1, 1, 0)  # an APNG's frame, cleared after use
    sof = b"\xff\xc0\0\x11\x08\x75\x30\x75\x30\x03\x01\x11\0\x02\x11\0\x03\x11\0"
    sos = b"\xff\xda\0\x0c\x03\x01\0\x02\0\x03\0\0\x3f\0"
    return {
        "PNG": png(30000, 30000, 8, 2, bytes(100)),
        "APNG": png(30000, 30000, 8, 2, bytes(100), (b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", control)),
        "GIF": b"GIF89a" + size + bytes(3) + b"," + bytes(4) + size + b"\0\x08\0;",
        "GIF frame": b"GIF89a"
        + bytes([1, 0, 1, 0, 0, 0, 0])
        + b"!\xf9\x04\x08\0\0\0\0,"
        + bytes(4)
        + size
        + b"\0\x08\0;",
        "BMP": struct.pack("<2sIIIIiiHHII", b"BM", 0, 0, 54, 40, 30000, 30000, 1, 24, 0, 0) + bytes(100),
        "TIFF": tiff(30000, 30000, bytes(100)),
        "JPEG": b"\xff\xd8" + sof + sos + bytes(100),
        "WEBP": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x2f\x75\0\x2f\x75\0",
        "WEBP lossless": b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f" + struct.pack("<I", 16383 << 14 | 16383) + bytes(5),
        "WEBP lossy": b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\x10\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383),
    }


@pytest.mark.parametrize("name", sorted(huge_files()))
def test_too_large_is_seen_in_the_header(name: str) -> None:
    data = huge_files()[name]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    error = refused(data)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert error.code == "too_large"
    side = {"GIF": 60000, "WEBP lossless": 16384, "WEBP lossy": 16383}.get(name.removesuffix(" frame"), 30000)
    assert f"{side}x{side}" in error.message
    assert "200000000" in error.message
    assert grown < 50_000  # KiB


def test_the_limit_counts_pixels_and_may_be_set() -> None:
    for format in FORMATS:
        data = save(scene(24, 16), format)
        assert decode(data, max_pixels=24 * 16).width == 24
        error = refused(data, max_pixels=24 * 16 - 1)
        assert error.code == "too_large"
        assert "24x16" in error.message


def seeds() -> dict[str, bytes]:
    image, grey16 = noise(), Image.fromarray(np.arange(1200, dtype=np.uint16).reshape(30, 40) * 50)
    frames: dict[str, Any] = {"save_all": True, "append_images": [image.rotate(90)]}
    return {
        "JPEG": save(image, "JPEG", exif=exif(6)),
        "JPEG progressive": save(image, "JPEG", progressive=True),
        "JPEG CMYK": save(image.convert("CMYK"), "JPEG"),
        "PNG": save(image, "PNG"),
        "PNG palette": save(image.quantize(16), "PNG", transparency=3),
        "PNG 16": save(grey16, "PNG"),
        "PNG animated": save(image, "PNG", **frames),
        "BMP": save(image, "BMP"),
        "BMP palette": save(image.quantize(256), "BMP"),
        "BMP RLE": rle_bmp(),
        "GIF": save(image, "GIF"),
        "GIF animated": save(image, "GIF", **frames, transparency=2),
        "TIFF": save(image, "TIFF", exif=exif(6)),
        "TIFF LZW": save(image, "TIFF", compression="tiff_lzw"),
        "TIFF deflate": tiff_with_its_data_last(),
        "WEBP": save(image, "WEBP"),
        "WEBP lossless": save(image, "WEBP", lossless=True, exif=exif(6)),
        "WEBP animated": save(image, "WEBP", **frames),
    }


def rle_bmp() -> bytes:
    rows = b"".join(bytes([4, y, 0, 4, 1, 2, 3, 4, 0, 0]) for y in range(8)) + b"\0\1"
    header = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 0, 0, 1078, 40, 8, 8, 1, 8, 1, len(rows), 0, 0, 256, 0)
    return header + bytes(v for i in range(256) for v in (i, 255 - i, 9, 0)) + rows


SEEDS = seeds()


@pytest.mark.parametrize("name", sorted(SEEDS))
def test_a_cut_file_is_truncated_wherever_it_is_cut(name: str) -> None:
    data = SEEDS[name]
    whole = decode(data).pixels
    cuts = {*range(12, 32), *range(32, len(data), max(1, len(data) // 150)), *range(len(data) - 40, len(data))}
    for cut in sorted(cuts):
        got = attempt(data[:cut])
        if isinstance(got, InputError):
            assert (got.code, f"{cut} bytes" in got.message) == ("truncated", True), cut
        else:  # only what follows the pixels is missing
            np.testing.assert_array_equal(got.pixels, whole)
    assert refused(data[: len(data) // 3]).code == "truncated"


@pytest.mark.parametrize("name", ["JPEG", "JPEG progressive", "PNG", "BMP", "GIF", "TIFF", "TIFF LZW", "WEBP"])
def test_half_a_file_is_truncated(name: str) -> None:
    assert refused(SEEDS[name][: len(SEEDS[name]) // 2]).code == "truncated"


def test_damage_is_corrupt() -> None:
    data = bytearray(SEEDS["PNG"])
    middle = data.index(b"IDAT") + 40
    data[middle : middle + 200] = bytes(200)
    assert refused(bytes(data)).code == "corrupt"
    data = bytearray(SEEDS["GIF"])
    data[850:900] = b"\xff" * 50
    assert refused(bytes(data)).code == "corrupt"
    data = bytearray(SEEDS["WEBP lossless"])
    data[25:200] = bytes(175)
    assert refused(bytes(data)).code == "corrupt"


def test_a_png_whose_text_explodes_is_corrupt() -> None:
    bomb = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3_000_000)))
    assert refused(png(1, 1, 8, 0, b"\0\0", bomb)).code == "corrupt"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (tiff(2, 1, bytes(8), t258=32), "32-bit unsigned"),
        (tiff(2, 1, bytes(8), t258=32, t339=2), "32-bit signed"),
        (tiff(2, 1, bytes(8), t258=32, t339=3), "32-bit float"),
        (tiff(2, 1, bytes(16), t258=64, t339=3), "64-bit float"),
        (tiff(2, 1, bytes(4), t258=16, t339=2), "16-bit signed"),
        (tiff(2, 1, bytes(6), t258=(8, 8, 8), t262=6, t277=3), "photometric 6"),
        (
            tiff(2, 1, bytes(12), t258=(16, 16, 16), t262=2, t277=3, t284=2, t273=(8, 12, 16), t279=(4, 4, 4)),
            "planar 2",
        ),
        (tiff(2, 1, bytes(2), t259=12345), "compression 12345"),
        (b"\xff\xd8\xff\xc1\0\x0b\x0c\0\1\0\1\1\1\x11\0", "12-bit"),
        (struct.pack("<2sIIIIiiHHII", b"BM", 0, 0, 54, 40, 1, 1, 1, 2, 0, 0) + bytes(99), "pixel depth"),
        (b"\0\0\0\x18ftypheic" + bytes(40), "HEIF"),
        (b"\0\0\0\x18ftypavif" + bytes(40), "AVIF"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(40), "JPEG 2000"),
    ],
)
def test_unsupported_says_what_it_is(data: bytes, words: str) -> None:
    error = refused(data)
    assert error.code == "unsupported"
    assert words in error.message


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_nothing_but_an_input_error_is_raised(data: st.DataObject) -> None:
    seed = bytearray(data.draw(st.sampled_from(sorted(SEEDS.items())))[1])
    places = st.one_of(st.integers(0, 120), st.integers(0, len(seed) - 1))
    changes = st.lists(st.tuples(places, st.binary(max_size=6), st.integers(0, 6)), max_size=6)
    for at, replacement, removed in data.draw(changes):
        seed[at : at + removed] = replacement
    changed = bytes(seed[: data.draw(st.one_of(st.none(), places))])
    got = attempt(changed, max_pixels=1_000_000)
    if isinstance(got, InputError):
        assert refused(changed, max_pixels=1_000_000).message == got.message
        assert pickle.loads(pickle.dumps(got)).code == got.code
    else:
        assert got.pixels.shape == (got.height, got.width, 3)
        assert got.exif_orientation in range(1, 9)


def test_nothing_is_said_on_standard_error() -> None:
    # In a process of its own: pytest's handling of warnings is not the user's.
    script = """
import sys
from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import decode
for file in eval(sys.stdin.read()):
    try:
        print(decode(file).width)
    except InputError as error:
        print(error.code)
"""
    beyond_pillows_limit = png(10_000, 9_000, 1, 0, bytes(9_000 * 1251))
    broken_exif = bytearray(exif(6).tobytes())
    broken_exif[14] = 200  # more tags than there are
    files = [
        beyond_pillows_limit,
        save(scene(), "JPEG", exif=bytes(broken_exif)),
        tiff(2, 1, bytes(4), t258=(8, 8), t277=1_000_000),
        *(data[: len(data) // 2] for data in SEEDS.values()),
    ]
    command = [sys.executable, "-W", "always", "-c", script]
    done = subprocess.run(command, input=repr(files), capture_output=True, text=True, check=True)
    assert done.stdout.split()[:3] == ["10000", "16", "unsupported"]
    assert done.stderr == ""


@pytest.mark.slow  # and takes 1.5 GB
def test_pillows_own_limit_does_not_apply() -> None:
    data = save(Image.new("1", (15_000, 12_000)), "TIFF", compression="group4")
    assert decode(data).width == 15_000


# Writing


@pytest.mark.parametrize("format", FORMATS)
def test_encode_writes_what_decode_reads(format: str) -> None:
    pixels = np.asarray(scene(64, 48))
    data = encode(pixels, format)
    got = decode(data)
    assert (got.format, got.width, got.height) == (format, 64, 48)
    for pixel, colour in zip(corners(got), SEEN[1], strict=True):
        assert close(pixel, colour, 12)
    assert encode(pixels.copy(), format) == data
    if format in ("PNG", "BMP", "TIFF", "GIF"):
        np.testing.assert_array_equal(got.pixels, pixels)


def test_encode_refuses_what_it_cannot_write() -> None:
    with pytest.raises(ValueError, match="JPEG, PNG, BMP, GIF, TIFF, WEBP"):
        encode(np.zeros((1, 1, 3), np.uint8), "AVIF")
    with pytest.raises(ValueError, match="17000x1"):
        encode(np.zeros((1, 17_000, 3), np.uint8), "WEBP")
    with pytest.raises(ValueError, match="70000x1"):
        encode(np.zeros((1, 70_000, 3), np.uint8), "JPEG")
