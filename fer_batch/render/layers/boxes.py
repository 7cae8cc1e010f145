"""Boxes around faces."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation


class Boxes(Layer):
    """A thin frame with strong corners on a dark edge, which is seen on any background."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw them in the colours of the emotions."""
        for face in faces:
            _draw_box(canvas, face)


def _draw_box(canvas: Canvas, face: Face) -> None:
    frame, unit = canvas.rgb, canvas.unit
    x1, y1, x2, y2 = face.box.x1, face.box.y1, face.box.x2 - 1, face.box.y2 - 1
    arm = round(0.2 * min(x2 - x1, y2 - y1))
    corners = [
        np.array([(x, y + dy), (x, y), (x + dx, y)])
        for x, dx in ((x1, arm), (x2, -arm))
        for y, dy in ((y1, arm), (y2, -arm))
    ]
    thin = max(round(0.6 * unit), 1)
    strong = max(round(min(2.2 * unit, 0.2 * arm)), thin + 1)
    edge = thin // 2 + 1
    for x in (x1, x2):
        frame[y1 : y2 + 1, max(x - edge, 0) : x + edge + 1] //= 2
    for y in (y1, y2):
        frame[max(y - edge, 0) : y + edge + 1, x1 : x2 + 1] //= 2
    cv2.rectangle(frame, (x1, y1), (x2, y2), face.colour, thin, cv2.LINE_AA)
    cv2.polylines(frame, corners, False, face.colour, strong, cv2.LINE_AA)
