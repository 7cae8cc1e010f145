"""What layers draw on, and what they have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from fer_batch.emotions import COLOURS, EMOTIONS, Colour
from fer_batch.records import Bytes, Floats
from fer_batch.render.content import Annotation, FaceMap, Setup
from fer_batch.render.sprites import FADED

SMALLEST_TEXT_PX = 10


class Rect(NamedTuple):
    """A rectangle in pixels; its right and lower edges are just outside."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def area(self) -> int:
        """In square pixels."""
        return (self.x2 - self.x1) * (self.y2 - self.y1)

    def covered(self, others: Iterable[Rect]) -> int:
        """Area that it shares with others, counted once for each of them."""
        return sum(
            max(min(self.x2, other.x2) - max(self.x1, other.x1), 0)
            * max(min(self.y2, other.y2) - max(self.y1, other.y1), 0)
            for other in others
        )

    def contains(self, other: Rect) -> bool:
        """Whether all of the other lies inside."""
        return other.covered([self]) == other.area

    def fit(self, x: int, y: int, width: int, height: int) -> Rect:
        """A rectangle at (x, y), moved inside; one that is too large starts at the upper left."""
        x = max(min(x, self.x2 - width), self.x1)
        y = max(min(y, self.y2 - height), self.y1)
        return Rect(x, y, x + width, y + height)


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """One face of a frame."""

    box: Rect
    points_px: Sequence[Sequence[float]]
    """Five x, y; empty where the detector gave none."""
    track_id: int | None
    """None for a still image."""
    probs: Floats
    """(8,) float32 in EMOTIONS order, NaN where unknown."""
    emotion: int
    """Position in EMOTIONS of the emotion that the label names; -1 for none."""
    map: FaceMap | None
    text_px: int
    """Size of the text that belongs to the face."""

    @property
    def colour(self) -> Colour:
        """That of its emotion."""
        return COLOURS[EMOTIONS[self.emotion]] if self.emotion >= 0 else FADED


@dataclass(slots=True, eq=False)
class Canvas:
    """A frame while layers draw on it, one after the other."""

    rgb: Bytes
    """(H, W, 3) uint8, drawn on in place."""
    room: Rect
    """Where text and panels may stand."""
    taken: list[Rect] = field(default_factory=list)
    """What text and panels should not cover: the faces, and what layers add."""
    picture: Bytes = field(init=False)
    """(H, `Annotator.width_px`, 3) uint8, the finished picture; `rgb` is all or a part of it."""
    unit: float = field(init=False)
    """1/360 of the frame's shorter side, in pixels: sizes are given in it."""

    def __post_init__(self) -> None:
        self.picture = self.rgb
        self.unit = min(self.rgb.shape[:2]) / 360

    def text_px(self, size: float) -> int:
        """Size of text of this many units."""
        return max(round(size * self.unit), SMALLEST_TEXT_PX)


class Layer(ABC):
    """One kind of thing that is drawn on the frames of a file, in order."""

    footer_px: int = 0
    """Height along the lower edge of the frame that this layer needs for itself."""
    n_columns: int = 1
    """How many times as wide as the frame the finished picture becomes."""

    def __init__(self, setup: Setup) -> None:
        """Prepare what does not change from frame to frame."""
        self.setup = setup

    @abstractmethod
    def draw(self, canvas: Canvas, faces: Sequence[Face], annotation: Annotation) -> None:
        """Draw on one frame.

        Args:
            canvas: The frame; what other layers should keep clear of is added to ``taken``.
            faces: Those to draw.
            annotation: What is known of the frame as a whole.
        """


def best_place(
    places: Sequence[Rect], taken: Sequence[Rect], before: int | None, *, group_size: int
) -> int:
    """Position of the place that covers least of what is taken; of equals, the first.

    Args:
        places: The best ones first, in groups of places that are equally good.
        taken: What should not be covered.
        before: The choice in the frame before. It may cover a tenth of its own area for free, and
            is preferred within its group, so that things do not jump.
        group_size: Number of places in a group.
    """

    def rank(at: int) -> tuple[int, int, bool, int]:
        free = places[at].area // 10 if at == before else 0
        covered = max(places[at].covered(taken) - free, 0)
        return covered, at // group_size, at != before, at

    return min(range(len(places)), key=rank)
