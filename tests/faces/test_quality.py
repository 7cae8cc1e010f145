"""What is measured of faces, on faces whose quality is known."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from fer_batch.config import Detector, Quality
from fer_batch.faces.detectors import build_detector
from fer_batch.faces.quality import FACE_CM, measure, unusable
from fer_batch.models.card import find_card
from fer_batch.records import Bytes, Faces, Floats
from tests.support.portraits import portrait

CARD = find_card("default")
NO_LIMITS = Quality(
    min_size_px=0,
    min_sharpness=0,
    min_brightness=0,
    max_yaw_deg=180,
    max_pitch_deg=180,
    max_roll_deg=180,
    max_edge_share=1,
)


def boxes(*box_px: ArrayLike, points_px: ArrayLike | None = None) -> Faces:
    """Faces of one frame."""
    return Faces(
        frame_row=np.zeros(len(box_px), np.int64),
        box_px=np.array(box_px, np.float32).reshape(-1, 4),
        score=np.ones(len(box_px), np.float32),
        points_px=None if points_px is None else np.array(points_px, np.float32),
    )


def rotation(axis: int, angle_deg: float) -> NDArray[np.float64]:
    """About the axis to the right (0), down (1) or away from the camera (2)."""
    vector = np.zeros(3)
    vector[axis] = np.radians(angle_deg)
    return np.asarray(cv2.Rodrigues(vector)[0])


def projected(yaw: float, pitch: float, roll: float, distance_cm: float = 100) -> Floats:
    """Points (5, 2) of the generic face, 150 pixels wide, in a frame of 600x600."""
    turn = rotation(2, roll) @ rotation(1, -yaw) @ rotation(0, -pitch)
    model = np.array(FACE_CM) - np.mean(FACE_CM, axis=0)
    places = model @ turn.T + [0, 0, distance_cm]
    return (300 + 10 * distance_cm * places[:, :2] / places[:, 2:]).astype(np.float32)


def angles(points_px: ArrayLike) -> list[float]:
    """Yaw, pitch and roll."""
    frame = np.zeros((600, 600, 3), np.uint8)
    found = measure([frame], boxes([225, 225, 375, 375], points_px=[points_px]), CARD, Quality())
    return [found.yaw_deg.item(), found.pitch_deg.item(), found.roll_deg.item()]


@pytest.mark.parametrize(
    "yaw, pitch, roll",
    [(0, 0, 0), (35, 0, 0), (-60, 0, 0), (0, 25, 0), (0, -25, 0), (0, 0, 70), (30, -15, -100)],
)
def test_angles_of_a_projected_face(yaw: float, pitch: float, roll: float) -> None:
    assert angles(projected(yaw, pitch, roll)) == pytest.approx([yaw, pitch, roll], abs=0.5)


@pytest.mark.parametrize("distance_cm", [40, 1000])
def test_angles_hardly_depend_on_the_distance(distance_cm: float) -> None:
    found = angles(projected(30, 15, -20, distance_cm))
    assert found == pytest.approx([30, 15, -20], abs=2)


@pytest.mark.parametrize(
    "points_px",
    [
        np.zeros((5, 2)),
        np.full((5, 2), 300),
        np.full((5, 2), np.nan),
        np.full((5, 2), np.inf),
        np.full((5, 2), 1e30),
        np.arange(10).reshape(5, 2) * 9,
        np.repeat([[300, 300], [400, 400]], [4, 1], axis=0),
    ],
)
def test_points_that_tell_no_pose(points_px: ArrayLike) -> None:
    assert np.isnan(angles(points_px)).all()


def test_faces_without_points_have_no_angles_and_may_be_usable() -> None:
    angles_deg = {f"max_{name}_deg": 10 for name in ("yaw", "pitch", "roll")}
    limits = NO_LIMITS.model_copy(update=angles_deg)
    found = measure([portrait(1)], boxes([10, 10, 90, 90]), CARD, limits)
    assert np.isnan(found.yaw_deg).all()
    assert np.isnan(found.roll_deg).all()
    assert found.is_usable.all()


def test_size_is_the_longer_side() -> None:
    faces = boxes([10, 10, 40, 60], [0, 0, 80, 20], [5, 5, 5, 5])
    assert measure([portrait(1)], faces, CARD, Quality()).size_px.tolist() == [50, 80, 0]


def picture(side: int, sigma: float = 0) -> Bytes:
    """A pattern of the same content at any size, out of focus by a part of its side."""
    rng = np.random.default_rng(0)
    fine = cv2.resize(rng.integers(0, 256, (24, 24), np.uint8), (480, 480))
    if sigma:
        fine = cv2.GaussianBlur(fine, (0, 0), sigma * 480)
    small = cv2.resize(fine, (side, side), interpolation=cv2.INTER_AREA)
    return np.repeat(small[..., None], 3, axis=2)


def sharpness(rgb: Bytes) -> float:
    box = [0, 0, rgb.shape[1], rgb.shape[0]]
    return measure([rgb], boxes(box), CARD, Quality()).sharpness.item()


def test_sharpness_falls_with_blur_and_not_with_size() -> None:
    values = [sharpness(picture(240, sigma)) for sigma in (0, 0.01, 0.02, 0.05)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 20 * values[-1]
    assert [sharpness(picture(side)) for side in (96, 480)] == pytest.approx(
        [values[0]] * 2, rel=0.1
    )
    assert sharpness(np.full((90, 90, 3), 99, np.uint8)) == 0


def test_sharpness_does_not_depend_on_light_and_contrast() -> None:
    rgb = picture(240, 0.02)
    dark = (0.3 * rgb + 10).astype(np.uint8)
    assert sharpness(dark) == pytest.approx(sharpness(rgb), rel=0.1)


def test_brightness_is_a_fraction_of_white() -> None:
    frame = np.zeros((100, 300, 3), np.uint8)
    frame[:, 100:200], frame[:, 200:] = 51, 255
    faces = boxes([0, 0, 100, 100], [100, 0, 200, 100], [200, 0, 300, 100])
    assert measure([frame], faces, CARD, Quality()).brightness.tolist() == pytest.approx(
        [0, 0.2, 1]
    )


@pytest.mark.parametrize(
    "box, share",
    [
        ([10, 10, 50, 50], 0),
        ([0, 0, 20, 40], 0.25),
        ([60, 0, 100, 40], 0),
        ([0, 40, 100, 100], 0.2),
    ],
)
def test_edge_share(box: list[float], share: float) -> None:
    frame = np.zeros((100, 100, 3), np.uint8)
    found = measure([frame], boxes(box), CARD, Quality())
    assert found.edge_share.item() == pytest.approx(share, abs=0.05)


def test_edge_share_of_a_turned_crop() -> None:
    points = projected(0, 0, 45) - [300 - 75, 0]  # the centre is half a face from the left edge
    card = CARD.model_copy(update={"crop": "points"})
    faces = boxes([0, 225, 150, 375], points_px=[points])
    shares = [
        measure([np.zeros((600, 600, 3), np.uint8)], faces, each, Quality()).edge_share.item()
        for each in (CARD, card)
    ]
    assert shares[0] == 0
    assert 0.02 < shares[1] < 0.25


def test_limits_decide_what_is_usable_and_why() -> None:
    frame = np.full((100, 100, 3), 30, np.uint8)
    faces = boxes([0, 0, 40, 40], [20, 0, 90, 70])
    limits = NO_LIMITS.model_copy(update={"min_size_px": 50, "min_brightness": 0.1})
    found = measure([frame], faces, CARD, limits)
    assert found.is_usable.tolist() == [False, True]
    values = {name: getattr(found, name) for name in found.__slots__}
    reasons = {name: flags.tolist() for name, flags in unusable(values, limits).items()}
    assert reasons.pop("small") == [True, False]
    assert not any(map(any, reasons.values()))
    strict = limits.model_copy(update={"min_brightness": 0.5})
    assert measure([frame], faces, CARD, strict).is_usable.tolist() == [False] * 2


@pytest.mark.parametrize("side", [1, 2, 700])
@pytest.mark.parametrize("level", [0, 255])
def test_any_picture(side: int, level: int) -> None:
    faces = boxes(
        [0, 0, 1, 1], [side, side, side, side], [0, 0, side, side], points_px=np.zeros((3, 5, 2))
    )
    frame = np.full((side, side, 3), level, np.uint8)
    found = measure([frame], faces, CARD, Quality())
    assert found.brightness.tolist() == pytest.approx([level / 255] * 3)
    assert found.sharpness.tolist() == [0, 0, 0]
    assert ((found.edge_share >= 0) & (found.edge_share <= 1)).all()


def test_faces_of_several_frames_and_thousands_of_them() -> None:
    frames = [np.full((40, 60, 3), level, np.uint8) for level in (0, 51, 102)]
    many = boxes(*[[10, 10, 30, 30]] * 3000)
    faces = replace(many, frame_row=np.repeat(np.arange(3), 1000))
    found = measure(frames, faces, CARD, Quality())
    assert found.brightness.reshape(3, 1000).mean(axis=1).tolist() == pytest.approx([0, 0.2, 0.4])
    assert len(measure([], boxes(), CARD, Quality()).is_usable) == 0


@pytest.fixture(scope="module")
def face(shared: Path) -> Bytes:
    """A real face that looks to a side."""
    with Image.open(shared / "media/images/pd_obama_smile.jpg") as image:
        return np.asarray(image.convert("RGB").resize((600, 750)))


def test_real_face_mirrored_and_turned(face: Bytes) -> None:
    detector = build_detector(Detector(), torch.device("cpu"))

    def look(rgb: Bytes) -> NDArray[np.float32]:
        faces = detector.detect([rgb])
        faces = faces.take(slice(int(faces.score.argmax()), int(faces.score.argmax()) + 1))
        found = measure([rgb], faces, CARD, Quality())
        return np.array([found.yaw_deg, found.pitch_deg, found.roll_deg]).ravel()

    yaw, pitch, roll = look(face)
    assert abs(yaw) < 30
    assert abs(pitch) < 25
    mirrored = look(np.ascontiguousarray(face[:, ::-1]))
    np.testing.assert_allclose(mirrored, [-yaw, pitch, -roll], atol=6)
    height, width = face.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -20, 1)  # clockwise
    turned = look(cv2.warpAffine(face, turn, (width, height), borderMode=cv2.BORDER_REPLICATE))
    np.testing.assert_allclose(turned[[0, 2]], [yaw, roll + 20], atol=6)  # YuNet's tilt is less
