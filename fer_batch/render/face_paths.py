"""Places of faces at any time, also between the frames in which they were found."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fer_batch.records import Floats

LEAD_S = 0.3
"""A track begins this long before its first face and ends this long after its last one, as
detectors find a face late and lose it early."""


class FacePaths:
    """The path of each track, which is straight between two frames with its face."""

    def __init__(self, faces: pd.DataFrame) -> None:
        """Sort the faces of one file, from `timeline.load`; a face without a track is its own."""
        is_tracked = bool(faces["track_id"].notna().all())
        track_id = faces["track_id"].to_numpy(np.int64) if is_tracked else np.arange(len(faces))
        pts_s = faces["pts_s"].to_numpy(np.float64)
        order = np.lexsort((pts_s, track_id))
        self._pts_s = pts_s[order]
        self._box_px = faces[["x1_px", "y1_px", "x2_px", "y2_px"]].to_numpy(np.float32)[order]
        self._first = np.flatnonzero(np.diff(track_id[order], prepend=-1))
        self._after = np.append(self._first, len(order))[1:]
        self._begin_s = self._pts_s[self._first] - LEAD_S
        self._end_s = self._pts_s[self._after - 1] + LEAD_S

    def at(self, pts_s: float) -> Floats:
        """Boxes (K, 4) float32, x1 y1 x2 y2, of the tracks that are there at a time."""
        tracks = np.flatnonzero((self._begin_s <= pts_s) & (pts_s <= self._end_s))
        boxes = [self._box(int(self._first[k]), int(self._after[k]), pts_s) for k in tracks]
        return np.stack([np.empty(4, np.float32), *boxes])[1:]

    def _box(self, first: int, after: int, pts_s: float) -> Floats:
        later = first + int(np.searchsorted(self._pts_s[first:after], pts_s))
        before, later = max(later - 1, first), min(later, after - 1)
        passed = self._pts_s[later] - self._pts_s[before]
        share = np.clip((pts_s - self._pts_s[before]) / passed, 0, 1) if passed else 0.0
        box: Floats = self._box_px[before] + share * (self._box_px[later] - self._box_px[before])
        return box.astype(np.float32)
