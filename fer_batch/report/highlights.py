"""The moments worth showing: where a face shows an emotion most."""

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

BRIEF_S = 0.5
"""Tracks that last less are often no faces: they are shown only where none lasts longer."""

_EMOTIONS = list(EMOTIONS)
_NEUTRAL = EMOTIONS.index("neutral")
_FIELDS = ["media", "frame_index", "face_index", "pts_s", "emotion", "prob", "strength"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A face in one frame, and the emotion that it shows there."""

    media: str
    frame_index: int
    face_index: int
    """Which face of the frame."""
    pts_s: float
    emotion: int
    """Position in EMOTIONS."""
    prob: float
    """Of the emotion, in [0, 1]."""
    strength: float
    """``prob``, as far as it holds before and after."""

    @property
    def is_expressive(self) -> bool:
        """Whether it clearly shows something else than a neutral face."""
        return self.emotion != _NEUTRAL and self.strength >= STRONG


@dataclass(frozen=True, slots=True)
class Track:
    """The strongest moment of each emotion of one tracked face."""

    track_id: int
    n_frames: int
    """In which it was found."""
    moments: tuple[Moment, ...]
    """In EMOTIONS order: those that are strong, and the strongest in any case."""


def of_tracks(faces: pd.DataFrame, *, smooth_s: float, most: int) -> list[Track]:
    """What the tracks of a video show, those first that are in most frames, brief ones left out.

    Probabilities are those of `timeline.smooth`. They count as far as they hold: the same average
    over the future must not be lower. Else a slip of the network would win at the begin of a track,
    where there is no past.

    Args:
        faces: Of one video, from `timeline.load`.
        smooth_s: Time constant of the averages, in seconds.
        most: Number of tracks to give.
    """
    pts_s = faces.groupby("track_id")["pts_s"]
    lasts_s = pts_s.max() - pts_s.min()
    n_frames = pts_s.size()[lasts_s >= min(BRIEF_S, lasts_s.max())]
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
        Track(track, n, tuple(_moments(best[best["track_id"] == track])))
        for track, n in zip(n_frames.index.tolist(), n_frames.tolist(), strict=True)
    ]


def of_images(faces: pd.DataFrame, *, most: int) -> list[Moment]:
    """The faces of still images that show each emotion most, strongest first, one per image.

    Args:
        faces: Of the images, from `timeline.load`.
        most: Number of faces of each emotion.
    """
    found = _dominant(faces, _probs(faces)).sort_values("strength", ascending=False, kind="stable")
    found = found.drop_duplicates(["media", "emotion"])
    return _moments(found.groupby("emotion").head(most))


def most_expressive(moments: Iterable[Moment]) -> Moment | None:
    """The strongest that is not neutral, else the strongest; None where there are none."""
    return max(moments, key=lambda moment: (moment.is_expressive, moment.strength), default=None)


def _probs(faces: pd.DataFrame) -> Floats:
    return faces[_EMOTIONS].to_numpy(np.float32)


def _dominant(faces: pd.DataFrame, strengths: Floats) -> pd.DataFrame:
    """The faces of which something is known, with their strongest emotion, as a position."""
    emotion, strength = tables.dominant(strengths)
    prob = _probs(faces)[np.arange(len(faces)), emotion]
    return faces.assign(emotion=emotion, prob=prob, strength=strength)[emotion >= 0]


def _moments(faces: pd.DataFrame) -> list[Moment]:
    return [Moment(*values) for values in faces[_FIELDS].itertuples(index=False)]
