"""Detections drawn on a picture: boxes in the colour of their class, each with a filled label."""

from __future__ import annotations

import math
import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # left, top, right, bottom in pixels, right and bottom excluded

#: The smallest text that is drawn, in pixels; below it letters are blots.
_MIN_TEXT = 8
#: Longer labels are cut before they are measured.
_MAX_LABEL = 200
_DARK = (0, 0, 0, 120)


def draw(
    pixels: NDArray[np.uint8], boxes: NDArray[np.float32], labels: Sequence[str], colours: Sequence[Colour]
) -> NDArray[np.uint8]:
    """A copy of the picture with N boxes and their labels, drawn so that the first is on top.

    Lines and text grow with the picture, more slowly than it does. Boxes are clipped to the picture; one that lies
    outside of it is left out. All labels lie over all boxes, wholly inside the picture: above their box where there is
    room, else inside or below it, and rather where they hide no stronger label.

    Args:
        pixels: uint8 [height, width, 3], RGB.
        boxes: float32 [N, 4], xmin, ymin, xmax, ymax in pixels, the strongest first.
        labels: N texts such as `person 0.87` or `person 0.87 #3`. Characters that the font lacks are replaced, long
            texts shortened; an empty one gives no label.
        colours: N RGB colours.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the three lengths differ.
    """
    if not len(boxes) == len(labels) == len(colours):
        raise ValueError(f"boxes, labels and colours must be as many, got {len(boxes)}, {len(labels)}, {len(colours)}")
    image = Image.fromarray(pixels)
    canvas = ImageDraw.Draw(image, "RGBA")  # of this mode, so that the dark rims are blended in
    style = _Style(image.size)
    shown = [
        (box, label, colour)
        for row, label, colour in zip(boxes, labels, colours, strict=True)
        if (box := _to_pixels(row, image.size))
    ]
    for box, _, colour in reversed(shown):
        style.draw_box(canvas, box, colour)
    taken: list[Rectangle] = []
    placed = []
    for box, label, colour in shown:
        if text := style.place(box, _printable(label), taken):
            taken.append(text.rectangle)
            placed.append((text, colour))
    for text, colour in reversed(placed):
        text.draw(canvas, colour, style.rim)
    return np.asarray(image)


def scale_of(width: int, height: int) -> float:
    """How much larger than in a picture of 640x480 lines and text are: they grow more slowly than the picture.

    With an exponent below 1, a picture of fifty megapixels that is looked at as a whole still has legible text, without
    letters of 200 pixels where it is looked at in full size.
    """
    return float((math.sqrt(width * height) / math.sqrt(640 * 480)) ** 0.8)


def line_width(width: int, height: int) -> int:
    """Pixels of the lines in a picture; 2 for 640x480."""
    return max(1, round(2.2 * scale_of(width, height)))


def class_colour(category_id: int) -> Colour:
    """The RGB colour of a class: the same always and everywhere, and far from those of the neighbouring ids.

    Hues are the golden ratio apart, lightness and chroma (OKLCH) take turns, so that ids of nearly equal hue differ in
    lightness. From https://bottosson.github.io/posts/oklab/.
    """
    hue = 2 * math.pi * (category_id * _GOLDEN % 1.0)
    lightness, chroma = _TONES[category_id % len(_TONES)]
    a, b = chroma * math.cos(hue), chroma * math.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        _gamma(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        _gamma(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        _gamma(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


_GOLDEN = (math.sqrt(5) - 1) / 2
# Six of them: ids of nearly equal hue are a Fibonacci number apart, and none of those below 144 is a multiple of six.
_TONES = ((0.72, 0.19), (0.58, 0.20), (0.85, 0.15), (0.65, 0.13), (0.55, 0.20), (0.78, 0.20))


def _gamma(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)


@dataclass(frozen=True, slots=True)
class _Label:
    """A text with its place."""

    text: str
    font: ImageFont.FreeTypeFont
    padding: int
    rectangle: Rectangle

    def draw(self, canvas: ImageDraw.ImageDraw, colour: Colour, rim: int) -> None:
        left, top, right, bottom = self.rectangle
        canvas.rectangle((left, top, right - 1, bottom - 1), fill=colour)
        if rim:  # tells two labels of one class apart where they touch
            canvas.rectangle((left, top, right - 1, bottom - 1), outline=_DARK, width=rim)
        ink = (0, 0, 0) if _luminance(colour) > 0.25 else (255, 255, 255)
        baseline = top + self.padding + _extent(self.font)[0]
        canvas.text((left + self.padding * 2, baseline), self.text, fill=ink, font=self.font, anchor="ls")


class _Style:
    """The sizes for one picture. 640x480 gets 14 pixels of text."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.width, self.height = size
        scale = scale_of(*size)
        self.text = max(_MIN_TEXT, round(14 * scale))
        self.line = line_width(*size)
        self.rim = max(1, round(0.5 * scale)) if self.line > 1 else 0

    def draw_box(self, canvas: ImageDraw.ImageDraw, box: Rectangle, colour: Colour) -> None:
        left, top, right, bottom = self._outline(box)
        if self.rim:
            for inset in (-self.rim, self.line):
                rim = (left + inset, top + inset, right - 1 - inset, bottom - 1 - inset)
                if rim[0] <= rim[2] and rim[1] <= rim[3]:
                    canvas.rectangle(rim, outline=_DARK, width=self.rim)
        canvas.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=self.line)

    def place(self, box: Rectangle, text: str, taken: Sequence[Rectangle]) -> _Label | None:
        """The label of a box; None where the text is empty or the picture has no room for a letter."""
        fitted = self._fit(text)
        if fitted is None:
            return None
        text, font, padding = fitted
        width = math.ceil(font.getlength(text)) + 4 * padding
        height = sum(_extent(font)) + 2 * padding
        left, top, right, bottom = self._outline(box)
        start = max(0, min(left, self.width - width))
        end = max(0, min(right - width, self.width - width))
        spots = [
            (x, y, x + width, y + height)
            for y in (top - height, top, bottom, bottom - height)
            for x in (start, end)
            if 0 <= y <= self.height - height
        ]
        if not spots:
            y = max(0, min(top, self.height - height))
            spots = [(start, y, start + width, y + height)]
        rectangle = next((spot for spot in spots if not any(_overlap(spot, other) for other in taken)), spots[0])
        return _Label(text, font, padding, rectangle)

    def _outline(self, box: Rectangle) -> Rectangle:
        """The box grown by half a line, inside the picture, so that a line at the edge is seen whole."""
        left, top, right, bottom = box
        grow = self.line // 2
        return max(0, left - grow), max(0, top - grow), min(self.width, right + grow), min(self.height, bottom + grow)

    def _fit(self, text: str) -> tuple[str, ImageFont.FreeTypeFont, int] | None:
        """The text, shortened if need be, in the largest font that fits the picture, with its padding."""
        size = self.text
        while text:
            font = _font(size)
            padding = max(1, size // 8)
            room = self.width - 4 * padding
            if sum(_extent(font)) + 2 * padding > self.height or room < 1:
                if size == 1:
                    return None
            elif font.getlength(text) <= room:
                return text, font, padding
            elif size <= _MIN_TEXT:
                shortened = _shorten(text, font, room)
                return (shortened, font, padding) if shortened else None
            size = max(size - max(1, size // 16), 1)
        return None


def _shorten(text: str, font: ImageFont.FreeTypeFont, room: int) -> str:
    """The longest form of `text` that is `room` pixels wide: the name is cut, the score at the end is kept."""

    def longest(text: str, tail: str) -> str:
        n = bisect_right(range(1, len(text)), room, key=lambda n: math.ceil(font.getlength(text[:n] + tail)))
        return text[:n] + tail if n else ""

    name, _, score = text.rpartition(" ")
    if name and len(score) <= 5:
        return longest(name, f"… {score}") or (score if font.getlength(score) <= room else longest(score, ""))
    return longest(text, "…") or longest(text, "")


def _to_pixels(box: NDArray[np.float32], size: tuple[int, int]) -> Rectangle | None:
    """The pixels that a box touches, at least one each way; None if none of them is in the picture."""
    width, height = size
    xmin, ymin, xmax, ymax = (float(value) for value in box)
    if not (xmin <= xmax and ymin <= ymax and xmin < width and ymin < height and xmax >= 0 and ymax >= 0):
        return None
    left, top = math.floor(max(xmin, 0)), math.floor(max(ymin, 0))
    right, bottom = math.ceil(min(xmax, width)), math.ceil(min(ymax, height))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _luminance(colour: Colour) -> float:
    """Relative luminance, 0..1, of an sRGB colour (WCAG 2)."""
    red, green, blue = (c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow is built without FreeType: no text can be drawn")
    # The basic layout engine is in every build; the other one needs a library of the machine's.
    return font.font_variant(layout_engine=ImageFont.Layout.BASIC)


@lru_cache(maxsize=64)
def _extent(font: ImageFont.FreeTypeFont) -> tuple[int, int]:
    """How far letters reach above and below the base line. The font's own metrics hold room for accents too."""
    _, top, _, bottom = font.getbbox("Aflgjp", anchor="ls")
    return math.ceil(-top), math.ceil(bottom)


def _printable(label: str) -> str:
    """The label in one line of characters that the font has."""
    return " ".join("".join(map(_glyphs, label[:_MAX_LABEL])).split())


@lru_cache(maxsize=4096)
def _glyphs(character: str) -> str:
    """The character, else its base letters (`ő` gives `o`), else `?`; a space for blanks and controls."""
    if " " < character <= "~":
        return character
    category = unicodedata.category(character)
    if category[0] in "ZC" and category != "Cs":
        return " "
    if category[0] == "M":
        return ""
    if category != "Cs" and _has_glyph(character):
        return character
    base = "".join(c for c in unicodedata.normalize("NFKD", character) if " " <= c <= "~")
    return base or "?"


def _has_glyph(character: str) -> bool:
    font = _font(32)
    return bytes(font.getmask(character)) != bytes(font.getmask("\U0010fffd"))
