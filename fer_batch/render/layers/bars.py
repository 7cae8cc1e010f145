"""The probabilities of all emotions: a panel of bars for each face, or colours and a legend."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fer_batch.emotions import COLOURS, EMOTIONS
from fer_batch.render import sprites
from fer_batch.render.canvas import SMALLEST_TEXT_PX, Canvas, Face, Layer, Rect, best_place
from fer_batch.render.content import Annotation, Setup

_MOST_COVERED = 0.4
"""Part of a panel that may lie over faces and other things."""
_GROUP_SIZE = 4
"""Places that are tried for a panel before its text gets smaller."""
_SPEED = 0.2
"""Part of the way to its place that a panel moves per frame: boxes tremble, panels should not."""


class StackedBars(Layer):
    """Where there are many faces: their probabilities as one bar of colours under each box."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw a bar for each face."""
        if annotation.has_many_faces:
            for face in faces:
                _draw_stacked_bar(canvas, face)


class Legend(Layer):
    """Where there are many faces: what the colours mean, in the lower right corner."""

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw it."""
        if annotation.has_many_faces:
            size, room = canvas.text_px(8), canvas.room
            legend = sprites.legend(self.setup.emotions, size, round(0.85 * room.x2))
            x, y = room.x2 - legend.width - size // 2, room.y2 - legend.height - size // 2
            place = room.fit(x, y, legend.width, legend.height)
            legend.paste(canvas.rgb, place.x1, place.y1)
            canvas.taken.append(place)


class _PanelPlace(NamedTuple):
    choice: int
    """Position among the possible places."""
    text_px: int
    x: float
    y: float


class Panels(Layer):
    """Where there are few faces: a panel with a bar for each emotion beside each face.

    A face with no room for its panel gets a stacked bar.
    """

    def __init__(self, setup: Setup) -> None:
        """Remember no place yet."""
        super().__init__(setup)
        self._places: dict[int, _PanelPlace] = {}

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw the panels, each clear of those before it."""
        for face in () if annotation.has_many_faces else faces:
            place = self._find_place(canvas, face)
            if place is None:
                _draw_stacked_bar(canvas, face)
                continue
            panel = sprites.panel(self.setup.emotions, place.text_px)
            x, y = round(place.x), round(place.y)
            panel.draw(canvas.rgb, x, y, face.probs, face.emotion)
            canvas.taken.append(Rect(x, y, x + panel.under.width, y + panel.under.height))

    def _find_place(self, canvas: Canvas, face: Face) -> _PanelPlace | None:
        """Where the face's panel covers least, or None when that is too much."""
        options = self._options(canvas, face)
        rects = [rect for _, rect in options]
        before = None if face.track_id is None else self._places.get(face.track_id)
        choice = best_place(
            rects, canvas.taken, before.choice if before else None, group_size=_GROUP_SIZE
        )
        text_px, rect = options[choice]
        is_hidden = rect.covered(canvas.taken) > _MOST_COVERED * rect.area
        if is_hidden or not canvas.room.contains(rect):
            return None
        x, y = float(rect.x1), float(rect.y1)
        if before and before.choice == choice and before.text_px == text_px:
            x, y = _follow(before.x, x, canvas.unit), _follow(before.y, y, canvas.unit)
        place = _PanelPlace(choice, text_px, x, y)
        if face.track_id is not None:
            self._places[face.track_id] = place
        return place

    def _options(self, canvas: Canvas, face: Face) -> list[tuple[int, Rect]]:
        """Text sizes and places: around the box, then smaller, then also higher and lower."""
        options = []
        box, gap, full_px = face.box, round(6 * canvas.unit), face.text_px
        small_px = max(round(0.75 * full_px), SMALLEST_TEXT_PX)
        for text_px, is_anywhere_beside in ((full_px, False), (small_px, False), (small_px, True)):
            under = sprites.panel(self.setup.emotions, text_px).under
            right, left = box.x2 + gap, box.x1 - gap - under.width
            below, above = box.y2 + gap, box.y1 - gap - under.height
            corners = [(right, box.y1), (left, box.y1), (box.x1, below), (box.x1, above)]
            if is_anywhere_beside:
                corners = [(x, y) for x in (right, left) for y in (0, canvas.room.y2)]
            options += [
                (text_px, canvas.room.fit(x, y, under.width, under.height)) for x, y in corners
            ]
        return options


def _follow(before: float, place: float, unit: float) -> float:
    """A step from where it was towards its place, never more than six units away from it."""
    most = 6 * unit
    return min(max(before + _SPEED * (place - before), place - most), place + most)


def _draw_stacked_bar(canvas: Canvas, face: Face) -> None:
    """Draw the probabilities of a face side by side, below its box or on its lower edge."""
    thick = max(round(0.35 * face.text_px), 3)
    x1, x2 = face.box.x1, face.box.x2
    y = min(face.box.y2 + thick // 2, canvas.room.y2 - thick)
    probs = np.nan_to_num(face.probs)
    ends = np.cumsum([0, *probs]) / max(float(probs.sum()), 1e-6)
    edges = x1 + np.rint(ends * (x2 - x1)).astype(int)
    for emotion, (left, right) in zip(EMOTIONS, itertools.pairwise(edges), strict=True):
        canvas.rgb[y : y + thick, left:right] = COLOURS[emotion]
