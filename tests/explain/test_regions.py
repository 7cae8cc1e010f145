"""Where the parts of a face are in its crop."""

import numpy as np
import pytest

from fer_batch.explain.regions import FER_POINTS, REGIONS, aligned, masks, points_in_crops
from fer_batch.faces.crop import TEMPLATE_PX, crop
from fer_batch.records import Faces
from tests.support.cards import card

SIDE = 48
USUAL = SIDE * np.array([FER_POINTS], np.float32)


def one_face(points_px: np.ndarray | None, box: tuple[float, float, float, float]) -> Faces:
    return Faces(
        frame_row=np.zeros(1, np.int64),
        box_px=np.array([box], np.float32),
        score=np.ones(1, np.float32),
        points_px=None if points_px is None else points_px.astype(np.float32).reshape(1, 5, 2),
    )


def turned(points: np.ndarray, degrees: float, scale: float, shift: complex) -> np.ndarray:
    places = points @ [1, 1j] * scale * np.exp(1j * np.radians(degrees)) + shift
    return np.stack([places.real, places.imag], axis=-1)


@pytest.mark.parametrize("cut", ["box", "points"])
def test_points_are_where_the_crop_shows_them(cut: str) -> None:
    """The frame is black but for one bright point at a time."""
    template = np.array(TEMPLATE_PX).T
    points = turned(template, 12, 2.0, 80 + 60j)
    face = one_face(points, (110, 100, 290, 280))
    own = card(crop=cut, crop_margin=0.1)
    [found] = points_in_crops(face, own)
    y, x = np.mgrid[:400, :400]
    for point, place in zip(points, found, strict=True):
        blob = 255 * np.exp(-((x + 0.5 - point[0]) ** 2 + (y + 0.5 - point[1]) ** 2) / 50)
        frame = np.repeat(blob.astype(np.uint8)[..., None], 3, axis=2)
        pixels = crop([frame], face, own)[0, 0].numpy()
        middle = np.average(np.mgrid[:SIDE, :SIDE].reshape(2, -1), axis=1, weights=pixels.ravel())
        np.testing.assert_allclose(middle[::-1] + 0.5, place, atol=0.4)


@pytest.mark.parametrize("points", [None, np.full((5, 2), np.nan)], ids=["none", "null"])
def test_unknown_points_are_where_they_usually_are(points: np.ndarray | None) -> None:
    face = one_face(points, (0, 0, 100, 100))
    np.testing.assert_allclose(points_in_crops(face, card()), USUAL)


def test_points_of_aligned_pictures_are_those_of_the_template() -> None:
    points = np.array(TEMPLATE_PX).T + 0.5  # in a frame that is the template itself
    own = card(crop="points", crop_margin=0.2)
    known = points_in_crops(one_face(points, (0, 0, 112, 112)), own)
    usual = points_in_crops(one_face(None, (0, 0, 112, 112)), own)
    np.testing.assert_allclose(known, usual, atol=0.5)


def test_regions_are_apart_and_around_their_points() -> None:
    inside = dict(zip(REGIONS, masks(USUAL, SIDE)[0], strict=True))
    assert sum(inside.values()).max() == 1, "no pixel in two of them"
    x, y = USUAL[0].astype(int).T
    assert inside["eyes"][y[:2], x[:2]].all()
    assert inside["mouth"][y[3:], x[3:]].all()
    assert inside["brows"][y[:2] - 6, x[:2]].all()
    corners = np.ix_([0, -1], [0, -1])
    assert inside["outside"][corners].all()
    assert not any(mask[y[2], x[2]] for mask in inside.values()), "the nose is in none"


def test_regions_and_pictures_follow_the_points() -> None:
    points = turned(USUAL - SIDE / 2, 25, 0.7, SIDE / 2 * (1 + 1j) + 2).astype(np.float32)
    moved = masks(points, SIDE).astype(np.float32)
    straight = masks(USUAL, SIDE)[0]
    for mask, expected in zip(moved[0], straight, strict=True):
        [back] = aligned(mask[None], points)
        assert (back > 0.5)[expected].mean() > 0.9
        assert (back > 0.5)[~expected].mean() < 0.05


def test_nothing_moves_where_points_are_unknown() -> None:
    pictures = np.random.default_rng(0).random((2, SIDE, SIDE), np.float32)
    np.testing.assert_allclose(aligned(pictures, np.repeat(USUAL, 2, axis=0)), pictures, atol=1e-4)
