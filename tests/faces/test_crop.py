"""Crops by box and by points: position, size, turn, edges, normalisation."""

import cmath
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fer_batch.faces.crop import crop
from fer_batch.models.card import ModelCard
from fer_batch.records import Faces
from tests.support.cards import card


def faces(*boxes: tuple[float, float, float, float], rows: list[int] | None = None) -> Faces:
    return Faces(
        frame_row=np.array(rows or [0] * len(boxes), np.int64),
        box_px=np.array(boxes, np.float32).reshape(-1, 4),
        score=np.ones(len(boxes), np.float32),
    )


def ramp(height: int = 200, width: int = 300) -> np.ndarray:
    """Brightness grows by one level per three columns."""
    line = np.arange(width) // 3
    return np.broadcast_to(line[None, :, None], (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("side", [24, 48, 96])
def test_crop_holds_what_is_in_the_box(side: int) -> None:
    pixels = crop([ramp()], faces((100, 20, 100 + side, 20 + side)), card())[0, 0].numpy() * 255
    expected = (100 + (np.arange(48) + 0.5) * side / 48 - 0.5) / 3
    np.testing.assert_allclose(pixels.mean(axis=0), expected, atol=1)


def test_margin_widens_the_square() -> None:
    tight, wide = (
        crop([ramp()], faces((120, 60, 180, 120)), card(crop_margin=margin)) for margin in (0, 0.25)
    )
    spread = [float(pixels.max() - pixels.min()) for pixels in (tight, wide)]
    assert spread[1] / spread[0] == pytest.approx(1.5, rel=0.05)


def test_long_box_becomes_a_square_around_its_centre() -> None:
    square = crop([ramp()], faces((100, 50, 200, 150)), card())
    long = crop([ramp()], faces((130, 50, 170, 150)), card())
    torch.testing.assert_close(long, square)


@pytest.mark.parametrize(
    "box", [(-40, -40, 40, 40), (260, 160, 340, 240), (-50, -50, 350, 250), (299, 199, 300, 200)]
)
def test_what_leaves_the_frame_repeats_its_edge(box: tuple[float, float, float, float]) -> None:
    grey = np.full((200, 300, 3), 128, np.uint8)
    pixels = crop([grey], faces(box), card())
    torch.testing.assert_close(pixels, torch.full((1, 1, 48, 48), 128 / 255))


def test_card_decides_size_channels_and_normalisation() -> None:
    white = np.full((50, 50, 3), 255, np.uint8)
    wanted = card(input_size_px=64, mean=(0.5, 0.4, 0.0), std=(0.25, 0.5, 1.0))
    pixels = crop([white], faces((0, 0, 50, 50)), wanted)
    assert pixels.shape == (1, 3, 64, 64)
    torch.testing.assert_close(pixels.mean((0, 2, 3)), torch.tensor([2.0, 1.2, 1.0]))


def test_batch_equals_one_by_one_over_frames_of_several_sizes() -> None:
    frames = [ramp(100, 120), ramp(300, 200)]
    boxes = [(10.0, 10.0, 60.0, 60.0), (0.0, 0.0, 30.0, 30.0), (50.0, 90.0, 150.0, 190.0)]
    together = crop(frames, faces(*boxes, rows=[0, 0, 1]), card())
    alone = [
        crop([frames[row]], faces(box), card()) for row, box in zip([0, 0, 1], boxes, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))


def test_no_faces_no_crops() -> None:
    assert crop([ramp()], faces(), card()).shape == (0, 1, 48, 48)


def test_only_the_pixels_of_the_face_are_touched() -> None:
    endless = np.broadcast_to(np.uint8(77), (200_000, 200_000, 3))  # 120 GB, were it copied
    face = aligned_faces(side=90, turn=0.3, corner=150_000 + 90_000j)
    for cut_by in ("box", "points"):
        pixels = crop([endless], face, card(crop=cut_by))
        torch.testing.assert_close(pixels, torch.full((1, 1, 48, 48), 77 / 255))


ARCFACE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""Of a picture of 112x112 pixels, whose first pixel's centre is at (0, 0)."""


def picture(place: np.ndarray) -> np.ndarray:
    """Brightness at places of the template's square, whose corners are 0, 1, 1j and 1 + 1j."""
    waves = np.sin(2 * np.pi * 1.6 * place.real) + np.sin(2 * np.pi * (place.imag + place.real / 3))
    return 128 + 50 * waves


def painted(height: int, width: int, *, side: float, turn: float, corner: complex) -> np.ndarray:
    """A frame that shows `picture` in a square that was scaled, turned (radians) and moved."""
    row, column = np.mgrid[:height, :width] + 0.5
    grey = picture((column + 1j * row - corner) / cmath.rect(side, turn))
    return np.repeat(np.rint(grey).astype(np.uint8)[..., None], 3, axis=2)


def aligned_faces(*, side: float, turn: float, corner: complex) -> Faces:
    """One face whose points are exactly the template's, after the same movement."""
    points = (ARCFACE + 0.5) / 112 @ [1, 1j] * cmath.rect(side, turn) + corner
    centre = corner + cmath.rect(side, turn) * (0.5 + 0.5j)
    x, y, half = centre.real, centre.imag, side * 0.45
    box = faces((x - half, y - half, x + half, y + half))
    return with_points(box, np.stack([points.real, points.imag], axis=1))


def with_points(box: Faces, *points: np.ndarray) -> Faces:
    return Faces(box.frame_row, box.box_px, box.score, np.array(points, np.float32))


def expected(card: ModelCard) -> np.ndarray:
    """What an aligned crop of `painted` shows."""
    line = (np.arange(card.input_size_px) + 0.5) / card.input_size_px
    line = line * (1 + 2 * card.crop_margin) - card.crop_margin
    return picture(line[None] + 1j * line[:, None])


def test_points_of_the_template_give_the_picture_itself() -> None:
    place = {"side": 112, "turn": 0.0, "corner": 0j}
    frame, face = painted(112, 112, **place), aligned_faces(**place)
    pixels = crop([frame], face, card(crop="points", input_size_px=112))[0, 0].numpy() * 255
    np.testing.assert_allclose(pixels, frame[..., 0], atol=1)


@pytest.mark.parametrize("turn", [0, 30, -75, 180])
@pytest.mark.parametrize("side, margin", [(30, 0), (60.7, 0), (130, 0.2), (400.5, -0.1)])
def test_moved_turned_and_scaled_faces_give_the_same_crop(
    turn: float, side: float, margin: float
) -> None:
    middle = 350.3 + 360.8j - cmath.rect(side, math.radians(turn)) * (0.5 + 0.5j)
    place = {"side": side, "turn": math.radians(turn), "corner": middle}
    wanted = card(crop="points", crop_margin=margin)
    pixels = crop([painted(700, 720, **place)], aligned_faces(**place), wanted)[0, 0].numpy()
    np.testing.assert_allclose(pixels * 255, expected(wanted), atol=3)


def test_the_transform_is_the_least_squares_one() -> None:
    """Noisy points give the crop of the best similarity, as found by numpy's solver."""
    noise = np.random.default_rng(1).normal(0, 4, (5, 2))
    points = ARCFACE * 1.5 + 60 + noise
    rows = [[x, -y, 1, 0] for x, y in points] + [[y, x, 0, 1] for x, y in points]
    template = (ARCFACE + 0.5) / 112
    a, b, c, d = np.linalg.lstsq(np.array(rows), template.T.ravel(), rcond=None)[0]
    edge = 1 / complex(a, b)
    place = {"side": abs(edge), "turn": cmath.phase(edge), "corner": -complex(c, d) * edge}
    face = with_points(faces((60, 60, 228, 228)), points)
    wanted = card(crop="points")
    pixels = crop([painted(300, 300, **place)], face, wanted)[0, 0].numpy()
    np.testing.assert_allclose(pixels * 255, expected(wanted), atol=3)


@pytest.mark.parametrize("corner", [-40 - 30j, 230 - 20j, 210 + 140j])
def test_aligned_crop_repeats_the_edge_of_the_frame(corner: complex) -> None:
    place = {"side": 100.0, "turn": math.radians(10), "corner": corner}
    pixels = crop([painted(200, 300, **place)], aligned_faces(**place), card(crop="points"))
    line = (np.arange(48) + 0.5) / 48
    turned = cmath.rect(100, math.radians(10))
    shown = corner + turned * (line[None] + 1j * line[:, None])
    shown = np.clip(shown.real, 0.5, 299.5) + 1j * np.clip(shown.imag, 0.5, 199.5)
    np.testing.assert_allclose(
        pixels[0, 0].numpy() * 255, picture((shown - corner) / turned), atol=3
    )


@pytest.mark.parametrize("side", [150, 300, 777])
@pytest.mark.parametrize("turn", [0, 17, 45])
def test_large_faces_do_not_alias(side: float, turn: float) -> None:
    board = (np.indices((1000, 1000)).sum(axis=0) % 2 * 255).astype(np.uint8)
    frame = np.repeat(board[..., None], 3, axis=2)
    turned = cmath.rect(side, math.radians(turn))
    face = aligned_faces(
        side=side, turn=math.radians(turn), corner=500.3 + 500.1j - turned * (0.5 + 0.5j)
    )
    pixels = crop([frame], face, card(crop="points")).numpy() * 255
    np.testing.assert_allclose(pixels, 127.5, atol=13)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda points: points * 0 + points[2],
        lambda points: points * 0,
        lambda points: points + 1e4,
        lambda points: points + 1e30,
        lambda points: points * np.inf,
        lambda points: points * np.nan,
        lambda points: (points - points[2]) * 0.1 + points[2],
        lambda points: (points - points[2]) * 2.8 + points[2],
        lambda points: points[[1, 0, 2, 4, 3]],
    ],
    ids=["one", "zero", "far", "very far", "inf", "nan", "tiny", "huge", "mirrored"],
)
def test_points_that_contradict_the_box_leave_it_to_the_box(
    spoil: Callable[[np.ndarray], np.ndarray],
) -> None:
    place = {"side": 90.0, "turn": 0.2, "corner": 60 + 50j}
    frame, face = painted(200, 300, **place), aligned_faces(**place)
    with np.errstate(invalid="ignore"):
        spoilt = with_points(face, spoil(face.points_px[0]))
    by_box, by_points = (crop([frame], spoilt, card(crop=by)) for by in ("box", "points"))
    torch.testing.assert_close(by_points, by_box, rtol=0, atol=0)
    assert not torch.equal(crop([frame], face, card(crop="points")), by_box)


@pytest.mark.parametrize("axis", [0, 1])
def test_points_in_a_line_give_a_crop(axis: int) -> None:
    place = {"side": 90.0, "turn": 0.0, "corner": 60 + 50j}
    points = aligned_faces(**place).points_px[0].copy()
    points[:, axis] = points[2, axis]
    face = with_points(aligned_faces(**place), points)
    pixels = crop([painted(200, 300, **place)], face, card(crop="points"))
    assert ((pixels >= 0) & (pixels <= 1)).all()


def test_aligned_batch_equals_one_by_one() -> None:
    places = [
        {"side": 90.0, "turn": 0.2, "corner": 60 + 50j},
        {"side": 150.0, "turn": -0.4, "corner": 20 + 90j},
        {"side": 30.0, "turn": 2.0, "corner": 100 + 100j},
    ]
    frames = [painted(200 + 40 * row, 300, **place) for row, place in enumerate(places)]
    singles = [aligned_faces(**place) for place in places]
    singles[1] = with_points(singles[1], np.zeros((5, 2)))
    together = Faces(
        frame_row=np.arange(3),
        box_px=np.concatenate([face.box_px for face in singles]),
        score=np.ones(3, np.float32),
        points_px=np.concatenate([face.points_px for face in singles]),
    )
    wanted = card(crop="points", crop_margin=0.1)
    alone = [crop([frame], face, wanted) for frame, face in zip(frames, singles, strict=True)]
    torch.testing.assert_close(crop(frames, together, wanted), torch.cat(alone), rtol=0, atol=0)


def test_no_aligned_faces_no_crops() -> None:
    nobody = Faces(np.empty(0, np.int64), *(np.empty(n, "f4") for n in [(0, 4), 0, (0, 5, 2)]))
    assert crop([ramp()], nobody, card(crop="points")).shape == (0, 1, 48, 48)


def test_faces_without_points_cannot_be_aligned() -> None:
    with pytest.raises(ValueError, match=r"tiny .* points"):
        crop([ramp()], faces((10, 10, 60, 60)), card(crop="points"))
