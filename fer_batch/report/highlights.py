"""The highlights of a run: where a face shows an emotion most."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fer_batch.emotions import EMOTIONS
from fer_batch.records import Floats
from fer_batch.results import tables, timeline

STRONG = 0.5
"""Strength from which an emotion is worth showing: more than all others together."""

_EMOTIONS = list(EMOTIONS)
_NEUTRAL = EMOTIONS.index("neutral")
_FIELDS = ["media", "frame_index", "face_index", "pts_s", "emotion", "prob", "strength"]


@dataclass(frozen=True, slots=True)
class Highlight:
    """A face in one frame, and the emotion that it shows there."""

    media: str
    frame_index: int
    face_index: int
    """Which face of the frame."""
    pts_s: float
    emotion: int
    """Position in EMOTIONS."""
    prob: float
    """Probability of the emotion, in [0, 1]."""
    strength: float
    """The lower one of the probabilities averaged over the time before and over the time after."""

    @property
    def is_expressive(self) -> bool:
        """Whether the face clearly shows something else than a neutral expression."""
        return self.emotion != _NEUTRAL and self.strength >= STRONG


@dataclass(frozen=True, slots=True)
class TrackHighlights:
    """The strongest moment of each emotion of one track."""

    track_id: int
    n_frames: int
    """Frames in which its face was found."""
    highlights: tuple[Highlight, ...]
    """In EMOTIONS order: all that are strong, and the strongest in any case."""


def of_tracks(faces: pd.DataFrame, *, smooth_s: float, most: int) -> list[TrackHighlights]:
    """The highlights of the tracks of a video.

    Tracks that are in most frames come first. Probabilities are those of
    `timeline.smooth`, which averages over the past. A highlight must also hold in the same average
    over the future; else an error of the network in the first frame of a track, which has no past,
    would win.

    Args:
        faces: Of one video, from `timeline.load`.
        smooth_s: Time constant of the averages, in seconds.
        most: Number of tracks to return.
    """
    n_frames = faces.groupby("track_id").size()
    n_frames = n_frames.sort_values(ascending=False, kind="stable")[:most]
    chosen = faces[faces["track_id"].isin(n_frames.index)].reset_index(drop=True)
    past = timeline.smooth(chosen, seconds=smooth_s)
    back = {column: -chosen[column] for column in ("frame_index", "pts_s")}
    future = timeline.smooth(chosen.assign(**back), seconds=smooth_s)
    found = _dominant(past, np.minimum(_probs(past), _probs(future)))
    best = found.loc[found.groupby(["track_id", "emotion"])["strength"].idxmax()]
    strongest = best.groupby("track_id")["strength"].transform("max")
    best = best[(best["strength"] >= STRONG) | (best["strength"] == strongest)]
    return [
        TrackHighlights(track, n, tuple(_highlights(best[best["track_id"] == track])))
        for track, n in zip(n_frames.index.tolist(), n_frames.tolist(), strict=True)
    ]


def of_images(faces: pd.DataFrame, *, most: int) -> list[Highlight]:
    """The faces of still images that show each emotion most, strongest first, one per image.

    Args:
        faces: Of the images, from `timeline.load`.
        most: Number of faces of each emotion.
    """
    found = _dominant(faces, _probs(faces)).sort_values("strength", ascending=False, kind="stable")
    found = found.drop_duplicates(["media", "emotion"])
    return _highlights(found.groupby("emotion").head(most))


def most_expressive(highlights: Iterable[Highlight]) -> Highlight | None:
    """The strongest that is not neutral, else the strongest; None where there are none."""
    return max(highlights, key=lambda each: (each.is_expressive, each.strength), default=None)


def _probs(faces: pd.DataFrame) -> Floats:
    return faces[_EMOTIONS].to_numpy(np.float32)


def _dominant(faces: pd.DataFrame, strengths: Floats) -> pd.DataFrame:
    """The faces of which something is known, with their strongest emotion, as a position."""
    emotion, strength = tables.dominant(strengths)
    prob = _probs(faces)[np.arange(len(faces)), emotion]
    return faces.assign(emotion=emotion, prob=prob, strength=strength)[emotion >= 0]


def _highlights(faces: pd.DataFrame) -> list[Highlight]:
    return [Highlight(*values) for values in faces[_FIELDS].itertuples(index=False)]
