"""Faces hidden behind large pixels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fer_batch.records import Bytes, Floats
from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation

CELLS, SMALLEST_CELL_PX = 7, 4
"""Large pixels along a face's box, fewer in a small face."""
_WIDTH, _HEIGHT, _RAISED = 1.3, 1.5, 0.05
"""Axes of the hidden ellipse, and how far its centre is above that of the box, in sides of the box.
Boxes of detectors end at the eyebrows or the hairline, and at the cheeks."""


class HiddenFaces(Layer):
    """Hides each face, also one that was not found in this very frame."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Hide them."""
        hidden_px = annotation.box_px if annotation.hidden_px is None else annotation.hidden_px
        for box_px in hidden_px:
            hide(canvas.rgb, box_px)


def hide(frame: Bytes, box_px: Floats) -> None:
    """Hide a face and what is close around it, in place.

    Args:
        frame: (H, W, 3) uint8.
        box_px: (4,) x1 y1 x2 y2 of the face.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box_px)
    width, height = x2 - x1, y2 - y1
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2 - _RAISED * height])
    half = np.array([_WIDTH * width, _HEIGHT * height]) / 2
    size = frame.shape[1::-1]
    first = np.clip(np.floor(centre - half), 0, size).astype(int)
    last = np.clip(np.ceil(centre + half), 0, size).astype(int)
    under = frame[first[1] : last[1], first[0] : last[0]]
    if not under.size:
        return
    cell_px = max(width / CELLS, height / CELLS, SMALLEST_CELL_PX)
    cells = np.ceil((last - first) / cell_px).astype(int)
    coarse = cv2.resize(under, cells.tolist(), interpolation=cv2.INTER_AREA)
    hidden = cv2.resize(coarse, (last - first).tolist(), interpolation=cv2.INTER_NEAREST)
    mask = np.zeros(under.shape[:2], np.uint8)
    middle = np.rint(centre - first).astype(int).tolist()
    cv2.ellipse(mask, middle, np.ceil(half).astype(int).tolist(), 0, 0, 360, 255, -1)
    cv2.copyTo(hidden, mask, under)
