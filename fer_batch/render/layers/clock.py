"""The time of the frame."""

from __future__ import annotations

from collections.abc import Sequence

from fer_batch.render import sprites
from fer_batch.render.canvas import Canvas, Face, Layer
from fer_batch.render.content import Annotation
from fer_batch.render.sprites import GLASS, PAPER


class Clock(Layer):
    """The time in the lower left corner."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Write it on a plate."""
        size = canvas.text_px(9)
        text = sprites.text(clock_text(annotation.pts_s), size, PAPER)
        width = text.width // size * size + 2 * size  # in steps: digits differ in width
        height = round(1.5 * size)
        place = canvas.room.fit(size // 2, canvas.room.y2 - 2 * size, width, height)
        sprites.plate(width, height, size / 3, GLASS).paste(canvas.rgb, place.x1, place.y1)
        text.paste(canvas.rgb, place.x1 + size // 2, place.y1 + round(0.1 * size))
        canvas.taken.append(place)


def clock_text(time_s: float) -> str:
    """A time as m:ss.s."""
    minutes, tenths = divmod(int(time_s * 10 + 0.5), 600)
    return f"{minutes}:{tenths // 10:02}.{tenths % 10}"
