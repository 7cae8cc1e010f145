"""The registry of detectors; the Haar detector on real faces and on pictures that hold none."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from skimage import data

from fer_batch.config import BUILT_IN_DETECTORS, Detector, Haar
from fer_batch.errors import ConfigError, WeightsError
from fer_batch.faces.detectors import (
    BUILT_IN,
    build_detector,
    check_crop,
    find_detector,
    weights_sha256,
)
from tests.support.cards import card

ASTRONAUT = data.astronaut()
NOSE = (223, 120)  # x, y in the portrait


def detector(**settings: float):
    return build_detector(Detector(name="haar", haar=Haar(**settings)), torch.device("cpu"))


def holds(box: np.ndarray, point: tuple[float, float]) -> bool:
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def test_face_is_found_where_it_is() -> None:
    faces = detector().detect([ASTRONAUT])
    assert faces.frame_row.tolist() == [0]
    assert holds(faces.box_px[0], NOSE)
    assert 80 < faces.box_px[0, 2] - faces.box_px[0, 0] < 160
    assert faces.points_px is None


@pytest.mark.parametrize("zoom", [2, 4])
def test_boxes_are_in_pixels_of_the_full_frame(zoom: int) -> None:
    large = np.repeat(np.repeat(ASTRONAUT, zoom, axis=0), zoom, axis=1)
    small_box, large_box = (detector().detect([frame]).box_px[0] for frame in (ASTRONAUT, large))
    np.testing.assert_allclose(large_box, small_box * zoom, atol=12 * zoom)


def test_batch_equals_one_by_one_over_sizes_and_numbers_of_faces() -> None:
    pair = np.concatenate([ASTRONAUT[:300], ASTRONAUT[:300, ::-1]], axis=1)
    frames = [ASTRONAUT, np.zeros((90, 160, 3), np.uint8), pair, data.chelsea(), ASTRONAUT[:400]]
    together = detector(min_face=0.15).detect(frames)
    assert np.bincount(together.frame_row, minlength=5).tolist() == [1, 0, 2, 0, 1]
    for row, frame in enumerate(frames):
        alone = detector(min_face=0.15).detect([frame])
        np.testing.assert_array_equal(together.box_px[together.frame_row == row], alone.box_px)
        np.testing.assert_array_equal(together.score[together.frame_row == row], alone.score)


def test_faces_of_a_frame_go_from_left_to_right() -> None:
    pair = np.concatenate([ASTRONAUT[:300], ASTRONAUT[:300]], axis=1)
    boxes = detector(min_face=0.15).detect([pair]).box_px
    assert boxes[0, 0] < 512 <= boxes[1, 0]


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 300, 3), (23, 23, 3), (240, 320, 3)])
def test_pictures_without_a_face(shape: tuple[int, ...]) -> None:
    assert len(detector().detect(np.zeros((2, *shape), np.uint8))) == 0


def test_no_frames_no_faces() -> None:
    assert len(detector().detect([])) == 0


def test_every_section_of_the_configuration_has_its_detector() -> None:
    assert tuple(BUILT_IN) == BUILT_IN_DETECTORS
    for name, spec in BUILT_IN.items():
        assert type(getattr(Detector(), name)) is spec.settings


def test_looking_into_the_registry_loads_no_network() -> None:
    code = """
import sys
from fer_batch.config import Detector
from fer_batch.faces import detectors
for name, spec in detectors.BUILT_IN.items():
    assert spec.advice
    assert bool(detectors.weights_sha256(Detector(name=name))) == (name in ("glance", "yunet"))
assert not {"torch", "cv2"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_detector_has_to_give_what_the_card_wants() -> None:
    with pytest.raises(
        ConfigError, match=r"tiny .* detector\.name=haar .*glance or retinaface or yunet"
    ):
        check_crop(card(crop="points"), Detector(name="haar"))
    for name in BUILT_IN:
        check_crop(
            card(crop="points" if find_detector(name).gives_points else "box"), Detector(name=name)
        )


def test_weights_of_a_detector_that_cannot_be_read() -> None:
    with pytest.raises(WeightsError, match=r"detector\.yunet: .*nowhere\.onnx"):
        weights_sha256(Detector(name="yunet", yunet={"weights": "nowhere.onnx"}))
