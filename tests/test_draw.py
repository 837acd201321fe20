"""What is drawn on a picture, looked at by its pixels."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from beam_jobs.imaging.draw import class_colour, draw

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
Pixels = NDArray[np.uint8]


def blank(width: int, height: int, grey: int = 128) -> Pixels:
    return np.full((height, width, 3), grey, np.uint8)


def array(boxes: Iterable[tuple[float, float, float, float]]) -> NDArray[np.float32]:
    return np.array(list(boxes), np.float32).reshape(-1, 4)


def is_colour(pixels: Pixels, colour: tuple[int, int, int]) -> NDArray[np.bool_]:
    return np.asarray((pixels == np.array(colour)).all(axis=-1))


def extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """xmin, ymin, xmax, ymax of what is true, the last two excluded."""
    ys, xs = np.nonzero(mask)
    return int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1


def label_extent(
    size: tuple[int, int], box: tuple[float, float, float, float], text: str, colour: tuple[int, int, int] = YELLOW
) -> tuple[int, int, int, int]:
    """Where the label is: what differs from the same box without one, by drawing it on two greys."""
    changed = np.zeros((size[1], size[0]), bool)
    for grey in (90, 160):
        with_label = draw(blank(*size, grey), array([box]), [text], [colour])
        without = draw(blank(*size, grey), array([box]), [""], [colour])
        changed |= (with_label != without).any(axis=-1)
    return extent(changed)


def test_a_box_is_drawn_round_its_pixels() -> None:
    pixels = blank(640, 480)
    got = draw(pixels, array([(100, 150, 300, 250)]), [""], [RED])
    left, top, right, bottom = extent(is_colour(got, RED))
    for seen, meant in zip((left, top, right, bottom), (100, 150, 300, 250), strict=True):
        assert abs(seen - meant) <= 2
    np.testing.assert_array_equal(got[160:240, 110:290], pixels[160:240, 110:290])
    np.testing.assert_array_equal(got[300:], pixels[300:])


def test_the_input_is_not_modified() -> None:
    pixels = blank(64, 64)
    pixels.flags.writeable = False
    boxes = array([(5, 20, 50, 60)])
    got = draw(pixels, boxes, ["cat 0.90"], [RED])
    assert got.shape == (64, 64, 3)
    assert got.dtype == np.uint8
    assert (pixels == 128).all()
    assert boxes.tolist() == [[5, 20, 50, 60]]
    assert (got != 128).any()


def test_nothing_to_draw() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    np.testing.assert_array_equal(draw(pixels, array([]), [], []), pixels)


def test_the_same_call_gives_the_same_bytes() -> None:
    boxes = array([(10, 30, 80, 90), (20, 40, 90, 95)])
    first, second = (draw(blank(100, 100), boxes, ["a 0.9", "b 0.8"], [RED, BLUE]) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_the_strongest_is_on_top() -> None:
    box = (100, 150, 300, 250)
    got = draw(blank(640, 480), array([box] * 3), [""] * 3, [RED, GREEN, BLUE])
    assert is_colour(got, RED).any()
    assert not is_colour(got, GREEN).any()
    assert not is_colour(got, BLUE).any()
    # Where there is room for one label only, it is the strongest's.
    got = draw(blank(64, 12), array([(0, 0, 64, 12)] * 2), ["person 0.90"] * 2, [YELLOW, BLUE])
    assert is_colour(got, YELLOW).sum() > 200
    assert not is_colour(got, BLUE).any()


def test_labels_lie_over_boxes_and_beside_stronger_labels() -> None:
    boxes = array([(100, 150, 300, 250), (110, 156, 500, 400)])
    got = draw(blank(640, 480), boxes, ["person 0.90", "person 0.80"], [RED, BLUE])
    alone = {
        colour: is_colour(draw(blank(640, 480), boxes[i : i + 1], ["person 0.90"], [colour]), colour).sum()
        for i, colour in enumerate((RED, BLUE))
    }
    # Above its box, the second label would lie on the first. Each shows nearly all that it shows alone.
    for colour in (RED, BLUE):
        assert is_colour(got, colour).sum() > 0.9 * alone[colour]


@pytest.mark.parametrize(
    ("size", "text", "line"),
    [((64, 64), (6, 14), (1, 1)), ((640, 480), (13, 22), (2, 3)), ((2000, 1500), (30, 55), (4, 7))],
)
def test_text_and_lines_scale_with_the_picture(
    size: tuple[int, int], text: tuple[int, int], line: tuple[int, int]
) -> None:
    width, height = size
    box = (width * 0.2, height * 0.5, width * 0.9, height * 0.9)
    _, top, _, bottom = label_extent(size, box, "dog 0.5")
    assert text[0] <= bottom - top <= text[1]
    column = is_colour(draw(blank(*size), array([box]), [""], [RED]), RED)[: round(height * 0.7), width // 2]
    assert line[0] <= column.sum() <= line[1]


@pytest.mark.parametrize("size", [(64, 64), (640, 480), (1500, 300)])
@pytest.mark.parametrize("text", ["dog 0.50", "baseball glove 0.87", "a very long name of a class " * 3 + "0.12"])
def test_the_label_stays_wholly_inside_the_picture(size: tuple[int, int], text: str) -> None:
    width, height = size
    places = [
        (0, 0, width, height),
        (width - 6, height - 6, width, height),
        (width - 6, 0, width, 6),
        (0, height - 6, 6, height),
        (0, 0, 6, 6),
        (width * 0.4, height * 0.5, width * 0.6, height * 0.6),
    ]
    sizes = set()
    for box in places:
        left, top, right, bottom = label_extent(size, box, text)
        sizes.add((right - left, bottom - top))
    # A label that were cut off at an edge would be smaller there. Lines of its own colour hide a few pixels of it.
    (widths, heights) = zip(*sizes, strict=True)
    assert max(widths) - min(widths) <= 8
    assert max(heights) - min(heights) <= 8
    assert max(widths) <= width


def test_the_label_is_above_its_box_where_there_is_room() -> None:
    left, top, right, bottom = label_extent((640, 480), (100, 150, 300, 250), "dog 0.50")
    assert bottom <= 151
    assert top >= 120
    assert abs(left - 99) <= 1
    _, top, _, bottom = label_extent((640, 480), (100, 3, 300, 250), "dog 0.50")
    assert top >= 0
    assert bottom < 40
    _, _, right, _ = label_extent((640, 480), (600, 150, 640, 250), "baseball glove 0.50")
    assert right >= 638


def test_text_is_black_or_white_by_its_ground() -> None:
    for colour, ink in ((YELLOW, 0), ((230, 230, 230), 0), ((0, 0, 120), 255), ((90, 0, 90), 255)):
        got = draw(blank(640, 480), array([(100, 150, 300, 250)]), ["WWWW 0.50"], [colour])
        box = draw(blank(640, 480), array([(100, 150, 300, 250)]), [""], [colour])
        label = got[(got != box).any(axis=-1)]
        assert (label == ink).all(axis=-1).sum() > 20
        assert (label == 255 - ink).all(axis=-1).sum() == 0


def test_a_long_name_is_shortened_and_its_score_kept() -> None:
    size, box = (64, 64), (2, 30, 60, 60)
    long = draw(blank(*size), array([box]), ["refrigerator with doors 0.87"], [YELLOW])
    other_score = draw(blank(*size), array([box]), ["refrigerator with doors 0.13"], [YELLOW])
    other_end = draw(blank(*size), array([box]), ["refrigerator with drawers 0.87"], [YELLOW])
    assert (long != other_score).any()
    np.testing.assert_array_equal(long, other_end)


def test_boxes_over_the_edges_are_seen_whole() -> None:
    got = draw(blank(100, 80), array([(-20, -20, 200, 200)]), [""], [RED])
    red = is_colour(got, RED)
    assert red[0].all()
    assert red[-1].all()
    assert red[:, 0].all()
    assert red[:, -1].all()
    assert not red[20:60, 20:80].any()
    got = draw(blank(100, 80), array([(50.2, 40.2, 50.4, 40.3)]), [""], [RED])
    assert is_colour(got, RED)[38:43, 48:53].any()


def test_boxes_outside_the_picture_are_left_out() -> None:
    outside = array([(200, 10, 220, 30), (-30, 10, -10, 30), (10, -9, 20, -5), (np.nan, 1, 2, 3), (30, 30, 20, 40)])
    got = draw(blank(100, 80), outside, ["dog 0.50"] * 5, [RED] * 5)
    np.testing.assert_array_equal(got, blank(100, 80))


def test_characters_that_the_font_lacks() -> None:
    def shown(text: str) -> Pixels:
        return draw(blank(640, 480), array([(100, 150, 300, 250)]), [text], [YELLOW])

    for text, same in (("café 0.9", "cafe 0.9"), ("人 0.9", "? 0.9"), ("😀 0.9", "? 0.9"), ("a\n\tb  0.9", "a b 0.9")):
        np.testing.assert_array_equal(shown(text), shown(same))
    np.testing.assert_array_equal(shown(" \n "), shown(""))


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="got 1, 2, 1"):
        draw(blank(9, 9), array([(0, 0, 5, 5)]), ["a", "b"], [RED])


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    boxes=npst.arrays(
        np.float32,
        st.tuples(st.integers(0, 4), st.just(4)),
        elements=st.one_of(st.floats(-200, 200, width=32), st.floats(width=32)),
    ),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_nothing_is_raised(width: int, height: int, boxes: NDArray[np.float32], data: st.DataObject) -> None:
    text = st.one_of(
        st.text(max_size=30), st.characters(codec=None), st.sampled_from(["", "\n", "x" * 5000, "👩‍👩‍👧 0.9"])
    )
    labels = data.draw(st.lists(text, min_size=len(boxes), max_size=len(boxes)))
    colours = [class_colour(i) for i in range(len(boxes))]
    got = draw(blank(width, height), boxes, labels, colours)
    assert got.shape == (height, width, 3)
    assert got.dtype == np.uint8


# Colours


def test_the_colours_of_classes_stay() -> None:
    # People compare pictures of different runs: a change here changes them all.
    assert class_colour(0) == (255, 104, 160)
    assert class_colour(1) == (0, 142, 206)
    assert class_colour(2) == (251, 197, 71)
    assert class_colour(17) == (0, 222, 194)
    assert class_colour(90) == (0, 186, 252)
    assert class_colour(10**9) == (71, 97, 228)


def test_neighbouring_classes_are_well_apart() -> None:
    colours = {i: np.array(class_colour(i)) for i in range(91)}
    for i, j in combinations(colours, 2):
        least = 100 if j - i <= 2 else 25 if j - i <= 12 else 5
        assert np.linalg.norm(colours[i] - colours[j]) > least, (i, j)


@given(st.integers(-(2**31), 2**31 - 1))
def test_any_id_has_a_colour_that_is_neither_dark_nor_pale(category_id: int) -> None:
    colour = class_colour(category_id)
    assert all(0 <= c <= 255 for c in colour)
    assert max(colour) >= 120
    assert max(colour) - min(colour) >= 60
