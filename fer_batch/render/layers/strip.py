"""A strip that fills while a video plays: what its faces showed so far."""

from __future__ import annotations

import cv2
import numpy as np

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.records import Bytes, Floats, Seconds
from fer_batch.render.sprites import INK, PAPER, Sprite, plate

_PLATE = (*INK, 150)


class Ribbon:
    """The mean probabilities of all faces over time, stacked, in the colours of the emotions."""

    def __init__(self, shares: Floats, times_s: Seconds, height_px: int) -> None:
        """Draw the whole of it once.

        Args:
            shares: (W, 8) in EMOTIONS order, for each column of pixels, of sum 1; NaN where no face
                is seen.
            times_s: (W,) at which each column is filled.
            height_px: Of the strip.
        """
        self._times_s = times_s
        self._empty = plate(len(times_s), height_px, height_px / 5, _PLATE)
        tops = np.nan_to_num(shares).cumsum(axis=1)
        height = 1 - (np.arange(height_px) + 0.5) / height_px
        code = (height[:, None, None] > tops).sum(axis=2)
        colours = np.array(
            [*(COLOURS[name] for name in EMOTIONS), self._empty.rgb[0, -1]], np.uint8
        )
        inside = ((code < len(EMOTIONS)) & (self._empty.keep[..., 0] < 255))[..., None]
        self._filled = Sprite(
            np.where(inside, colours[code], self._empty.rgb),
            np.where(inside, np.uint8(0), self._empty.keep),
        )

    @property
    def height(self) -> int:
        """In pixels."""
        return self._empty.height

    def draw(self, frame: Bytes, x: int, y: int, pts_s: float) -> None:
        """Draw it with its upper left corner at (x, y), filled up to a time.

        Args:
            frame: (H, W, 3) uint8 RGB.
            x: In pixels.
            y: In pixels.
            pts_s: Time in seconds.
        """
        n = int(np.searchsorted(self._times_s, pts_s, side="right"))
        for sprite, columns in ((self._filled, np.s_[:n]), (self._empty, np.s_[n:])):
            part = Sprite(sprite.rgb[:, columns], sprite.keep[:, columns])
            part.paste(frame, x + (columns.start or 0), y)
        cv2.line(frame, (x + n, y), (x + n, y + self.height - 1), PAPER, max(1, self.height // 10))
