"""Small pictures for a page: decoded, cut to what there is to see, boxes drawn, within a number of bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from beam_jobs.errors import InputError
from beam_jobs.imaging.decode import decode
from beam_jobs.imaging.draw import Colour, class_colour, draw
from beam_jobs.report.content import GalleryItem, GalleryKind, Picture
from beam_jobs.report.shapes import Frame, Shape, draw_shapes

#: Bytes of all pictures of a page together, as they are in it: base64 makes four of three.
BUDGET = 6_000_000
MAX_SIDE = 480
_QUALITY = 82
#: What is cut out around the focus is this many times as long and wide, but not less than so many pixels.
_CONTEXT = 4.0
_LEAST_CUT = 160
#: Pictures that cannot be read are listed, but not all of them.
_MOST_MISSING = 6

#: Told apart also by those who see no red or no green; labels say which is which besides.
TRUTH_COLOUR: Colour = (64, 160, 255)
DETECTION_COLOUR: Colour = (255, 140, 26)
RIGHT_COLOUR: Colour = (64, 200, 160)
_ROLES = {"truth": TRUTH_COLOUR, "detection": DETECTION_COLOUR, "right": RIGHT_COLOUR}


@dataclass(frozen=True, slots=True)
class Marked:
    """A box to draw: xmin, ymin, xmax, ymax in pixels of the upright picture.

    Args:
        role: `truth`, `detection` and `right` have a colour each; a box of role `class` has that of its category_id.
        focus: the picture is there for it: it is drawn on top, the others fainter.
        shape: its mask or keypoints.
    """

    box: tuple[float, float, float, float]
    label: str
    role: Literal["truth", "detection", "right", "class"]
    category_id: int = 0
    focus: bool = False
    shape: Shape | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A picture that a page may show.

    Args:
        source: what `read` is asked for.
        categories: names to filter by.
        beside: what is drawn on the picture once more, which is then shown beside the first.
    """

    kind: GalleryKind
    source: str
    file_name: str
    categories: tuple[str, ...]
    caption: str
    boxes: tuple[Marked, ...]
    beside: tuple[Marked, ...] | None = None


class Gallery:
    """Makes the items of a gallery until the budget is used.

    Args:
        read: the encoded picture of a `source`; may raise `InputError` or `OSError`.
        budget: bytes of the pictures in the page.
        max_side: the longer side of a picture in pixels, at most.
    """

    def __init__(self, read: Callable[[str], bytes], *, budget: int = BUDGET, max_side: int = MAX_SIDE) -> None:
        self._read = read
        self._budget = budget
        self._max_side = max_side

    def items(self, candidates: Sequence[Candidate]) -> tuple[GalleryItem, ...]:
        """Items by kind, in the order of the candidates.

        Kinds take turns at the budget, so that none uses it up. One whose picture cannot be read says why.
        """
        made: list[tuple[int, GalleryItem]] = []
        left, missing = self._budget, 0
        for place, candidate in _in_turns(candidates):
            pictures, reason = self._pictures(candidate)
            if not pictures:
                missing += 1
                if missing > _MOST_MISSING:
                    continue
            left -= sum(-(-len(picture.jpeg) // 3) * 4 for picture in pictures)
            if left < 0:
                break
            named = (candidate.kind, candidate.file_name, candidate.categories, candidate.caption)
            picture, beside = (*pictures, None, None)[:2]
            made.append((place, GalleryItem(*named, picture, reason, beside)))
        kinds = list(dict.fromkeys(candidate.kind for candidate in candidates))
        return tuple(item for _, item in sorted(made, key=lambda entry: (kinds.index(entry[1].kind), entry[0])))

    def _pictures(self, candidate: Candidate) -> tuple[list[Picture], str]:
        try:
            pixels = decode(self._read(candidate.source)).pixels
        except InputError as error:
            return [], f"The picture cannot be shown: {error.message}"
        except OSError as error:
            return [], f"The picture cannot be read: {error.strerror or type(error).__name__}"
        drawn = [boxes for boxes in (candidate.boxes, candidate.beside) if boxes is not None]
        return [render(pixels, boxes, self._max_side) for boxes in drawn], ""


def render(pixels: NDArray[np.uint8], boxes: Sequence[Marked], max_side: int = MAX_SIDE) -> Picture:
    """A picture at most `max_side` long, cut to the surroundings of a small focus, with its boxes and shapes.

    They are drawn after the picture is shrunk, so that their lines and labels are as legible on any.
    """
    left, top, right, bottom = _cut(pixels.shape[1], pixels.shape[0], boxes)
    image = Image.fromarray(pixels[top:bottom, left:right])
    # Cuts are enlarged, but not beyond twice their size: there is no more to see.
    scale = min(max_side / max(image.size), 1.0 if image.width == pixels.shape[1] else 2.0)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)
    frame = Frame((pixels.shape[1], pixels.shape[0]), (left, top, right, bottom), size)

    def draw_outlines(canvas: NDArray[np.uint8], chosen: Sequence[Marked]) -> NDArray[np.uint8]:
        shaped = [(marked.shape, _colour(marked)) for marked in chosen if marked.shape]
        return draw_shapes(canvas, frame, [shape for shape, _ in shaped], [colour for _, colour in shaped])

    def draw_boxes(canvas: NDArray[np.uint8], chosen: Sequence[Marked]) -> NDArray[np.uint8]:
        placed = frame.places(np.array([marked.box for marked in chosen], np.float64).reshape(-1, 2, 2))
        boxes = placed.reshape(-1, 4).astype(np.float32)
        return draw(canvas, boxes, [marked.label for marked in chosen], [_colour(marked) for marked in chosen])

    plain = np.asarray(image)
    focus = [marked for marked in boxes if marked.focus]
    others = [marked for marked in boxes if not marked.focus]
    if not focus:
        return Picture(_jpeg(draw_boxes(draw_outlines(plain, others), others)), *size)
    # The others explain: fainter they do not compete, and labels are needed only where they touch what is in focus. Of
    # what has a shape that is enough.
    boxed = [marked if _touches(marked, focus) else replace(marked, label="") for marked in others if not marked.shape]
    outlined = [marked for marked in others if marked.shape]
    explained = draw_boxes(draw_outlines(plain, outlined), boxed)
    faint = (plain.astype(np.uint16) * 9 + explained.astype(np.uint16) * 7) // 16
    drawn = draw_boxes(draw_outlines(faint.astype(np.uint8), focus), focus)
    return Picture(_jpeg(drawn), *size)


def _in_turns(candidates: Sequence[Candidate]) -> Iterator[tuple[int, Candidate]]:
    """The candidates with their places: the first of each kind, then the second of each, …"""
    queues: dict[str, list[tuple[int, Candidate]]] = {}
    for place, candidate in enumerate(candidates):
        queues.setdefault(candidate.kind, []).append((place, candidate))
    for turn in range(max(map(len, queues.values()), default=0)):
        for queue in queues.values():
            if turn < len(queue):
                yield queue[turn]


def _cut(width: int, height: int, boxes: Sequence[Marked]) -> tuple[int, int, int, int]:
    """The part of a picture to show: all of it, unless the boxes in focus are small."""
    focus = [marked.box for marked in boxes if marked.focus]
    if not focus:
        return 0, 0, width, height
    left, top = min(box[0] for box in focus), min(box[1] for box in focus)
    right, bottom = max(box[2] for box in focus), max(box[3] for box in focus)
    side = max(_CONTEXT * (right - left), _CONTEXT * (bottom - top), _LEAST_CUT)
    # 4:3 like most pictures, so that cuts and whole pictures stand next to one another.
    cut_width, cut_height = min(width, round(side * 4 / 3)), min(height, round(side))
    if cut_width * cut_height > 0.6 * width * height:
        return 0, 0, width, height
    x = min(max(0, round((left + right - cut_width) / 2)), width - cut_width)
    y = min(max(0, round((top + bottom - cut_height) / 2)), height - cut_height)
    return x, y, x + cut_width, y + cut_height


def _touches(marked: Marked, focus: Sequence[Marked]) -> bool:
    """Whether a box and one in focus share a tenth of either, and the box is not many times as large."""
    left, top, right, bottom = marked.box
    area = (right - left) * (bottom - top)
    for other in focus:
        x = min(right, other.box[2]) - max(left, other.box[0])
        y = min(bottom, other.box[3]) - max(top, other.box[1])
        other_area = (other.box[2] - other.box[0]) * (other.box[3] - other.box[1])
        if x > 0 and y > 0 and x * y >= 0.1 * min(area, other_area) and area <= 8 * other_area:
            return True
    return False


def _colour(marked: Marked) -> Colour:
    if marked.role == "class":
        return class_colour(marked.category_id)
    return _ROLES[marked.role]


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_QUALITY, optimize=True)
    return stream.getvalue()
