"""What the classifier looks at, as colours over each face."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fer_batch.faces.similarity import CENTRE, Similarity
from fer_batch.records import Bytes
from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation, FaceMap

_OPACITY = 0.75
"""Of the colours where a map is highest; where it is 0 the face stays as it is."""


class Heatmap(Layer):
    """The maps of the faces, where they have one."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Colour the faces."""
        for face in faces:
            if face.map:
                colour(canvas.rgb, face.map)


def colour(frame: Bytes, face: FaceMap) -> None:
    """Colour the box of a face, in place: the higher the map, the brighter and the more opaque.

    Args:
        frame: (H, W, 3) uint8 RGB.
        face: Its map.
    """
    height, width = frame.shape[:2]
    left, right = np.clip(face.box_px[::2].round(), 0, width).astype(int).tolist()
    top, bottom = np.clip(face.box_px[1::2].round(), 0, height).astype(int).tolist()
    under = frame[top:bottom, left:right]
    if not under.size:
        return
    side = len(face.values)
    inverse = face.square.inverse()
    corner = inverse.factor * complex(left, top) + inverse.shift
    to_values = Similarity(side * inverse.factor, side * (corner + CENTRE))
    values = cv2.warpAffine(
        face.values,
        to_values.matrix(),
        under.shape[1::-1],
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
    )
    levels = np.rint(255 * values).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = _OPACITY * values[..., None]
    under[:] = np.rint(under + opacity * (colours.astype(np.float32) - under))
