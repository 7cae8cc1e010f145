"""Five points of each face, where the detector gives them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2

from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation
from fer_batch.render.sprites import INK, PAPER


class Points(Layer):
    """Dots on eyes, nose and corners of the mouth."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw them, larger on larger faces."""
        for face in faces:
            radius = max(round(0.012 * (face.box.y2 - face.box.y1)), 1)
            for x, y in face.points_px:
                centre = (round(x), round(y))
                cv2.circle(canvas.rgb, centre, radius + 1, INK, -1, cv2.LINE_AA)
                cv2.circle(canvas.rgb, centre, radius, PAPER, -1, cv2.LINE_AA)
