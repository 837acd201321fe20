"""Encoded pictures to upright 8-bit RGB, and back.

What is read: JPEG (also the first picture of an MPO), PNG, BMP, GIF, TIFF and WebP, told apart by their content, never
by a name; of several frames or pages, the first.

How the pixels become 8-bit RGB:

- Grey is replicated, a palette is looked up, one bit gives 0 and 255.
- Alpha (RGBA, LA, PA, a palette with transparency, a PNG's or a GIF's transparent colour) is composited over white.
  A BMP whose alpha is zero everywhere is taken as opaque: its writer meant no alpha.
- CMYK and YCCK are converted as Pillow does: an Adobe JPEG's inversion is undone. LAB and YCbCr TIFFs become RGB.
  ICC profiles and gamma are ignored.
- Of 16 bits the high byte is kept, of 12 the upper eight. A grey that is stored with white as zero is inverted.
  Signed or 32-bit integers and floats have no agreed range: such files are refused as `unsupported`.
- The EXIF orientation (JPEG, PNG, WebP, and the TIFF tag) is applied, so width and height are those of the upright
  picture. One that is absent, broken or out of 1..8 counts as 1; one that only XMP states is not looked at.

How a picture is refused (`InputError.code`): `empty`, `not_an_image`, `too_large` (by its header, before any pixel is
decoded), `unsupported` (a kind that is known but not read), `truncated` (its data end early; losing only what follows
the pixels is no loss), `corrupt` (whatever else stops the decoder).
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from beam_jobs.errors import InputError
from beam_jobs.imaging.jpeg import plain_pixels

#: Pictures of more pixels than this are refused unless the caller says otherwise.
MAX_PIXELS = 200_000_000

# The settings of Pillow that hold for the whole process, all of them here: no size limit (ours comes first, and
# Pillow's would warn or raise below it), and neither warnings nor log lines about bad files: the failures say it.
Image.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

_ORIENTATION = 274
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _PLANAR, _SAMPLE_FORMAT = 256, 257, 258, 259, 262, 284, 339
#: TIFF offsets and byte counts, of strips and of tiles.
_EXTENTS = ((273, 279), (324, 325))

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """A decoded picture.

    Args:
        pixels: uint8 [height, width, 3], RGB, upright, C-contiguous; may be read-only.
        format: `JPEG`, `PNG`, `BMP`, `GIF`, `TIFF` or `WEBP`.
        exif_orientation: 1..8, what the file said; it has been applied.
    """

    pixels: NDArray[np.uint8]
    format: str
    exif_orientation: int

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Decoded:
    """The picture that `data` encodes; the policy is in the module's docstring.

    Args:
        data: the whole file.
        max_pixels: the largest width * height that is decoded.

    Raises:
        InputError: stage `decode`; the codes are in the module's docstring.
    """
    name = _sniff(data)
    stream = _Stream(data)
    try:
        if size := _header_size(name, data):
            _check_size(name, size, max_pixels)
        image = _READERS[name](stream)
        stream.opening = False
        _check_size(name, image.size, max_pixels)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image, len(data))
        pixels = plain_pixels(data, image) if isinstance(image, JpegImagePlugin.JpegImageFile) else None
        if pixels is None:
            image.load()
            pixels = np.asarray(_to_rgb(image, data))
        orientation = _orientation(image)
        if orientation != 1:
            pixels = np.asarray(Image.fromarray(pixels).transpose(_TRANSPOSE[orientation]))
        return Decoded(pixels, name, orientation)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever the bytes lead them into: OSError, SyntaxError, …
        raise _refusal(name, data, stream, error) from error


def encode(pixels: NDArray[np.uint8], format: str) -> bytes:
    """`pixels` as a file; the same bytes for the same pixels.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        format: `JPEG` (quality 90, full colour resolution, so that thin lines stay clean), `PNG`, `BMP`, `GIF`
            (256 colours fitted to the picture), `TIFF` (deflate) or `WEBP` (lossy, quality 90).

    Raises:
        ValueError: another format, or a picture with more pixels a side than the format can hold.
    """
    if format not in _ENCODE_OPTIONS:
        raise ValueError(f"format must be one of {', '.join(_ENCODE_OPTIONS)}, got {format!r}")
    image = Image.fromarray(pixels)
    if format == "GIF":
        image = image.quantize(256)
    stream = io.BytesIO()
    try:
        image.save(stream, format, **_ENCODE_OPTIONS[format])
    except (OSError, ValueError, struct.error) as error:
        raise ValueError(f"cannot write {image.width}x{image.height} pixels as {format}") from error
    return stream.getvalue()


_ENCODE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 90, "subsampling": 0},
    "PNG": {"compress_level": 3},
    "BMP": {},
    "GIF": {},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "WEBP": {"quality": 90},
}


class _Stream(io.BytesIO):
    """The bytes of a file, and whether a reader ran into their end.

    While a header is read, every read asks for what must be there; later a reader asks for blocks, and only one that
    comes back empty tells that data are missing.
    """

    opening = True
    ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        chunk = super().read(size)
        if size is not None and len(chunk) < size and (self.opening or not chunk):
            self.ended = True
        return chunk


class _TiffFile(TiffImagePlugin.TiffImageFile):
    """The pixels as they are stored.

    Pillow turns a TIFF itself at the end of loading, and fails there when its EXIF is broken. Without that, the
    orientation is applied in one place for all formats.
    """

    def load_end(self) -> None:
        self._size = self._tile_size


# Pillow's readers are called directly: Image.open would hide why a header was refused.
_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "TIFF": _TiffFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
}

_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    *((prefix, "TIFF") for prefix in TiffImagePlugin.PREFIXES),
)

#: Pictures that people have and that are not read: where the mark is, the mark, the name.
_OTHER_PICTURES: tuple[tuple[int, bytes, str], ...] = (
    *((4, b"ftyp" + brand, "HEIF") for brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1")),
    *((4, b"ftyp" + brand, "AVIF") for brand in (b"avif", b"avis")),
    (4, b"jP  \r\n\x87\n", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (4, b"JXL \r\n\x87\n", "JPEG XL"),
    (0, b"8BPS", "Photoshop"),
)


def _sniff(data: bytes) -> str:
    """The format of `data` by its first bytes."""
    if not data:
        raise InputError("decode", "empty", "the file is empty")
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    # Text may well begin with BM: the size of the second header settles it, or, in a file cut before it, the zeros of
    # the reserved field.
    is_bmp = data[14:18] in _BMP_HEADER_SIZES or (10 <= len(data) < 18 and data[6:10] == bytes(4))
    if data.startswith(b"BM") and is_bmp:
        return "BMP"
    for offset, mark, name in _OTHER_PICTURES:
        if data.startswith(mark, offset):
            raise InputError("decode", "unsupported", f"{name} pictures are not read")
    known = "JPEG, PNG, BMP, GIF, TIFF or WebP"
    raise InputError("decode", "not_an_image", f"not a {known} picture: it starts with {data[:12]!r}")


_BMP_HEADER_SIZES = {struct.pack("<I", size) for size in (12, 16, 40, 52, 56, 64, 108, 124)}


def _header_size(name: str, data: bytes) -> tuple[int, int] | None:
    """Width and height, for the formats whose reader may allocate a whole picture before it tells them."""
    if name == "PNG" and len(data) >= 24:
        width, height = struct.unpack_from(">II", data, 16)
        return width, height
    if name == "WEBP" and len(data) >= 30:
        kind = data[12:16]
        if kind == b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        if kind == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if name == "GIF" and len(data) >= 13:
        return _gif_size(data)
    return None


def _gif_size(data: bytes) -> tuple[int, int]:
    """The size of a GIF's screen, grown to its first frame as Pillow does."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    position = 13 + ((2 << (flags & 7)) * 3 if flags & 0x80 else 0)
    while position + 10 <= len(data) and data[position] != 0x3B:
        if data[position] == 0x2C:
            left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, position + 1)
            return max(width, left + frame_width), max(height, top + frame_height)
        if data[position] == 0x21:  # an extension: a label, then blocks up to an empty one
            position += 2
            while position < len(data) and data[position]:
                position += data[position] + 1
        position += 1
    return width, height


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        message = f"the {name} has {width}x{height} pixels, the limit is {max_pixels} in all"
        raise InputError("decode", "too_large", message)


def _check_tiff(image: TiffImagePlugin.TiffImageFile, length: int) -> None:
    """Refuse what Pillow would decode without an agreed range, decode wrongly, or report wrongly."""
    tags = image.tag_v2
    stored_raw = image.info.get("compression") == "raw"
    wide = max(tags.get(_BITS, (1,))) > 8
    if image.mode in ("I", "F") or (stored_raw and wide and tags.get(_PLANAR) == 2):
        raise _unsupported_tiff(tags)
    if stored_raw and image.mode == "RGB" and tags.get(_PHOTOMETRIC) == 6:
        raise _unsupported_tiff(tags)
    # libtiff writes its complaint to standard error when data are missing, so ask before it does.
    if not stored_raw:
        for offsets, counts in _EXTENTS:
            if any(o + n > length for o, n in zip(tags.get(offsets, ()), tags.get(counts, ()), strict=False)):
                raise _truncated("TIFF", length)


def _unsupported_tiff(tags: TiffImagePlugin.ImageFileDirectory_v2) -> InputError:
    kinds = {1: "unsigned", 2: "signed", 3: "float"}
    kind = kinds.get(max(tags.get(_SAMPLE_FORMAT, (1,))), "unknown")
    layout = {"photometric": _PHOTOMETRIC, "compression": _COMPRESSION, "planar": _PLANAR}
    said = ", ".join(f"{name} {tags[tag]}" for name, tag in layout.items() if tag in tags)
    message = f"TIFFs of {max(tags.get(_BITS, (1,)))}-bit {kind} samples in this layout are not read ({said})"
    return InputError("decode", "unsupported", message)


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 where there is none that can be read."""
    try:
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            value = image.tag_v2.get(_ORIENTATION)
        else:
            encoded = image.info.get("exif", b"")
            # Most EXIF blocks have no such tag: look for its number, in both byte orders, before parsing.
            if b"\x01\x12" not in encoded and b"\x12\x01" not in encoded:
                return 1
            exif = Image.Exif()
            exif.load(encoded)
            value = exif.get(_ORIENTATION)
    except MemoryError:
        raise
    except Exception:  # broken EXIF never costs the picture, however it is broken
        return 1
    return value if isinstance(value, int) and value in _TRANSPOSE else 1


def _to_rgb(image: Image.Image, data: bytes) -> Image.Image:
    """A loaded picture of any mode in mode RGB."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.format == "PNG" and image.mode in ("L", "RGB") and "transparency" in image.info:
        _scale_transparent_colour(image, depth=data[24])
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    rgba = image.convert("RGBA")
    if image.format == "BMP" and rgba.getchannel("A").getextrema() == (0, 0):
        return rgba.convert("RGB")
    canvas = Image.new("RGB", rgba.size, (255, 255, 255))
    canvas.paste(rgba, mask=rgba)
    return canvas


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    grey = (values >> (4 if tags.get(_BITS) == (12,) else 8)).astype(np.uint8)
    if tags.get(_PHOTOMETRIC) == 0:  # white is zero: Pillow inverts 8 bits and fewer, but not 16
        grey = 255 - grey
    if "transparency" in image.info:
        grey[values == image.info["transparency"]] = 255
    return Image.fromarray(grey).convert("RGB")


def _scale_transparent_colour(image: Image.Image, depth: int) -> None:
    """Bring a PNG's transparent colour to 8 bits: Pillow scales the pixels and leaves the colour as it is written."""

    def scale(value: int) -> int:
        return value >> 8 if depth == 16 else value % (1 << depth) * 255 // ((1 << depth) - 1)

    colour = image.info["transparency"]
    image.info["transparency"] = tuple(map(scale, colour)) if isinstance(colour, tuple) else scale(colour)


def _refusal(name: str, data: bytes, stream: _Stream, error: Exception) -> InputError:
    """What an exception of Pillow's means. Its own words are not passed on: they may hold addresses."""
    if name == "WEBP":
        # libwebp takes the file in one piece; its header says how long it should be.
        cut = len(data) < 20 or int.from_bytes(data[4:8], "little") + 8 > len(data)
    else:
        words = str(error).lower()
        cut = stream.ended or "truncated" in words or "not enough image data" in words
    if cut:
        return _truncated(name, len(data))
    for prefix in ("cannot handle ", "Unsupported BMP "):  # sample widths, component counts, compressions
        if str(error).startswith(prefix):
            kind = str(error).removeprefix(prefix)
            return InputError("decode", "unsupported", f"this kind of {name} is not read: {kind}")
    if name == "TIFF" and stream.opening and (refusal := _unsupported_layout(data)):
        return refusal
    return InputError("decode", "corrupt", f"the {name} is damaged: its data cannot be decoded")


def _truncated(name: str, length: int) -> InputError:
    return InputError("decode", "truncated", f"the {name} ends early, after {length} bytes")


def _unsupported_layout(data: bytes) -> InputError | None:
    """The refusal of a TIFF that Pillow did not open although its tags are those of a picture."""
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2] == 43 else 8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        has_size = all(isinstance(tags.get(tag), int) and tags[tag] > 0 for tag in (_WIDTH, _LENGTH))
        has_pixels = any(offsets in tags for offsets, _ in _EXTENTS)
        return _unsupported_tiff(tags) if has_size and has_pixels else None
    except MemoryError:
        raise
    except Exception:  # tags that cannot be read are damaged: the caller's other answer
        return None
