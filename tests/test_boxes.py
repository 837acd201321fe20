import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from beam_jobs import boxes
from beam_jobs.processes.select import Selection, select
from beam_jobs.records import Detections


def test_normalised_yxyx_become_pixels_xyxy():
    normalised = np.array([[0.1, 0.2, 0.5, 0.75]], np.float32)
    np.testing.assert_allclose(boxes.from_normalised_yxyx(normalised, 400, 200), [[80, 20, 300, 100]], rtol=1e-6)


def test_boxes_outside_or_without_area_are_empty():
    cases = np.array(
        [[0, 0, 1, 1], [5, 5, 5, 9], [5, 5, 9, 5], [9, 9, 5, 5], [np.nan, 0, 1, 1], [0, 0, np.inf, 1]], np.float32
    )
    assert boxes.is_empty(cases).tolist() == [False, True, True, True, True, True]


def detections(*rows: tuple[float, ...]) -> Detections:
    """Rows of category, score, xmin, ymin, xmax, ymax."""
    table = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(table[:, 2:].astype(np.float32), table[:, 1].astype(np.float32), table[:, 0].astype(np.int32))


def test_empty_boxes_are_dropped_before_the_best_are_taken():
    found = detections((1, 0.9, 100, 0, 120, 10), (2, 0.8, 0, 0, 10, 10), (3, 0.7, -5, -5, 200, 5))
    kept, empty = select(found, 50, 50, Selection(0.05, max_detections=1))
    assert empty == 1
    assert kept.category_ids.tolist() == [2]


def test_boxes_are_clipped_to_the_picture():
    kept, _ = select(detections((1, 0.9, -5, -3, 200, 5)), 50, 40, Selection())
    assert kept.boxes.tolist() == [[0, 0, 50, 5]]


def test_only_the_categories_asked_for_count():
    found = detections((1, 0.9, 99, 99, 99, 99), (2, 0.8, 0, 0, 10, 10))
    kept, empty = select(found, 50, 50, Selection(category_ids=frozenset({2})))
    assert (kept.category_ids.tolist(), empty) == ([2], 0)


def test_a_score_that_is_not_a_number_is_below_everything():
    kept, empty = select(detections((1, np.nan, 0, 0, 1, 1), (1, 0.05, 0, 0, 1, 1)), 5, 5, Selection(0.05))
    assert (len(kept), empty) == (1, 0)


@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.sampled_from([0.1, 0.5, 0.9]), *(st.integers(-3, 12) for _ in range(4))),
        max_size=12,
    ),
    st.randoms(),
    st.none() | st.integers(1, 5),
)
def test_the_order_of_the_model_has_no_influence(rows, random, most):
    rules = Selection(0.2, most)
    one, empty_one = select(detections(*rows), 10, 8, rules)
    random.shuffle(rows)
    two, empty_two = select(detections(*rows), 10, 8, rules)
    assert empty_one == empty_two
    for name in ("boxes", "scores", "category_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    ranked = list(zip((-one.scores).tolist(), one.category_ids.tolist(), one.boxes.tolist(), strict=True))
    assert ranked == sorted(ranked)
    assert (one.boxes[:, 2:] > one.boxes[:, :2]).all()
