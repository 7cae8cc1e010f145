"""A band along the lower edge that fills while a video plays: what its faces showed so far."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.records import Floats
from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation, Setup
from fer_batch.render.sprites import INK, PAPER, Sprite, plate

_PLATE = (*INK, 150)


class Strip(Layer):
    """The mean probabilities of all faces over time, stacked, in the colours of the emotions."""

    def __init__(self, setup: Setup) -> None:
        """Draw the whole strip once, empty and filled."""
        super().__init__(setup)
        self._height_px = max(round(min(setup.width_px, setup.height_px) / 20), 1)
        self.footer_px = round(1.5 * self._height_px)
        width_px = setup.width_px - self._height_px
        edges_s = np.linspace(*setup.span_s, width_px + 1)
        self._times_s = edges_s[:-1]
        self._empty = plate(width_px, self._height_px, self._height_px / 5, _PLATE)
        self._filled = _filled(self._empty, setup.over_time.shares(edges_s))

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw it, filled up to the time of the frame."""
        x, y = self._height_px // 2, canvas.room.y2
        n = int(np.searchsorted(self._times_s, annotation.pts_s, side="right"))
        for sprite, columns in ((self._filled, np.s_[:n]), (self._empty, np.s_[n:])):
            part = Sprite(sprite.rgb[:, columns], sprite.transparency[:, columns])
            part.paste(canvas.rgb, x + (columns.start or 0), y)
        ends = (x + n, y), (x + n, y + self._height_px - 1)
        cv2.line(canvas.rgb, *ends, PAPER, max(1, self._height_px // 10))


def _filled(empty: Sprite, shares: Floats) -> Sprite:
    """The strip with the shares (W, 8) of each column of pixels; NaN leaves a column empty."""
    tops = np.nan_to_num(shares).cumsum(axis=1)
    height = 1 - (np.arange(empty.height) + 0.5) / empty.height
    code = (height[:, None, None] > tops).sum(axis=2)
    colours = np.array([*(COLOURS[name] for name in EMOTIONS), empty.rgb[0, -1]], np.uint8)
    is_filled = ((code < len(EMOTIONS)) & (empty.transparency[..., 0] < 255))[..., None]
    return Sprite(
        np.where(is_filled, colours[code], empty.rgb),
        np.where(is_filled, np.uint8(0), empty.transparency),
    )
