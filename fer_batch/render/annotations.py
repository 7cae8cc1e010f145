"""The faces of a file, from the tables, smoothed over time so that they can be watched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from fer_batch.emotions import EMOTIONS
from fer_batch.records import Floats, Ints, MediaRow, Seconds
from fer_batch.render.content import Annotation, EmotionsOverTime
from fer_batch.render.face_paths import FacePaths
from fer_batch.results import timeline

LABEL_MARGIN = 0.1
"""Lead in probability that another emotion needs to take over the label of a track."""
AROUND_S = 2.0
"""Time, half before and half after a frame, in which the most faces at once are counted."""


class Annotations:
    """The faces of one file, frame by frame.

    A frame that was not looked at shows the faces of the last one before it that was, except those
    whose tracks end there.
    """

    def __init__(
        self, faces: pd.DataFrame, frame_index: Ints, pts_s: Seconds, *, smooth_s: float
    ) -> None:
        """Smooth them over time.

        Args:
            faces: Of this file alone, from `timeline.load`. Those of short tracks are hidden where
                faces are hidden, and else left out.
            frame_index: (S,) int64, ascending, the frames that were looked at.
            pts_s: (S,) float64, their times.
            smooth_s: Time constant over which a track's probabilities are smoothed, and above 0
                its label too; 0 shows them as they are.
        """
        self.paths = FacePaths(faces)
        """Where the faces are at any time."""
        faces = faces[~faces["is_short"].fillna(False)]
        is_tracked = bool(faces["track_id"].notna().any())
        faces = timeline.smooth(faces, seconds=smooth_s)
        self._looked_at = frame_index
        self._frame_index = faces["frame_index"].to_numpy(np.int64)
        self._box_px = faces[["x1_px", "y1_px", "x2_px", "y2_px"]].to_numpy(np.float32)
        self._points_px = _points(faces)
        self._probs = faces[list(EMOTIONS)].to_numpy(np.float32)
        self._emotion = np.asarray(faces["emotion"].cat.codes, np.int64)
        self._track_id = faces["track_id"].to_numpy(np.int64) if is_tracked else None
        self._ends_track = np.zeros(len(faces), np.bool_)
        if self._track_id is not None:
            self._ends_track = ~faces.duplicated("track_id", keep="last").to_numpy(np.bool_)
            if smooth_s:
                self._emotion = steady_labels(self._track_id, self._probs)
        first, after = np.searchsorted(self._frame_index, [frame_index, frame_index + 1])
        self._n_faces_around = _largest_around(after - first, pts_s)
        probs = np.zeros((len(frame_index), len(EMOTIONS)))
        rows = np.searchsorted(frame_index, self._frame_index)
        np.add.at(probs, rows, np.nan_to_num(self._probs))
        self.over_time = EmotionsOverTime(pts_s, probs)
        """What all faces show, frame by frame."""

    @property
    def emotions(self) -> tuple[int, ...]:
        """Positions in EMOTIONS of those that the model knows; none where there is no face."""
        return tuple(np.flatnonzero(~np.isnan(self._probs).all(axis=0)).tolist())

    def at(self, frame_index: int) -> Annotation:
        """The faces of a frame, by its position in the source."""
        row = int(np.searchsorted(self._looked_at, frame_index, side="right")) - 1
        shown = int(self._looked_at[row]) if row >= 0 else -1
        first, after = np.searchsorted(self._frame_index, [shown, shown + 1])
        rows = np.arange(first, after)
        if shown != frame_index:
            rows = rows[~self._ends_track[rows]]
        return Annotation(
            box_px=self._box_px[rows],
            points_px=None if self._points_px is None else self._points_px[rows],
            track_id=None if self._track_id is None else self._track_id[rows],
            probs=self._probs[rows],
            emotion=self._emotion[rows],
            n_faces_around=int(self._n_faces_around[row]) if row >= 0 else 0,
        )


def steady_labels(track_id: Ints, probs: Floats) -> Ints:
    """The label of each face: that of its track before, until another leads by `LABEL_MARGIN`.

    Args:
        track_id: (M,) int64; faces in order of time.
        probs: (M, 8) in EMOTIONS order, NaN where unknown.

    Returns:
        (M,) int64, positions in EMOTIONS; -1 where nothing is known.
    """
    known = np.where(np.isnan(probs), -1.0, probs)
    best = known.argmax(axis=1)
    labels = np.full(len(probs), -1, np.int64)
    held: dict[int, int] = {}
    for row, (track, leader) in enumerate(zip(track_id.tolist(), best.tolist(), strict=True)):
        label = held.get(track, leader)
        if known[row, leader] - known[row, label] > LABEL_MARGIN:
            label = leader
        if known[row, label] >= 0:
            held[track] = labels[row] = label
    return labels


def load_annotations(
    out: Path, rows: Iterable[MediaRow], *, smooth_s: float
) -> Iterator[Annotations]:
    """The annotations of each of these files of a run, read from its tables when asked for.

    Raises:
        StoreError: A table cannot be read.
    """
    for file in timeline.each_file(out, rows, short=True):
        yield Annotations(
            file.faces,
            file.frames["frame_index"].to_numpy(np.int64),
            file.frames["pts_s"].to_numpy(np.float64),
            smooth_s=smooth_s,
        )


def _points(faces: pd.DataFrame) -> Floats | None:
    """(M, 5, 2) float32; None where the detector gave none."""
    if faces["points_px"].isna().any() or faces.empty:
        return None
    return np.stack(faces["points_px"].to_list()).astype(np.float32).reshape(-1, 5, 2)


def _largest_around(counts: Ints, pts_s: Seconds) -> Ints:
    """(S,) the largest of these (S,) counts within half of `AROUND_S`."""
    times = pd.to_timedelta(pts_s, unit="s")
    window = pd.Series(counts, times).rolling(f"{AROUND_S}s", center=True)
    return window.max().to_numpy(np.int64)
