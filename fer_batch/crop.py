"""Boxes -> the square grey crops that a network takes."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from fer_batch.card import ModelCard
from fer_batch.schema import Bytes, Faces, Floats, Frames


def crop(frames: Frames, faces: Faces, card: ModelCard) -> Tensor:
    """Cut every face out of its full-size frame and prepare it as the card says.

    A box becomes a square around its centre, widened by the card's margin; where that leaves the
    frame, the frame's edge is repeated. Only the faces' own pixels are converted, and only the
    crops travel to the device, so the cost does not grow with the size of the frame.

    Args:
        frames: Upright pictures.
        faces: M faces; ``frame_row`` points into `frames`.
        card: Size, channels, margin, mean and std of the crops.

    Returns:
        (M, C, S, S) float32 on the CPU, normalised.
    """
    side = card.input_size_px
    grey = np.empty((len(faces), side, side), np.uint8)
    for row, (frame_row, box) in enumerate(zip(faces.frame_row, faces.box_px, strict=True)):
        grey[row] = _square(frames[int(frame_row)], box, card.crop_margin, side)
    return normalise(grey, card)


def normalise(grey: Bytes, card: ModelCard) -> Tensor:
    """Grey faces (M, S, S) uint8 to what the card's network takes: (M, C, S, S) float32."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    return (torch.from_numpy(grey)[:, None] / 255 - mean) / std


def _square(frame: Bytes, box: Floats, margin: float, side: int) -> Bytes:
    height, width = frame.shape[:2]
    x1, y1, x2, y2 = (float(edge) for edge in box)
    size = max(1, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin)))
    left, top = round((x1 + x2 - size) / 2), round((y1 + y2 - size) / 2)
    right, bottom = left + size, top + size
    inside = frame[
        np.clip(top, 0, height - 1) : np.clip(bottom, 1, height),
        np.clip(left, 0, width - 1) : np.clip(right, 1, width),
    ]
    grey = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)
    beyond = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    if any(beyond):
        grey = cv2.copyMakeBorder(grey, *beyond, cv2.BORDER_REPLICATE)
    shrinks = grey.shape[0] > side
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(grey, (side, side), interpolation=interpolation).astype(np.uint8, copy=False)
