"""Track ids: what `Tracker` and `CutDetector` promise."""

from dataclasses import replace

import numpy as np
import pytest

from fer_batch.config import Track
from fer_batch.faces.tracking import CutDetector, Tracker, iou
from fer_batch.records import Faces

RATE = 25.0


def faces(boxes: list[list[tuple[float, float]]], side: float = 100) -> Faces:
    """Square boxes by their top left corners, one list per frame."""
    rows = [row for row, corners in enumerate(boxes) for _ in corners]
    corners = np.array([corner for frame in boxes for corner in frame], np.float32).reshape(-1, 2)
    return Faces(
        frame_row=np.array(rows, np.int64),
        box_px=np.hstack([corners, corners + np.float32(side)]),
        score=np.ones(len(rows), np.float32),
    )


def track(
    boxes: list[list[tuple[float, float]]],
    config: Track | None = None,
    cuts: tuple[int, ...] = (),
    rate: float = RATE,
) -> list[int]:
    is_cut = np.isin(np.arange(len(boxes)), cuts)
    pts_s = np.arange(len(boxes)) / rate
    return Tracker(config or Track()).update(faces(boxes), pts_s, is_cut).tolist()


def test_moving_face_keeps_its_id() -> None:
    assert track([[(10 * t, 0)] for t in range(20)]) == [0] * 20


def test_faces_that_pass_each_other_keep_their_ids() -> None:
    left_to_right = [(30.0 * t, 0.0) for t in range(12)]
    right_to_left = [(330 - 30.0 * t, 20.0) for t in range(12)]
    ids = track([list(pair) for pair in zip(left_to_right, right_to_left, strict=True)])
    assert ids == [0, 1] * 12


def test_faces_of_one_frame_never_share_an_id() -> None:
    ids = track([[(0, 0)], [(0, 0), (5, 5), (9, 9)]])
    assert len(set(ids[1:])) == 3


@pytest.mark.parametrize("n_empty, ids", [(5, [0, 0]), (20, [0, 1])])
def test_gap_ends_a_track_when_it_is_too_long(n_empty: int, ids: list[int]) -> None:
    assert track([[(0, 0)], *[[]] * n_empty, [(0, 0)]], Track(max_gap_s=0.4)) == ids


def test_frames_far_apart_are_no_gap() -> None:
    assert track([[(0, 0)]] * 4, Track(max_gap_s=0.4), rate=0.5) == [0] * 4


def test_cut_ends_all_tracks_and_ids_are_not_used_again() -> None:
    assert track([[(0, 0), (300, 0)]] * 4, cuts=(2,)) == [0, 1, 0, 1, 2, 3, 2, 3]


def test_face_that_jumps_is_another() -> None:
    assert track([[(0, 0)], [(500, 0)]]) == [0, 1]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_chunks_do_not_change_ids(size: int) -> None:
    rng = np.random.default_rng(0)
    boxes = [[tuple(c) for c in rng.uniform(0, 300, (rng.integers(0, 4), 2))] for _ in range(40)]
    pts_s, is_cut = np.arange(40) / RATE, np.arange(40) % 13 == 12
    tracker, ids = Tracker(Track()), []
    for start in range(0, 40, size):
        part = slice(start, start + size)
        ids += tracker.update(faces(boxes[part]), pts_s[part], is_cut[part]).tolist()
    assert ids == Tracker(Track()).update(faces(boxes), pts_s, is_cut).tolist()


def test_iou_of_boxes_without_area_is_zero() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [3, 3, 3, 3]], np.float32)
    expected = [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]]
    np.testing.assert_allclose(iou(boxes, boxes), expected, atol=1e-6)


def scene(seed: int, n: int) -> np.ndarray:
    """A picture of large grey patches that moves a little, with grain."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.integers(0, 256, (6, 8)), np.ones((40, 40)))
    frames = [np.roll(patches, 3 * t, axis=1) + rng.normal(0, 4, patches.shape) for t in range(n)]
    grey = np.clip(frames, 0, 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


@pytest.mark.parametrize("size", [1, 4, 30])
def test_cuts_are_found_and_movement_is_none(size: int) -> None:
    rgb = np.concatenate([scene(1, 10), scene(2, 10), scene(3, 10)])
    cuts = CutDetector(Track().cut_threshold)
    found = [cuts.update(rgb[start : start + size]) for start in range(0, len(rgb), size)]
    assert np.flatnonzero(np.concatenate(found)).tolist() == [10, 20]


def test_tiny_pictures_have_no_cuts_of_their_own() -> None:
    assert CutDetector(0.3).update(np.zeros((3, 1, 1, 3), np.uint8)).tolist() == [False] * 3


def track_scores(
    boxes: list[list[tuple[float, float]]], scores: list[float], min_score: float = 0.7
) -> list[int]:
    found = replace(faces(boxes), score=np.array(scores, np.float32))
    n = len(boxes)
    tracker = Tracker(Track(), min_score)
    return tracker.update(found, np.arange(n) / RATE, np.zeros(n, np.bool_)).tolist()


def test_weak_faces_continue_a_track() -> None:
    assert track_scores([[(0, 0)]] * 5, [0.9, 0.8, 0.5, 0.6, 0.7]) == [0] * 5


def test_weak_faces_begin_no_track() -> None:
    assert track_scores([[(0, 0)]] * 4, [0.6, 0.6, 0.9, 0.9]) == [-1, -1, 0, 0]


def test_weak_faces_do_not_make_a_track_of_a_single_face() -> None:
    assert track_scores([[(0, 0)]] * 4, [0.9, 0.6, 0.6, 0.9]) == [0, -1, -1, 0]


def test_weak_face_gets_what_other_faces_leave() -> None:
    pair = [(0.0, 0.0), (20.0, 0.0)]
    assert track_scores([[(0, 0)], [(0, 0)], pair], [0.9, 0.9, 0.6, 0.8]) == [0, 0, -1, 0]


def test_scores_that_are_missing_are_not_weak() -> None:
    assert track_scores([[(0, 0)]] * 2, [np.nan, np.nan]) == [0, 0]


@pytest.mark.parametrize("step, ids", [(90, [0, 0]), (130, [0, 1])])
def test_face_may_move_by_about_its_size(step: float, ids: list[int]) -> None:
    assert track([[(0, 0)], [(step, 0)]]) == ids


def test_face_that_moved_far_leaves_tracks_to_those_that_did_not() -> None:
    assert track([[(0, 0)], [(5, 0), (90, 0)]]) == [0, 0, 1]
    assert track([[(0, 0)], [(-90, 0), (5, 0)]]) == [0, 1, 0]


def test_thousands_of_faces_keep_their_ids() -> None:
    crowd = [(120.0 * column, 120.0 * row) for row in range(40) for column in range(40)]
    moved = [(x + 10, y) for x, y in crowd]
    assert track([crowd, moved]) == [*range(1600)] * 2
