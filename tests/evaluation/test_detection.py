"""Boxes that were found, compared with those that are there."""

import numpy as np
import pytest

from fer_batch.datasets.face_boxes import FacePicture
from fer_batch.evaluation.detection import compare
from fer_batch.records import Faces

FACE, SMALL, UNSURE = (0, 0, 40, 40), (100, 0, 110, 10), (200, 0, 240, 40)


def picture() -> FacePicture:
    boxes = np.array([FACE, SMALL, UNSURE], np.float32)
    points = np.repeat(boxes[:, None, :2] + 10, 5, axis=1)
    sure = np.array([True, True, False])
    return FacePicture("a", "scene", (300, 300), b"", boxes, points, sure)


def found(*boxes: tuple[float, ...], score: list[float]) -> Faces:
    box_px = np.array(boxes, np.float32).reshape(-1, 4)
    points_px = np.repeat(box_px[:, None, :2] + 14, 5, axis=1)
    return Faces(np.zeros(len(boxes), np.int64), box_px, np.array(score, np.float32), points_px)


def test_right_wrong_twice_and_unsure() -> None:
    faces = found(FACE, (2, 0, 42, 40), UNSURE, (0, 200, 40, 240), score=[0.8, 0.9, 0.95, 0.7])
    matches = compare([(picture(), faces)])
    order = matches.score.argsort()
    assert matches.score[order] == pytest.approx([0.7, 0.8, 0.9])
    assert matches.is_right[order].tolist() == [
        False,
        False,
        True,
    ]  # 0.8: its face is found already
    assert matches.recall(0.5) == 0.5
    assert (matches.recall(0.5, below_px=20), matches.recall(0.5, from_px=20)) == (0, 1)
    assert np.isnan(matches.recall(0.5, from_px=500))
    assert matches.recall(0.95) == 0
    assert (matches.n_wrong(0.5), matches.n_wrong(0.75), matches.n_wrong(0.85)) == (2, 1, 0)
    assert matches.average_precision() == pytest.approx(0.5)
    moved = np.hypot(6, 4) / 40  # the points are 4 pixels off, and the box 2
    assert matches.point_error[0] == pytest.approx(moved)
    assert matches.typical_point_error() == pytest.approx(moved)
    assert np.isnan(matches.point_error[1])


def test_all_found_and_none_found() -> None:
    none = compare([(picture(), found(score=[]))])
    assert (none.recall(0), none.n_wrong(0), none.average_precision()) == (0, 0, 0)
    assert np.isnan(none.typical_point_error())
    every = compare([(picture(), found(FACE, SMALL, score=[0.6, 0.9]))] * 2)
    assert (every.recall(0.5), every.average_precision(), len(every.face_px)) == (1, 1, 4)
