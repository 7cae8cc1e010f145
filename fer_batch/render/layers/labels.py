"""Words at each face: its emotion, and the number of its track."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fer_batch.emotions import EMOTIONS
from fer_batch.render import sprites
from fer_batch.render.canvas import Canvas, Face, Layer, Rect, best_place
from fer_batch.render.content import Annotation, Setup
from fer_batch.render.sprites import INK

_MOST_COVERED = 0.2
"""Part of a label that may lie over faces and other things where there are many faces."""


@dataclass(slots=True)
class _Choice:
    """How the label of a track was drawn last."""

    place: int | None = None
    """Position among the possible places."""
    wording: int = 0
    """Position among the possible wordings; the number of them where none was drawn."""


class Labels(Layer):
    """A label above the box, else below it, else inside.

    Where there are many faces, a label without enough room becomes shorter, or is left out.
    """

    def __init__(self, setup: Setup) -> None:
        """Remember no label yet."""
        super().__init__(setup)
        settings = setup.settings
        self._shows_emotion, self._shows_id = settings.shows("labels"), settings.shows("ids")
        self._has_bars = settings.shows("bars") and setup.has("emotions")
        self._choices: dict[int, _Choice] = {}

    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw the label of each face, clear of those before it."""
        needs_room = self._has_bars and annotation.has_many_faces
        for face in faces:
            self._draw_label(canvas, face, needs_room=needs_room)

    def _draw_label(self, canvas: Canvas, face: Face, *, needs_room: bool) -> None:
        size, choice = face.text_px, _Choice()
        if face.track_id is not None:
            choice = self._choices.setdefault(face.track_id, choice)
        pad, height = round(0.5 * size), round(1.5 * size)
        wordings = self._wordings(face)
        for number, wording in enumerate(wordings):
            words = [sprites.text(word, size, INK, bold=True) for word in wording]
            width = sum(word.width + pad for word in words) + pad
            places = self._places(canvas, face.box, width, height)
            at = best_place(places, canvas.taken, choice.place, group_size=len(places))
            place = places[at]
            # A longer wording than last time comes back only when it covers nothing.
            allowed = 0.0 if number < choice.wording else _MOST_COVERED * place.area
            if not needs_room or place.covered(canvas.taken) <= allowed:
                break
        else:
            choice.wording = len(wordings)
            return
        choice.place, choice.wording = at, number
        plate = sprites.plate(width, height, size / 3, (*face.colour, 235))
        plate.paste(canvas.rgb, place.x1, place.y1)
        x = place.x1 + pad
        for word in words:
            word.paste(canvas.rgb, x, place.y1 + round(0.1 * size))
            x += word.width + pad
        canvas.taken.append(place)

    def _wordings(self, face: Face) -> list[list[str]]:
        """The words of the label, and of a shorter one; none where there is nothing to say."""
        name = [f"#{face.track_id}"] if self._shows_id and face.track_id is not None else []
        if not self._shows_emotion:
            return [name] if name else []
        if face.emotion < 0:
            return [name or ["face"]]
        emotion = EMOTIONS[face.emotion]
        return [[*name, emotion, f"{face.probs[face.emotion]:.0%}"], [emotion]]

    def _places(self, canvas: Canvas, box: Rect, width: int, height: int) -> list[Rect]:
        gap = max(round(3 * canvas.unit), 3)
        below = box.y2 + gap + (height // 3 if self._has_bars else 0)
        return [
            canvas.room.fit(x, y, width, height)
            for y in (box.y1 - gap - height, below, box.y1 + gap)
            for x in (box.x1, box.x2 - width)
        ]
