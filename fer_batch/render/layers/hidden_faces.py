"""Faces hidden behind large pixels, in every frame of their tracks."""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd

from fer_batch.records import Bytes, Floats

LEAD_S = 0.3
"""A track is hidden this long before its first and after its last face: detectors miss some."""
CELLS, SMALLEST_CELL_PX = 7, 4
"""Large pixels along a face's box, fewer in a small face."""
_WIDER, _TALLER, _HIGHER = 1.3, 1.5, 0.05
"""Of the ellipse that is hidden: its axes and its way up, in sides of the box. Detectors' boxes end
at the eyebrows or the hairline, and at the cheeks."""


class Paths:
    """Where each track is at any time: between its faces it moves straight."""

    def __init__(self, faces: pd.DataFrame) -> None:
        """Sort the faces of one file, from `timeline.load`; without tracks each is its own."""
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
        """Boxes (K, 4) float32 of the tracks that are there at a time."""
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


def hide(frame: Bytes, box_px: Floats) -> None:
    """Hide a face and what is close around it, in place.

    Args:
        frame: (H, W, 3) uint8.
        box_px: (4,) x1 y1 x2 y2 of the face.
    """
    x1, y1, x2, y2 = (float(edge) for edge in box_px)
    width, height = x2 - x1, y2 - y1
    centre = np.array([(x1 + x2) / 2, (y1 + y2) / 2 - _HIGHER * height])
    half = np.array([_WIDER * width, _TALLER * height]) / 2
    size = frame.shape[1::-1]
    first = np.clip(np.floor(centre - half), 0, size).astype(int)
    last = np.clip(np.ceil(centre + half), 0, size).astype(int)
    under = frame[first[1] : last[1], first[0] : last[0]]
    if not under.size:
        return
    cell_px = max(width / CELLS, height / CELLS, SMALLEST_CELL_PX)
    cells = np.ceil((last - first) / cell_px).astype(int)
    coarse = cv2.resize(under, cells.tolist(), interpolation=cv2.INTER_AREA)
    hidden = cv2.resize(coarse, (last - first).tolist(), interpolation=cv2.INTER_NEAREST)
    mask = np.zeros(under.shape[:2], np.uint8)
    middle = np.rint(centre - first).astype(int).tolist()
    cv2.ellipse(mask, middle, np.ceil(half).astype(int).tolist(), 0, 0, 360, 255, -1)
    cv2.copyTo(hidden, mask, under)
