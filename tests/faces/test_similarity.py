"""Similarity transforms: what they do to points and pixels, and that no crop changed by them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from fer_batch.faces.crop import TEMPLATE_PX, crop
from fer_batch.faces.similarity import Similarity, coordinates, locate, positions
from fer_batch.records import Faces
from tests.support.cards import card

TEMPLATE = positions(np.array(TEMPLATE_PX).T)


def some(n: int) -> Similarity:
    random = np.random.default_rng(n)
    factor = random.uniform(0.5, 5, n) * np.exp(1j * random.uniform(-np.pi, np.pi, n))
    return Similarity(factor, random.uniform(-500, 500, n) + 1j * random.uniform(-500, 500, n))


def test_points_and_positions_are_the_same() -> None:
    points = np.random.default_rng(0).normal(size=(3, 5, 2)).astype(np.float32)
    assert positions(points).tolist() == (points[..., 0] + 1j * points[..., 1]).tolist()
    np.testing.assert_array_equal(coordinates(positions(points)), points)


def test_template_is_located_and_the_inverse_leads_back() -> None:
    place = some(6)
    points = place(TEMPLATE[None])
    assert points.shape == (6, 5)
    found = locate(TEMPLATE, points)
    np.testing.assert_allclose(found.factor, place.factor)
    np.testing.assert_allclose(found.shift, place.shift)
    np.testing.assert_allclose(found.inverse()(points), np.tile(TEMPLATE, (6, 1)))


def test_inverse_moves_points_closest_to_the_template() -> None:
    random = np.random.default_rng(1)
    noise = random.normal(size=(1, 5)) + 1j * random.normal(size=(1, 5))
    points = some(1)(TEMPLATE[None]) + 20 * noise
    best = locate(TEMPLATE, points).inverse()

    def error(transform: Similarity) -> float:
        return float((abs(transform(points) - TEMPLATE) ** 2).sum())

    for change in (1e-3, -1e-3, 1e-3j, -1e-3j):
        assert error(best) < error(Similarity(best.factor * (1 + change), best.shift))
        assert error(best) < error(Similarity(best.factor, best.shift + 100 * change))


def test_matrix_moves_the_centres_of_pixels() -> None:
    quarter = Similarity(np.complex128(1j), np.complex128(3))  # a quarter turn within 3 x 3 pixels
    pixels = np.arange(9, dtype=np.float32).reshape(3, 3)
    turned = cv2.warpAffine(pixels, quarter.matrix(), (3, 3))
    np.testing.assert_array_equal(turned, np.rot90(pixels, -1))


def by_hand(frame: np.ndarray, points: np.ndarray, side: int) -> np.ndarray:
    """An aligned crop as it was cut before `Similarity` existed; its square lies in the frame."""
    template = [1, 1j] @ ((np.array(TEMPLATE_PX) + 0.5) / 112 - 0.5)
    z = points @ np.array([1, 1j])
    spread = z - z.mean()
    edge = (abs(spread) ** 2).sum() / (spread.conj() @ (template - template.mean()))
    corners = (
        z.mean() - edge * template.mean() + edge * np.array([-1 - 1j, 1 - 1j, -1 + 1j, 1 + 1j]) / 2
    )
    left, top = (int(np.floor(part.min())) - 1 for part in (corners.real, corners.imag))
    right, bottom = (int(np.floor(part.max())) + 2 for part in (corners.real, corners.imag))
    grey = cv2.cvtColor(frame[top:bottom, left:right], cv2.COLOR_RGB2GRAY)
    fine = side * max(1, int(np.ceil(abs(edge) / side)))
    step = edge / fine
    start = corners[0] - complex(left, top) + (step - 1) * (0.5 + 0.5j)
    matrix = np.array([[step.real, -step.imag, start.real], [step.imag, step.real, start.imag]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    turned = cv2.warpAffine(
        grey, matrix, (fine, fine), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    shrinks = fine > side
    return cv2.resize(
        turned, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )


@pytest.mark.parametrize(
    "name", ["pd_obama_smile.jpg", "pd_apollo11_crew.jpg", "liveportrait_d8.jpg"]
)
def test_crops_are_those_of_the_formula_written_out(shared: Path, name: str) -> None:
    frame = np.asarray(Image.open(shared / "media/images" / name).convert("RGB"))
    height, width = frame.shape[:2]
    random = np.random.default_rng(0)
    n, room = 50, min(height, width)
    side = random.uniform(0.03, 0.3, n) * room
    centre = random.uniform(0.3, 0.7, (n, 2)) * [width, height]
    turn = np.exp(1j * random.normal(0, 0.4, n))
    points = Similarity(turn * side / 112, positions(centre))(TEMPLATE[None] - 56 * (1 + 1j))
    noise = random.normal(0, 0.02, (n, 5, 2)) * side[:, None, None]
    points_px = (coordinates(points) + noise).astype(np.float32)
    found = Faces(
        frame_row=np.zeros(n, np.int64),
        box_px=np.hstack([centre - side[:, None] / 2, centre + side[:, None] / 2]).astype("f4"),
        score=np.ones(n, np.float32),
        points_px=points_px,
    )
    crops = crop([frame], found, card(crop="points"))
    expected = np.stack([by_hand(frame, each, 48) for each in points_px])
    torch.testing.assert_close(crops[:, 0], torch.from_numpy(expected) / 255, rtol=0, atol=0)
