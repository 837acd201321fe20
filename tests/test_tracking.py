"""Tracks of made clips: objects that cross, vanish, change class; scored by MOTA and IDF1."""

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from beam_jobs.records import Detections
from beam_jobs.tracking.assignment import best_pairs
from beam_jobs.tracking.motion import Motion
from beam_jobs.tracking.tracker import Frame, Tracking, track
from tests.tracking_scores import Mot, overlap, score_tracks

STEP = 1 / 30


def detections(rows):
    """`rows` of (box, score, category_id)."""
    return Detections(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )


def clip(seen, step=STEP):
    """Frames of what is `seen`: for each frame rows of (box, score, category_id)."""
    return [Frame(number, number * step, detections(rows)) for number, rows in enumerate(seen)]


def square(x, y, side=40.0):
    return (x, y, x + side, y + side)


def scored(truth, seen, **options):
    """Mot of the tracks of `seen`, and the tracks themselves."""
    frames = clip(seen)
    ids, tracks = track(frames, STEP, **options)
    boxes = [
        {int(i): tuple(frame.found.boxes[k].tolist()) for k, i in enumerate(row) if i}
        for frame, row in zip(frames, ids, strict=True)
    ]
    return score_tracks(truth, boxes), tracks


# --- the scores themselves, by hand -------------------------------------------------------------------------------


A, B, FAR = square(0, 0), square(100, 0), square(300, 300)


def test_scores_of_perfect_tracks_are_one():
    truth = [{1: A, 2: B}] * 3
    assert score_tracks(truth, [{7: A, 9: B}] * 3) == Mot(1.0, 1.0, 0, 0, 0)


def test_scores_by_hand_of_a_miss_a_false_positive_and_a_switch():
    # Object 1 in four frames: track 5, 5, nothing, 6; in the last frame a box where nothing is.
    truth = [{1: A}] * 4
    tracks = [{5: A}, {5: A}, {}, {6: A, 8: FAR}]
    # MOTA = 1 - (1 miss + 1 false positive + 1 switch) / 4. IDTP = 2 (track 5): IDF1 = 2·2 / (4 + 4).
    assert score_tracks(truth, tracks) == Mot(0.25, 0.5, 1, 1, 1)


def test_scores_by_hand_of_two_tracks_that_swap():
    truth = [{1: A, 2: B}] * 4
    tracks = [{5: A, 6: B}] * 3 + [{5: B, 6: A}]
    # Two switches of 8 boxes; each object shares 3 of 4 frames with its track: IDF1 = 2·6 / 16.
    assert score_tracks(truth, tracks) == Mot(0.75, 0.75, 0, 0, 2)


# --- assignment ---------------------------------------------------------------------------------------------------


def by_trying(gains):
    """The largest sum of any matching."""
    if gains.shape[0] > gains.shape[1]:
        gains = gains.T
    rows, columns = gains.shape
    return max(
        sum(max(gains[i, j], 0) for i, j in zip(range(rows), order, strict=True))
        for order in permutations(range(columns), rows)
    )


@given(
    st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
        lambda shape: arrays.arrays(np.float64, shape, elements=st.integers(-4, 9).map(lambda n: n / 8))
    )
)
@settings(deadline=None)
def test_pairs_are_worth_as_much_as_any(gains):
    pairs = best_pairs(gains)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(gains[pair] > 0 for pair in pairs)
    assert sum(gains[pair] for pair in pairs) == by_trying(gains)


# --- motion -------------------------------------------------------------------------------------------------------


def reference_filter(boxes, steps):
    """The reference's filter with its 8×8 matrices; boxes are None where nothing was seen."""
    mean = covariance = None
    for box in boxes:
        if mean is None:
            measured = to_xyah(box)
            h = measured[3]
            mean = np.array([*measured, 0, 0, 0, 0])
            spread = [2 * h / 20, 2 * h / 20, 1e-2, 2 * h / 20, 10 * h / 160, 10 * h / 160, 1e-5, 10 * h / 160]
            covariance = np.diag(np.square(spread))
            continue
        h = mean[3]
        noise = [h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]
        forward = np.eye(8) + steps * np.eye(8, k=4)
        mean, covariance = forward @ mean, forward @ covariance @ forward.T + steps * np.diag(np.square(noise))
        if box is not None:
            h = mean[3]
            look = np.eye(4, 8)
            total = look @ covariance @ look.T + np.diag(np.square([h / 20, h / 20, 1e-1, h / 20]))
            gain = covariance @ look.T @ np.linalg.inv(total)
            mean = mean + gain @ (to_xyah(box) - look @ mean)
            covariance = covariance - gain @ total @ gain.T
    return mean


def to_xyah(box):
    xmin, ymin, xmax, ymax = box
    return np.array([(xmin + xmax) / 2, (ymin + ymax) / 2, (xmax - xmin) / (ymax - ymin), ymax - ymin])


@pytest.mark.parametrize("steps", [1.0, 2.5])
def test_motion_is_the_references_kalman_filter(steps):
    first = (0, 0, 30, 60)
    later = [(4, 1, 35, 60), (9, 2, 39, 64), None, None, (20, 3, 52, 67), (25, 5, 55, 65)]
    motion = Motion(first)
    for box in later:
        motion.predict(steps)
        if box is not None:
            motion.update(box)
    expected = reference_filter([first, *later], steps)
    np.testing.assert_allclose(np.concatenate(motion.state), expected, rtol=1e-9)


# --- whole clips --------------------------------------------------------------------------------------------------


def test_objects_that_cross_keep_their_tracks():
    truth = [{1: square(4 * n, 0.5 * n), 2: square(240 - 4 * n, 30 - 0.5 * n)} for n in range(60)]
    seen = [[(frame[1], 0.9, 1), (frame[2], 0.8, 1)] for frame in truth]
    mot, tracks = scored(truth, seen)
    assert mot == Mot(1.0, 1.0, 0, 0, 0)
    assert [(t.track_id, t.first_frame, t.last_frame, t.length) for t in tracks] == [(1, 0, 59, 60), (2, 0, 59, 60)]
    assert tracks[0].mean_score == pytest.approx(0.9, abs=0.01)  # where they cover each other, either may be either
    assert tracks[0].last_s == pytest.approx(59 / 30)


def test_an_object_behind_another_is_found_again():
    # The second object is unseen for 20 frames, and moves on meanwhile.
    truth = [{1: square(100, 100), 2: square(3 * n, 160)} for n in range(80)]
    seen = [[(frame[1], 0.9, 1)] + ([] if 30 <= n < 50 else [(frame[2], 0.8, 1)]) for n, frame in enumerate(truth)]
    mot, tracks = scored(truth, seen)
    assert (mot.switches, mot.misses, mot.false_positives) == (0, 20, 0)
    assert [t.length for t in tracks] == [80, 60]


def test_what_is_lost_for_longer_than_the_buffer_is_another_track():
    seen = [[(A, 0.9, 1)]] * 5 + [[]] * 40 + [[(A, 0.9, 1)]] * 5
    _, tracks = track(clip(seen), STEP)
    assert [(t.first_frame, t.last_frame) for t in tracks] == [(0, 4), (45, 49)]
    _, tracks = track(clip(seen), STEP, Tracking(lost_s=2.0))
    assert [(t.first_frame, t.last_frame) for t in tracks] == [(0, 49)]


def test_the_buffer_is_in_seconds_whatever_frames_are_seen():
    """Every sixth frame of a clip: what is unseen for 0.8 s is found again, after 1.2 s it is another."""
    for gap, expected in ((3, 1), (6, 2)):
        seen = [[(A, 0.9, 1)]] * 5 + [[]] * gap + [[(A, 0.9, 1)]] * 5
        _, tracks = track(clip(seen, step=0.2), 0.2)
        assert len(tracks) == expected


def test_frames_that_are_missing_move_the_filter_on():
    """Frames 20 to 31 could not be decoded: the object has moved on by two of its widths meanwhile."""
    frames = [frame for frame in clip([[(square(7 * n, 0), 0.9, 1)] for n in range(60)]) if not 20 <= frame.number < 32]
    assert overlap(square(7 * 19, 0), square(7 * 32, 0)) == 0
    _, tracks = track(frames, STEP)
    assert [(t.first_frame, t.last_frame, t.length) for t in tracks] == [(0, 59, 48)]


def test_doubtful_boxes_prolong_a_track_but_begin_none():
    seen = [[(A, 0.9, 1)]] * 5 + [[(A, 0.2, 1), (FAR, 0.3, 1)]] * 45 + [[(A, 0.9, 1)]]
    ids, tracks = track(clip(seen), STEP)
    assert [t.length for t in tracks] == [51]
    assert ids[20].tolist() == [1, 0]


def test_a_class_that_flickers_is_one_track_of_the_class_with_most_votes():
    truth = [{1: square(3 * n, 0)} for n in range(30)]
    seen = [[(frame[1], 0.7, 3 if n % 3 else 8)] for n, frame in enumerate(truth)]
    mot, tracks = scored(truth, seen)
    assert mot == Mot(1.0, 1.0, 0, 0, 0)
    assert [t.category_id for t in tracks] == [3]


def test_two_classes_seen_in_one_thing_do_not_swap_their_tracks():
    rng = np.random.default_rng(5)
    seen = []
    for n in range(60):
        jitter = rng.normal(0, 1.5, (2, 4))
        place = np.array(square(3 * n, 0))
        seen.append([(place + jitter[0], rng.uniform(0.6, 0.9), 3), (place + jitter[1], rng.uniform(0.6, 0.9), 8)])
    ids, tracks = track(clip(seen), STEP)
    assert len(tracks) == 2
    assert len({tuple(row) for row in np.array(ids).tolist()}) == 1


def test_one_box_alone_is_no_track_but_in_the_first_frame():
    ids, tracks = track(clip([[(A, 0.9, 1)], [], [(FAR, 0.9, 1)], [], []]), STEP)
    assert [row.tolist() for row in ids] == [[1], [], [0], [], []]
    assert [t.length for t in tracks] == [1]


def test_a_new_track_has_its_first_box_too():
    ids, tracks = track(clip([[], [(A, 0.9, 1)], [(A, 0.9, 1)]]), STEP)
    assert [row.tolist() for row in ids] == [[], [1], [1]]
    assert tracks[0].first_frame == 1


def test_a_noisy_crowd_is_tracked_well():
    """Twelve objects, a tenth of the boxes missing, others doubtful, off by pixels, and false ones between."""
    rng = np.random.default_rng(11)
    start, speed = rng.uniform(0, 600, (12, 2)), rng.uniform(-3, 3, (12, 2))
    truth, seen = [], []
    for n in range(150):
        corners = (start + n * speed).tolist()
        places = {i: square(x, y, 60.0) for i, (x, y) in enumerate(corners)}
        rows = [
            (np.array(box) + rng.normal(0, 1.5, 4), rng.uniform(0.25, 0.95), 1)
            for box in places.values()
            if rng.uniform() > 0.1
        ]
        rows += [(square(*rng.uniform(0, 900, 2)), rng.uniform(0.1, 0.7), 1) for _ in range(2)]
        truth.append(places)
        seen.append(rows)
    mot, _ = scored(truth, seen)
    assert mot.mota > 0.8
    assert mot.idf1 > 0.8
    assert mot.switches <= 6


rows_of_a_frame = st.lists(
    st.tuples(
        st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(20, 50)).map(lambda t: square(*t)),
        st.integers(1, 99).map(lambda n: n / 100),
        st.integers(1, 3),
    ),
    max_size=5,
    unique=True,
)


@given(st.lists(rows_of_a_frame, max_size=8), st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=50)
def test_the_order_within_a_frame_does_not_matter(seen, random):
    orders = [random.sample(range(len(rows)), len(rows)) for rows in seen]
    shuffled = [[rows[i] for i in order] for rows, order in zip(seen, orders, strict=True)]
    ids, tracks = track(clip(seen), STEP)
    others, same_tracks = track(clip(shuffled), STEP)
    assert tracks == same_tracks
    for row, other, order in zip(ids, others, orders, strict=True):
        assert row[order].tolist() == other.tolist()


@given(st.lists(rows_of_a_frame, max_size=8))
@settings(deadline=None, max_examples=50)
def test_tracks_say_what_the_ids_say(seen):
    frames = clip(seen)
    ids, tracks = track(frames, STEP)
    assert [t.track_id for t in tracks] == list(range(1, len(tracks) + 1))
    for row, frame in zip(ids, frames, strict=True):
        assert len({i for i in row.tolist() if i}) == sum(row > 0)  # an object is once in a frame
        assert (frame.found.scores[row > 0] > 0.1).all()
    for one in tracks:
        at = [n for n, row in enumerate(ids) if one.track_id in row]
        assert (one.first_frame, one.last_frame, one.length) == (at[0], at[-1], len(at))


def test_bad_settings_and_times_are_refused():
    with pytest.raises(ValueError, match="low <= high <= 1"):
        Tracking(high=0.05)
    with pytest.raises(ValueError, match="lost_s"):
        Tracking(lost_s=-1)
    with pytest.raises(ValueError, match="step_s"):
        track([], 0)
    with pytest.raises(ValueError, match="times must not decrease"):
        track([Frame(0, 1.0, detections([])), Frame(1, 0.9, detections([]))], STEP)


def test_scores_take_the_pairs_that_still_fit():
    """CLEAR MOT: a track that still fits its object stays with it, though another box fits better."""
    near = square(8, 0)
    assert all(overlap(one, other) > 0.5 for one, other in product([A], [near]))
    assert score_tracks([{1: A}] * 2, [{5: A}, {5: near, 6: A}]) == Mot(0.5, 2 * 2 / 5, 0, 1, 0)
