"""What there is to draw: on one frame, and what is known of a file before its first frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fer_batch.config import Render
from fer_batch.emotions import EMOTIONS
from fer_batch.faces.similarity import Similarity
from fer_batch.records import Floats, Ints, Seconds

MOST_PANELS = 4
"""Faces at once up to which each gets a panel of bars; more of them share one legend."""

Need = Literal["emotions", "time", "emotions over time"]


@dataclass(frozen=True, slots=True, eq=False)
class FaceMap:
    """How much each part of a face matters to the classifier, and where its crop was cut."""

    values: Floats
    """(S, S) float32 in [0, 1]."""
    box_px: Floats
    """(4,) x1 y1 x2 y2 of the face."""
    square: Similarity
    """Where the crop was cut: see `squares`."""


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """What is known of one frame and its M faces."""

    box_px: Floats
    """(M, 4) float32, x1 y1 x2 y2."""
    points_px: Floats | None
    """(M, 5, 2) float32, as in `Faces`."""
    track_id: Ints | None
    """(M,) int64; None for a still image."""
    probs: Floats
    """(M, 8) float32 in EMOTIONS order, NaN where the model does not know the emotion."""
    emotion: Ints
    """(M,) int64, position in EMOTIONS of the emotion that the label names; -1 for none."""
    n_faces_around: int
    """Most faces at once shortly before and after this frame. Sizes depend on it, not on M, so that
    they do not flicker when a face is missed in one frame."""
    pts_s: float = 0.0
    """Time of the frame; without meaning where `Setup.has_time` is False."""
    hidden_px: Floats | None = None
    """(K, 4) float32, boxes of faces to hide, also of faces that were not found in this frame; None
    hides those in `box_px`."""
    maps: Sequence[FaceMap | None] = ()
    """Map of each face, None for a face without one; empty where there are no maps at all."""

    @property
    def has_many_faces(self) -> bool:
        """Whether there are too many faces for a panel each."""
        return self.n_faces_around > MOST_PANELS


@dataclass(frozen=True, slots=True, eq=False)
class EmotionsOverTime:
    """What the faces of a video show, frame by frame."""

    pts_s: Seconds
    """(S,) float64, ascending: times of the frames that were looked at."""
    probs: Seconds
    """(S, 8) float64 in EMOTIONS order: sum over the faces of each frame, unknown ones as 0."""

    @classmethod
    def unknown(cls) -> EmotionsOverTime:
        """Without any frame: of a still image, or of frames that are still to come."""
        return cls(np.empty(0), np.empty((0, len(EMOTIONS))))

    def shares(self, edges_s: Seconds) -> Floats:
        """Mean probabilities over all faces between each two consecutive times.

        An interval without a frame of its own is like the last frame before it.

        Args:
            edges_s: (W + 1,) float64, ascending, where the intervals begin and end.

        Returns:
            (W, 8) float32 in EMOTIONS order, of sum 1; NaN where there is no face.
        """
        sums = np.concatenate([np.zeros((1, len(EMOTIONS))), self.probs]).cumsum(axis=0)
        first, after = (np.searchsorted(self.pts_s, at) for at in (edges_s[:-1], edges_s[1:]))
        first = np.maximum(np.minimum(first, after - 1), 0)
        inside = sums[after] - sums[first]
        with np.errstate(invalid="ignore"):
            shares: Floats = (inside / inside.sum(axis=1, keepdims=True)).astype(np.float32)
        return shares


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What layers know of a file before its first frame."""

    width_px: int
    height_px: int
    settings: Render
    emotions: tuple[int, ...]
    """Positions in EMOTIONS of the emotions that the model knows; none where there is no face."""
    has_time: bool = False
    """Whether frames have a time worth writing."""
    over_time: EmotionsOverTime = field(default_factory=EmotionsOverTime.unknown)
    """Of the whole file, where it is known in advance."""
    span_s: tuple[float, float] = (0.0, 0.0)
    """Times of the first and the last frame that is shown."""

    def has(self, need: Need) -> bool:
        """Whether what a layer needs is there."""
        match need:
            case "emotions":
                return bool(self.emotions)
            case "time":
                return self.has_time
            case "emotions over time":
                return len(self.over_time.pts_s) > 0
