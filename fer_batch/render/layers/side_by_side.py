"""The frame twice: on the left as it is, on the right with the layers that follow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation


class SideBySide(Layer):
    """Keeps what was drawn so far on the left."""

    n_columns = 2

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Make the picture twice as wide, and let what follows be drawn on its right half."""
        width = canvas.rgb.shape[1]
        canvas.picture = np.hstack([canvas.rgb, canvas.rgb])
        canvas.rgb = canvas.picture[:, width:]
