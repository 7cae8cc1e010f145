"""Crops: position, size, edges, normalisation."""

import numpy as np
import pytest
import torch
from cards import card

from fer_batch.crop import crop
from fer_batch.schema import Faces


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
