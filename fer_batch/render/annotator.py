"""Drawing on frames: for every face a box, a label, and what the model thinks of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from fer_batch.config import Render
from fer_batch.emotions import COLOURS, EMOTIONS, Colour
from fer_batch.records import Bytes, Floats, Ints
from fer_batch.render import sprites
from fer_batch.render.layers.strip import Ribbon
from fer_batch.render.sprites import FADED, GLASS, INK, PAPER

_FULL_SIZE_UP_TO, _PANELS_UP_TO = 2, 4
"""Faces at once up to which text has full size, and up to which there are panels."""
_SMALLEST_TEXT_PX = 10
_MOST_COVERED, _MOST_COVERED_LABEL = 0.4, 0.2
"""Part of a panel, or of a label in a crowd, that may lie over faces and other things."""
_SPOTS = 4
"""Places that are tried for a panel before its text gets smaller."""
_GLIDE = 0.2
"""Part of the way to its place that a panel goes per frame: boxes tremble, panels should not."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """What is to be drawn on one frame."""

    box_px: Floats
    """(M, 4) float32, x1 y1 x2 y2."""
    points_px: Floats | None
    """(M, 5, 2) float32, as in `Faces`."""
    track_id: Ints | None
    """(M,) int64; None for a still image."""
    probs: Floats
    """(M, 8) float32 in EMOTIONS order, NaN where the model does not know the emotion."""
    emotion: Ints
    """(M,) int64, position in EMOTIONS of the label; -1 for none."""
    crowd: int
    """Most faces at once around this time: sizes follow it, and so do not flicker."""


class Painter:
    """Draws on the frames of one video, in order, or on one still image.

    Few faces get a panel of bars each; many get a strip of colours under their boxes and share one
    legend. Sizes follow the frame's shorter side and the face. The painter remembers how it drew a
    track, so that its label and panel neither jump from side to side nor change size all the time.
    """

    def __init__(
        self,
        size: tuple[int, int],
        settings: Render,
        *,
        bars: Sequence[int] = (),
        ribbon: Ribbon | None = None,
    ) -> None:
        """Make a painter for frames of this size.

        Args:
            size: Width and height of the frames in pixels.
            settings: Which layers there are.
            bars: Positions in EMOTIONS of the emotions that can have a bar.
            ribbon: Drawn along the lower edge.
        """
        width, height = size
        self._settings = settings
        self._unit = min(size) / 360
        self._bars = tuple(bars) if settings.shows("bars") else ()
        self._ribbon = ribbon
        self._ribbon_y = height - round(1.5 * ribbon.height) if ribbon else height
        self._frame = _Rect(0, 0, width, self._ribbon_y)
        """In which words and panels stand."""
        self._memories: dict[int, _Memory] = {}

    def draw(self, frame: Bytes, annotation: Annotation, *, pts_s: float | None = None) -> None:
        """Draw on a frame in place.

        Args:
            frame: (H, W, 3) uint8 RGB, of the painter's size.
            annotation: The faces of the frame.
            pts_s: Time of the frame; None draws neither clock nor ribbon.
        """
        panels = bool(self._bars) and annotation.crowd <= _PANELS_UP_TO
        legend = bool(self._bars) and not panels
        faces = self._faces(annotation)
        for face in faces:
            if self._settings.shows("boxes"):
                self._draw_box(frame, face)
            self._draw_points(frame, face)
            if legend:
                self._draw_strip(frame, face)
        taken = [face.box for face in faces]
        if pts_s is not None:
            taken += self._draw_time(frame, pts_s)
        if legend:
            taken.append(self._draw_legend(frame))
        for face in faces:
            label = self._draw_label(frame, face, taken, crowded=legend)
            taken += [label] if label else []
        for face in faces if panels else ():
            place = self._find_panel_place(face, taken)
            if place is None:
                self._draw_strip(frame, face)
            else:
                taken.append(self._draw_panel(frame, face, place))

    def _faces(self, annotation: Annotation) -> list[_Face]:
        """The faces of an annotation, each with what is remembered of its track."""
        faces = []
        for row, box_px in enumerate(annotation.box_px):
            box = _Rect(*np.rint(box_px).astype(int).tolist())
            track = None if annotation.track_id is None else int(annotation.track_id[row])
            memory = _Memory() if track is None else self._memories.setdefault(track, _Memory())
            text_px = self._text_px(annotation.crowd, box.y2 - box.y1)
            if not 0.75 * memory.text_px < text_px < 1.33 * memory.text_px:
                memory.text_px = text_px
            emotion = int(annotation.emotion[row])
            points = () if annotation.points_px is None else annotation.points_px[row].tolist()
            faces.append(_Face(box, points, track, annotation.probs[row], emotion, memory))
        return faces

    def _text_px(self, crowd: int, face_px: float) -> int:
        shrink = 1.0 if crowd <= _FULL_SIZE_UP_TO else 0.8 if crowd <= _PANELS_UP_TO else 0.65
        full = 11 * self._unit * shrink
        return max(round(min(max(0.18 * face_px, 0.65 * full), full)), _SMALLEST_TEXT_PX)

    def _draw_time(self, frame: Bytes, pts_s: float) -> list[_Rect]:
        """The ribbon below everything, and the clock."""
        if self._ribbon:
            self._ribbon.draw(frame, self._ribbon.height // 2, self._ribbon_y, pts_s)
        return [self._draw_clock(frame, pts_s)] if self._settings.shows("clock") else []

    def _draw_clock(self, frame: Bytes, pts_s: float) -> _Rect:
        size = max(round(9 * self._unit), _SMALLEST_TEXT_PX)
        minutes, tenths = divmod(int(pts_s * 10 + 0.5), 600)
        text = sprites.text(f"{minutes}:{tenths // 10:02}.{tenths % 10}", size, PAPER)
        width = text.width // size * size + 2 * size  # in steps: digits differ in width
        place = self._frame.hold(size // 2, self._frame.y2 - 2 * size, width, round(1.5 * size))
        sprites.plate(width, round(1.5 * size), size / 3, GLASS).paste(frame, place.x1, place.y1)
        text.paste(frame, place.x1 + size // 2, place.y1 + round(0.1 * size))
        return place

    def _draw_legend(self, frame: Bytes) -> _Rect:
        size = max(round(8 * self._unit), _SMALLEST_TEXT_PX)
        legend = sprites.legend(self._bars, size, round(0.85 * self._frame.x2))
        place = self._frame.hold(
            self._frame.x2 - legend.width - size // 2,
            self._frame.y2 - legend.height - size // 2,
            legend.width,
            legend.height,
        )
        legend.paste(frame, place.x1, place.y1)
        return place

    def _draw_box(self, frame: Bytes, face: _Face) -> None:
        """A thin frame with strong corners on a shade, to be seen on any background."""
        x1, y1, x2, y2 = face.box.x1, face.box.y1, face.box.x2 - 1, face.box.y2 - 1
        arm = round(0.2 * min(x2 - x1, y2 - y1))
        corners = [
            np.array([(x, y + dy), (x, y), (x + dx, y)])
            for x, dx in ((x1, arm), (x2, -arm))
            for y, dy in ((y1, arm), (y2, -arm))
        ]
        thin = max(round(0.6 * self._unit), 1)
        strong = max(round(min(2.2 * self._unit, 0.2 * arm)), thin + 1)
        shade = thin // 2 + 1
        for x in (x1, x2):
            frame[y1 : y2 + 1, max(x - shade, 0) : x + shade + 1] //= 2
        for y in (y1, y2):
            frame[max(y - shade, 0) : y + shade + 1, x1 : x2 + 1] //= 2
        cv2.rectangle(frame, (x1, y1), (x2, y2), face.colour, thin, cv2.LINE_AA)
        cv2.polylines(frame, corners, False, face.colour, strong, cv2.LINE_AA)

    def _draw_points(self, frame: Bytes, face: _Face) -> None:
        if self._settings.shows("points"):
            radius = max(round(0.012 * (face.box.y2 - face.box.y1)), 1)
            for x, y in face.points_px:
                centre = (round(x), round(y))
                cv2.circle(frame, centre, radius + 1, INK, -1, cv2.LINE_AA)
                cv2.circle(frame, centre, radius, PAPER, -1, cv2.LINE_AA)

    def _draw_label(
        self, frame: Bytes, face: _Face, taken: Sequence[_Rect], *, crowded: bool
    ) -> _Rect | None:
        """Above the box, else below it, else inside; in a crowd shorter, or none, to find room."""
        size, memory = face.memory.text_px, face.memory
        pad, height = round(0.5 * size), round(1.5 * size)
        wordings = self._wordings(face)
        for brevity, wording in enumerate(wordings):
            words = [sprites.text(word, size, INK, bold=True) for word in wording]
            width = sum(word.width + pad for word in words) + pad
            places = self._label_places(face.box, width, height)
            choice = _choose(places, taken, memory.label, alike=len(places))
            place = places[choice]
            allowed = 0.0 if brevity < memory.brevity else _MOST_COVERED_LABEL * place.area
            if not crowded or place.covered(taken) <= allowed:
                break
        else:
            memory.brevity = len(wordings)
            return None
        memory.label, memory.brevity = choice, brevity
        plate = sprites.plate(width, height, size / 3, (*face.colour, 235))
        plate.paste(frame, place.x1, place.y1)
        x = place.x1 + pad
        for word in words:
            word.paste(frame, x, place.y1 + round(0.1 * size))
            x += word.width + pad
        return place

    def _wordings(self, face: _Face) -> list[list[str]]:
        """The words of the label, and of a shorter one; none where nothing is to be said."""
        shows_id = self._settings.shows("ids") and face.track is not None
        name = [f"#{face.track}"] if shows_id else []
        if not self._settings.shows("labels"):
            return [name] if name else []
        if face.emotion < 0:
            return [name or ["face"]]
        emotion = EMOTIONS[face.emotion]
        return [[*name, emotion, f"{face.probs[face.emotion]:.0%}"], [emotion]]

    def _label_places(self, box: _Rect, width: int, height: int) -> list[_Rect]:
        gap = max(round(3 * self._unit), 3)
        below = box.y2 + gap + (height // 3 if self._bars else 0)
        return [
            self._frame.hold(x, y, width, height)
            for y in (box.y1 - gap - height, below, box.y1 + gap)
            for x in (box.x1, box.x2 - width)
        ]

    def _find_panel_place(self, face: _Face, taken: Sequence[_Rect]) -> _PanelPlace | None:
        """Where the face's panel covers least, or None when that is too much."""
        options = self._panel_options(face)
        rects = [rect for _, rect in options]
        before = face.memory.panel
        choice = _choose(rects, taken, before.choice if before else None, alike=_SPOTS)
        size_px, rect = options[choice]
        if not self._frame.contains(rect) or rect.covered(taken) > _MOST_COVERED * rect.area:
            return None
        x, y = float(rect.x1), float(rect.y1)
        if before and before.choice == choice and before.size_px == size_px:
            x, y = self._glide(before.x, x), self._glide(before.y, y)
        face.memory.panel = _PanelPlace(choice, size_px, x, y)
        return face.memory.panel

    def _glide(self, before: float, place: float) -> float:
        """From where it was on towards its place, never far behind."""
        most = 6 * self._unit
        return min(max(before + _GLIDE * (place - before), place - most), place + most)

    def _panel_options(self, face: _Face) -> list[tuple[int, _Rect]]:
        """Text size and place: around the box, then smaller, then also higher and lower beside."""
        options = []
        box, gap, full_px = face.box, round(6 * self._unit), face.memory.text_px
        small_px = max(round(0.75 * full_px), _SMALLEST_TEXT_PX)
        for size_px, beside in ((full_px, False), (small_px, False), (small_px, True)):
            under = sprites.panel(self._bars, size_px).under
            right, left = box.x2 + gap, box.x1 - gap - under.width
            below, above = box.y2 + gap, box.y1 - gap - under.height
            spots = [(right, box.y1), (left, box.y1), (box.x1, below), (box.x1, above)]
            if beside:
                spots = [(x, y) for x in (right, left) for y in (0, self._frame.y2)]
            options += [
                (size_px, self._frame.hold(x, y, under.width, under.height)) for x, y in spots
            ]
        return options

    def _draw_panel(self, frame: Bytes, face: _Face, place: _PanelPlace) -> _Rect:
        panel = sprites.panel(self._bars, place.size_px)
        x, y = round(place.x), round(place.y)
        panel.draw(frame, x, y, face.probs, face.emotion)
        return _Rect(x, y, x + panel.under.width, y + panel.under.height)

    def _draw_strip(self, frame: Bytes, face: _Face) -> None:
        """The probabilities side by side as colours, under the box or on its lower edge."""
        thick = max(round(0.35 * face.memory.text_px), 3)
        x1, x2 = face.box.x1, face.box.x2
        y = min(face.box.y2 + thick // 2, self._frame.y2 - thick)
        probs = np.nan_to_num(face.probs)
        ends = np.cumsum([0, *probs]) / max(float(probs.sum()), 1e-6)
        edges = x1 + np.rint(ends * (x2 - x1)).astype(int)
        for emotion, (left, right) in zip(EMOTIONS, itertools.pairwise(edges), strict=True):
            frame[y : y + thick, left:right] = COLOURS[emotion]


class _Rect(NamedTuple):
    """A rectangle in pixels; its right and lower edges are just outside."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def area(self) -> int:
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    def covered(self, others: Iterable[_Rect]) -> int:
        """Area shared with others, counted for each of them."""
        return sum(
            max(min(self.x2, other.x2) - max(self.x1, other.x1), 0)
            * max(min(self.y2, other.y2) - max(self.y1, other.y1), 0)
            for other in others
        )

    def contains(self, other: _Rect) -> bool:
        return other.covered([self]) == other.area

    def hold(self, x: int, y: int, width: int, height: int) -> _Rect:
        """A rectangle of this size, moved inside; what is too large starts at the upper left."""
        x = max(min(x, self.x2 - width), self.x1)
        y = max(min(y, self.y2 - height), self.y1)
        return _Rect(x, y, x + width, y + height)


class _PanelPlace(NamedTuple):
    choice: int
    """Which of the possible places."""
    size_px: int
    """Of its text."""
    x: float
    y: float


@dataclass(slots=True)
class _Memory:
    """How a track was drawn last."""

    text_px: int = 0
    label: int | None = None
    """Which of the possible places."""
    brevity: int = 0
    """Which wording of the label; a longer one comes back only when it covers nothing."""
    panel: _PanelPlace | None = None


class _Face(NamedTuple):
    box: _Rect
    points_px: Sequence[Sequence[float]]
    track: int | None
    probs: Floats
    emotion: int
    memory: _Memory

    @property
    def colour(self) -> Colour:
        return COLOURS[EMOTIONS[self.emotion]] if self.emotion >= 0 else FADED


def _choose(
    places: Sequence[_Rect], taken: Sequence[_Rect], before: int | None, *, alike: int
) -> int:
    """The place that covers least of what is taken; of equals, the first.

    The place chosen before may cover a little more than none, and comes first among the ``alike``
    places of its group.
    """

    def rank(at: int) -> tuple[int, int, bool, int]:
        pardon = places[at].area // 10 if at == before else 0
        covered = max(places[at].covered(taken) - pardon, 0)
        return covered, at // alike, at != before, at

    return min(range(len(places)), key=rank)
