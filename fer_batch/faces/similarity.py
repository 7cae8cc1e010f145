"""Similarity transforms of the plane: rotate, scale and shift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.complex128]
"""Points as complex numbers x + iy: multiplying rotates and scales."""

CENTRE = 0.5 + 0.5j
"""Of a pixel, from its upper left corner; also that of a square whose side is 1."""


def positions(points: NDArray[np.floating]) -> Positions:
    """Points (..., 2) of x and y as complex numbers (...)."""
    result: Positions = points @ np.array([1, 1j])
    return result


def coordinates(positions: Positions) -> NDArray[np.float64]:
    """Complex numbers (...) as points (..., 2) of x and y."""
    return np.stack([positions.real, positions.imag], axis=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Similarity:
    """M transforms ``z -> factor * z + shift`` of positions; a single one if M is left out."""

    factor: Positions
    """(M,): its length scales, its angle rotates."""
    shift: Positions
    """(M,)."""

    def __getitem__(self, row: int) -> Similarity:
        return Similarity(self.factor[row], self.shift[row])

    def __call__(self, positions: Positions) -> Positions:
        """Where positions (M, ...) are moved to; (1, ...) are the same for all transforms."""
        axes = (..., *[None] * (positions.ndim - 1))
        moved: Positions = self.factor[axes] * positions + self.shift[axes]
        return moved

    def inverse(self) -> Similarity:
        """The transforms back."""
        return Similarity(1 / self.factor, -self.shift / self.factor)

    def matrix(self) -> NDArray[np.float64]:
        """The (2, 3) matrix of a single transform, as `cv2.warpAffine` takes it.

        OpenCV places the centre of the first pixel at 0, a `Similarity` its upper left corner.
        """
        shift = self.shift + (self.factor - 1) * CENTRE
        return np.array(
            [
                [self.factor.real, -self.factor.imag, shift.real],
                [self.factor.imag, self.factor.real, shift.imag],
            ]
        )


def locate(template: Positions, points: Positions) -> Similarity:
    """Where each of M faces shows a template.

    Args:
        template: (K,).
        points: (M, K) of the same K points in each face.

    Returns:
        M transforms of the template to the faces. Their inverses move the points closest to the
        template (least squares; Umeyama, 1991). Not finite where points do not differ.
    """
    middle = points.mean(axis=1)
    spread = points - middle[:, None]
    size = (abs(spread) ** 2).sum(axis=1)
    factor = size / (spread.conj() @ (template - template.mean()))
    return Similarity(factor, middle - factor * template.mean())
