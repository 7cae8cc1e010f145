"""Regions of a face in its crop, and crops aligned with each other, from the face's five points."""

from __future__ import annotations

import cv2
import numpy as np

from fer_batch.faces.crop import TEMPLATE_PX, squares
from fer_batch.faces.similarity import (
    CENTRE,
    Positions,
    Similarity,
    coordinates,
    locate,
    positions,
)
from fer_batch.models.card import Card
from fer_batch.records import Bools, Faces, Floats

FER_POINTS = ((0.311, 0.380), (0.677, 0.378), (0.484, 0.595), (0.348, 0.747), (0.645, 0.746))
"""Median (x, y) of the five points that YuNet finds in 5,918 pictures of FER+ (validation and
test), as a fraction of the picture's side (`benchmarks/fer_points.py`)."""

REGIONS = ("mouth", "eyes", "brows", "outside")
"""Parts of a crop that do not overlap; ``outside`` is everything beyond the face."""

_Ellipse = tuple[float, float, float, float]
_ELLIPSES: dict[str, tuple[_Ellipse, ...]] = {
    "mouth": ((0.494, 0.760, 0.225, 0.135),),
    "eyes": ((0.311, 0.379, 0.125, 0.072), (0.677, 0.379, 0.125, 0.072)),
    "brows": ((0.305, 0.255, 0.155, 0.050), (0.683, 0.255, 0.155, 0.050)),
    "face": ((0.494, 0.530, 0.420, 0.560),),
}
"""Centre (x, y) and half axes in a crop whose points lie at `FER_POINTS`; chosen by eye on the mean
faces of FER+."""


def points_in_crops(faces: Faces, card: Card) -> Floats:
    """The five points of each face in its crop.

    Unknown points are assumed to lie at `FER_POINTS` or, if the crops are cut by points, as in
    ArcFace's template.

    Args:
        faces: M faces.
        card: Says how their crops were cut.

    Returns:
        (M, 5, 2) float32 in pixels of the crop.
    """
    assumed = np.tile(_assumed_points(card), (len(faces), 1, 1))
    if faces.points_px is None:
        return assumed
    inside = squares(faces, card).inverse()(positions(faces.points_px)) + CENTRE
    known = card.input_size_px * coordinates(inside)
    return np.where(np.isnan(known), assumed, known).astype(np.float32)


def masks(points_px: Floats, side_px: int) -> Bools:
    """The pixels of a crop that belong to each region.

    Args:
        points_px: (M, 5, 2) from `points_in_crops`.
        side_px: Side of the crops.

    Returns:
        (M, 4, S, S), True in the region, in the order of `REGIONS`.
    """
    middles = np.arange(side_px) + 0.5
    pixels = middles[None, :] + 1j * middles[:, None]
    fer_pixels = _to_fer(points_px)(pixels[None])
    found = {name: _inside(fer_pixels, ellipses) for name, ellipses in _ELLIPSES.items()}
    found["outside"] = ~found["face"]
    return np.stack([found[name] for name in REGIONS], axis=1)


def aligned(pictures: Floats, points_px: Floats) -> Floats:
    """Crops or their maps, moved so that the points lie as in FER's pictures.

    They are rotated, scaled and shifted; beyond the edge of a picture, its edge is repeated.

    Args:
        pictures: (M, S, S) float32.
        points_px: (M, 5, 2) from `points_in_crops`.

    Returns:
        (M, S, S) float32.
    """
    side = pictures.shape[1]
    to_fer = _to_fer(points_px)
    result = np.empty_like(pictures)
    for row, picture in enumerate(pictures):
        to_pixels = Similarity(side * to_fer.factor[row], side * to_fer.shift[row])
        result[row] = cv2.warpAffine(
            picture, to_pixels.matrix(), (side, side), borderMode=cv2.BORDER_REPLICATE
        )
    return result


def _assumed_points(card: Card) -> Floats:
    side = card.input_size_px
    if card.crop == "box":
        return np.array(FER_POINTS, np.float32) * side
    template = (np.array(TEMPLATE_PX, np.float32).T + 0.5) / 112 - 0.5
    return (side * (template / (1 + 2 * card.crop_margin) + 0.5)).astype(np.float32)


def _to_fer(points_px: Floats) -> Similarity:
    """The transforms that move the points of each face closest to `FER_POINTS`."""
    return locate(positions(np.array(FER_POINTS)), positions(points_px)).inverse()


def _inside(pixels: Positions, ellipses: tuple[_Ellipse, ...]) -> Bools:
    found = np.zeros(pixels.shape, np.bool_)
    for x, y, half_width, half_height in ellipses:
        found |= ((pixels.real - x) / half_width) ** 2 + ((pixels.imag - y) / half_height) ** 2 <= 1
    return found
