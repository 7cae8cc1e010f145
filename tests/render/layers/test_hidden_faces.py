"""Hiding faces: what cannot be seen any more, and what can."""

import numpy as np
import pytest
import torch
from skimage import data

from fer_batch.config import Detector
from fer_batch.faces.detectors import build_detector
from fer_batch.records import Bytes
from fer_batch.render.layers.hidden_faces import CELLS, hide


def noise(height: int = 300, width: int = 400) -> Bytes:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_little_is_left_of_the_face_and_all_of_the_rest() -> None:
    frame, before = noise(), noise()
    hide(frame, np.float32([150, 100, 250, 200]))
    colours = {tuple(pixel) for pixel in frame[110:190, 165:235].reshape(-1, 3).tolist()}
    assert len(colours) <= CELLS**2
    is_hidden = (frame != before).any(axis=2)
    assert is_hidden[100:200, 150:250].mean() > 0.95
    assert not is_hidden[:60].any()
    assert not is_hidden[:, :130].any()
    assert not is_hidden[:, 270:].any()


@pytest.mark.parametrize(
    "box",
    [
        (-50, -50, 40, 40),
        (380, 280, 500, 400),
        (10, 10, 11, 11),
        (0, 0, 400, 300),
        (5, 5, 6, 9),
        (-90, -90, -40, -40),
    ],
)
def test_any_box(box: tuple[float, float, float, float]) -> None:
    frame = noise()
    hide(frame, np.float32(box))
    is_outside = box[2] < -30
    assert (frame == noise()).all() == is_outside


def test_a_face_is_not_found_any_more() -> None:
    frame = data.astronaut().copy()
    detector = build_detector(Detector(), torch.device("cpu"))
    [box] = detector.detect([frame]).box_px
    hide(frame, box)
    assert len(detector.detect([frame])) == 0
