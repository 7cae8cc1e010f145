"""Faces cut out of frames, as the square grey crops that a classifier takes."""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from cv2.typing import MatLike
from torch import Tensor

from fer_batch.faces.similarity import Similarity, coordinates, locate, positions
from fer_batch.models.card import Card
from fer_batch.records import Bytes, Faces, Floats, Frames

TEMPLATE_PX = (
    (38.2946, 73.5318, 56.0252, 41.5493, 70.7299),
    (51.6963, 51.5014, 71.7366, 92.3655, 92.2041),
)
"""ArcFace's five points (Deng et al., 2019): columns and rows in a crop of 112x112 pixels."""


def crop(frames: Frames, faces: Faces, card: Card) -> Tensor:
    """Cut every face out of its full-size frame and prepare it as the card says.

    By box: a box becomes a square around its centre, widened by the card's margin. By points: the
    square is rotated, scaled and shifted so that the face's points lie closest to the template's
    (least squares); a face whose points contradict its box is cut by its box. Where a square leaves
    the frame, the frame's edge is repeated. Only the pixels of the faces are converted, so the cost
    does not grow with the size of the frame.

    Args:
        frames: Upright pictures.
        faces: M faces; ``frame_row`` is the position in `frames`.
        card: Says how to cut: by box or points, size, margin, channels, mean and std.

    Returns:
        (M, C, S, S) float32 on the CPU, normalised.

    Raises:
        ValueError: The card wants points and the faces have none.
    """
    side = card.input_size_px
    grey = np.empty((len(faces), side, side), np.uint8)
    aligned = _align(faces, card)
    for row, (frame_row, box) in enumerate(zip(faces.frame_row, faces.box_px, strict=True)):
        frame = frames[int(frame_row)]
        if np.isnan(aligned.factor[row]):
            grey[row] = cut_box(frame, box, card.crop_margin, side)
        else:
            grey[row] = _cut_aligned(frame, aligned[row], side)
    return normalise(grey, card)


def squares(faces: Faces, card: Card) -> Similarity:
    """The squares that `crop` cuts out.

    Returns:
        For each of M faces the transform of a square with centre 0 and side 1 to the frame, in
        pixels: the square's centre is the shift, its upper edge the factor.

    Raises:
        ValueError: The card wants points and the faces have none.
    """
    aligned = _align(faces, card)
    for row in np.flatnonzero(np.isnan(aligned.factor)):
        left, top, size = _box_square(faces.box_px[row], card.crop_margin)
        aligned.shift[row] = complex(left + size / 2, top + size / 2)
        aligned.factor[row] = size
    return aligned


def normalise(grey: Bytes, card: Card) -> Tensor:
    """Grey faces (M, S, S) uint8 as the card's classifier takes them: (M, C, S, S) float32."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (card.mean, card.std))
    return (torch.from_numpy(grey)[:, None] / 255 - mean) / std


def cut_box(frame: Bytes, box: Floats, margin: float, side: int) -> Bytes:
    """The square around a box (4,), widened by a margin, in grey at a size (side, side) uint8."""
    height, width = frame.shape[:2]
    left, top, size = _box_square(box, margin)
    right, bottom = left + size, top + size
    grey, _ = _grey(frame, left, top, right, bottom)
    beyond = (max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width))
    return _resize(cv2.copyMakeBorder(grey, *beyond, cv2.BORDER_REPLICATE), side)


def _box_square(box: Floats, margin: float) -> tuple[int, int, int]:
    """Left edge, upper edge and side of the square around a box."""
    x1, y1, x2, y2 = (float(edge) for edge in box)
    size = max(1, round(max(x2 - x1, y2 - y1) * (1 + 2 * margin)))
    return round((x1 + x2 - size) / 2), round((y1 + y2 - size) / 2), size


def _align(faces: Faces, card: Card) -> Similarity:
    """The `squares` of the faces that are cut by points.

    The factor is NaN where the box decides: for all faces if the card says so, else for those whose
    square has its centre outside the box, or is less than half or more than twice as large.
    """
    if card.crop == "box":
        nothing = np.full(len(faces), np.nan, complex)
        return Similarity(nothing, nothing.copy())
    if faces.points_px is None:
        raise ValueError(f"{card.name} takes faces aligned by points, and these have none")
    template = positions((np.array(TEMPLATE_PX).T + 0.5) / 112 - 0.5)
    with np.errstate(divide="ignore", invalid="ignore"):  # points may be equal or infinite
        square = locate(template, positions(faces.points_px))
    centre_px = coordinates(square.shift)
    first, last = faces.box_px[:, :2], faces.box_px[:, 2:]
    size = (last - first).max(axis=1)
    agrees = ((first <= centre_px) & (centre_px <= last)).all(axis=1)
    agrees &= (abs(square.factor) >= size / 2) & (abs(square.factor) <= size * 2)
    factor = np.where(agrees, square.factor * (1 + 2 * card.crop_margin), np.nan)
    return Similarity(factor, square.shift)


def _cut_aligned(frame: Bytes, square: Similarity, side: int) -> Bytes:
    corners = square.shift + square.factor * np.array([-1 - 1j, 1 - 1j, -1 + 1j, 1 + 1j]) / 2
    left, top = math.floor(corners.real.min()) - 1, math.floor(corners.imag.min()) - 1
    right, bottom = math.floor(corners.real.max()) + 2, math.floor(corners.imag.max()) + 2
    grey, origin = _grey(frame, left, top, right, bottom)
    fine = side * max(1, math.ceil(abs(square.factor) / side))  # skips no pixel of the frame
    turned = cv2.warpAffine(
        grey,
        Similarity(square.factor / fine, corners[0] - origin).matrix(),
        (fine, fine),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return _resize(turned, side)


def _grey(frame: Bytes, left: int, top: int, right: int, bottom: int) -> tuple[Bytes, complex]:
    """The part of a frame in a rectangle, at least one pixel, and the position of its corner."""
    height, width = frame.shape[:2]
    x, y = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    inside = frame[y : min(max(bottom, 1), height), x : min(max(right, 1), width)]
    grey = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY).astype(np.uint8, copy=False)
    return grey, complex(x, y)


def _resize(grey: MatLike, side: int) -> Bytes:
    shrinks = grey.shape[0] > side
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(grey, (side, side), interpolation=interpolation).astype(np.uint8, copy=False)
