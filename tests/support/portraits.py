"""Pictures with a known number of real faces, each with its own number painted in."""

from collections.abc import Iterator

import cv2
import numpy as np
from skimage import data

from tests.support.clips import Rgb, paint_number

SIZE = (480, 300)
FACE_PX = 150
_FACE = cv2.resize(
    data.astronaut()[20:220, 124:324], (FACE_PX, FACE_PX), interpolation=cv2.INTER_AREA
)


def portrait(n_faces: int, number: int = 0) -> Rgb:
    """A picture (300, 480, 3) with `n_faces`, at most 3, side by side below its number."""
    rgb = np.full((SIZE[1], SIZE[0], 3), 150, np.uint8)
    for face in range(n_faces):
        left = face * 160 + 5 + number % 6
        rgb[-FACE_PX:, left : left + FACE_PX] = _FACE
    return paint_number(rgb, number)


def portraits(n_faces: int, count: int) -> Iterator[Rgb]:
    """Frames 0 to `count`, the faces moving a little."""
    return (portrait(n_faces, number) for number in range(count))
