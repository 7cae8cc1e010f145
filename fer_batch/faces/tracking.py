"""Track ids of faces in consecutive frames, and the cuts that end all tracks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from fer_batch.config import Track
from fer_batch.records import Bools, Bytes, Faces, Floats, Ints, Seconds

BUFFER = 0.5
"""How far a box is widened on each side, in widths and heights of its own."""


@dataclass(slots=True)
class _Track:
    track_id: int
    box_px: Floats
    velocity: Floats
    """Of the box's centre, in pixels per second."""
    seen_s: float
    seen_frame: int
    n_faces: int = 1

    def expected_box(self, pts_s: float) -> Floats:
        return self.box_px + np.tile(self.velocity, 2) * np.float32(pts_s - self.seen_s)


class Tracker:
    """Gives the faces of one video their track ids.

    Guarantees:

    - Two faces of one frame never have the same id, and an id is never used again in its video.
    - A face continues the track whose expected box (the last one, moved on at its last speed) it
      overlaps most, by at least `Track.min_iou`; pairs are taken from the largest overlap down.
    - Weak faces then may continue the tracks that are left and have had two faces or more. They
      begin no track (the second association of ByteTrack, Zhang et al., 2022).
    - Faces that are left may have moved by up to their own size: they are compared again, with all
      boxes widened by `BUFFER` (the buffered overlap of C-BIoU, Yang et al., 2023).
    - A track survives frames without its face up to `Track.max_gap_s`; a track that had a face in
      the previous frame always survives, however far apart the frames are.
    - A cut ends all tracks.
    - The ids do not depend on how frames are grouped into chunks.
    """

    def __init__(self, config: Track, min_score: float = -math.inf) -> None:
        """Begin a video.

        Args:
            config: Says what continues a track.
            min_score: Faces of a lower score are weak.
        """
        self._config = config
        self._min_score = min_score
        self._tracks: list[_Track] = []
        self._next_id = 0
        self._frame = 0

    def update(self, faces: Faces, pts_s: Seconds, is_cut: Bools) -> Ints:
        """Track ids (M,) int64 of the faces of the next N frames; -1 for weak ones without a track.

        Args:
            faces: Faces of these frames, ordered by frame.
            pts_s: (N,) time of each frame.
            is_cut: (N,) True where the frame does not continue the previous one.
        """
        ids = np.empty(len(faces), np.int64)
        is_weak = faces.score < self._min_score
        bounds = np.searchsorted(faces.frame_row, np.arange(len(pts_s) + 1))
        for row, (start, stop) in enumerate(pairwise(bounds)):
            if is_cut[row]:
                self._tracks.clear()
            ids[start:stop] = self._update_frame(
                faces.box_px[start:stop], is_weak[start:stop], float(pts_s[row])
            )
        return ids

    def shift(self, ids: Ints, pts_s: float) -> Floats:
        """How far tracks should have moved at a time since their faces were last seen.

        Args:
            ids: (M,) int64, ids that `update` gave to faces of the last frame.
            pts_s: Time in seconds.

        Returns:
            (M, 2) float32 in pixels, at each track's last speed.
        """
        tracks = {track.track_id: track for track in self._tracks}
        return np.array(
            [
                tracks[track_id].velocity * (pts_s - tracks[track_id].seen_s)
                for track_id in ids.tolist()
            ],
            np.float32,
        ).reshape(-1, 2)

    def _update_frame(self, boxes: Floats, is_weak: Bools, pts_s: float) -> list[int]:
        self._frame += 1
        self._tracks = [
            track
            for track in self._tracks
            if track.seen_frame == self._frame - 1 or pts_s - track.seen_s <= self._config.max_gap_s
        ]
        before = list(self._tracks)
        ids = []
        for face, number in enumerate(self._associate(boxes, is_weak, pts_s).tolist()):
            if number >= 0:
                ids.append(self._continue(before[number], boxes[face], pts_s))
            else:
                ids.append(-1 if is_weak[face] else self._begin(boxes[face], pts_s))
        return ids

    def _associate(self, boxes: Floats, is_weak: Bools, pts_s: float) -> Ints:
        """Position of the track that each face (M,) continues; -1 for a face without one."""
        track_of = np.full(len(boxes), -1)
        if not len(boxes) or not self._tracks:
            return track_of
        expected = np.stack([track.expected_box(pts_s) for track in self._tracks])
        is_confirmed = np.array([track.n_faces > 1 for track in self._tracks])
        is_free = np.ones(len(self._tracks), np.bool_)
        for some, may_go_on, buffer in (
            (~is_weak, True, 0.0),
            (is_weak, is_confirmed, 0.0),
            (~is_weak, True, BUFFER),
        ):
            faces = np.flatnonzero(some & (track_of < 0))
            tracks = np.flatnonzero(is_free & may_go_on)
            overlap = iou(_widened(boxes[faces], buffer), _widened(expected[tracks], buffer))
            rows, columns = np.nonzero(overlap >= self._config.min_iou)
            order = np.argsort(-overlap[rows, columns], kind="stable")
            for face, track in zip(faces[rows[order]], tracks[columns[order]], strict=True):
                if track_of[face] < 0 and is_free[track]:
                    track_of[face], is_free[track] = track, False
        return track_of

    def _begin(self, box: Floats, pts_s: float) -> int:
        track = _Track(self._next_id, box, np.zeros(2, np.float32), pts_s, self._frame)
        self._next_id += 1
        self._tracks.append(track)
        return track.track_id

    def _continue(self, track: _Track, box: Floats, pts_s: float) -> int:
        elapsed = pts_s - track.seen_s
        if elapsed > 0:
            moved = (box - track.box_px).reshape(2, 2).mean(axis=0) / np.float32(elapsed)
            track.velocity = (track.velocity + moved) / 2
        track.n_faces += 1
        track.box_px, track.seen_s, track.seen_frame = box, pts_s, self._frame
        return track.track_id


class CutDetector:
    """Finds the frames of one video that do not continue the previous frame.

    The change between two frames is the mean difference of their brightness histograms over a grid
    of regions, in [0, 1]: it ignores small movements and grain, which plain differences do not.
    """

    GRID = 4
    BINS = 16

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self.first: Floats | None = None
        """Histograms of the first frame of all, (GRID * GRID, BINS)."""
        self.last: Floats | None = None
        """Histograms of the last frame so far."""
        self.found: list[int] = []
        """Frames that begin a new shot, counted from 0 at the first frame of all."""
        self._n_frames = 0

    def update(self, rgb: Bytes) -> Bools:
        """True (N,) for each of the next frames (N, H, W, 3) uint8 that begins a new shot."""
        histograms = np.stack([self._histogram(frame) for frame in rgb])
        if self.first is None or self.last is None:
            self.first = self.last = histograms[0]
        before = np.concatenate([self.last[None], histograms[:-1]])
        self.last = histograms[-1]
        is_cut = self.is_cut(before, histograms)
        self.found += (self._n_frames + np.flatnonzero(is_cut)).tolist()
        self._n_frames += len(rgb)
        return is_cut

    def is_cut(self, before: Floats, after: Floats) -> Bools:
        """True (N,) where frames do not continue earlier ones, given the histograms of both."""
        change = np.abs(after - before).sum(axis=-1) / 2
        cuts: Bools = change.mean(axis=-1) > self._threshold
        return cuts

    def _histogram(self, frame: Bytes) -> Floats:
        """(GRID * GRID, BINS) float32; each row sums to 1."""
        step = max(1, min(frame.shape[:2]) // 64)
        grey = frame[::step, ::step, 1] // (256 // self.BINS)
        rows = np.arange(grey.shape[0]) * self.GRID // grey.shape[0]
        columns = np.arange(grey.shape[1]) * self.GRID // grey.shape[1]
        region = rows[:, None] * self.GRID + columns
        counts = np.bincount(
            (region * self.BINS + grey).ravel(), minlength=self.GRID**2 * self.BINS
        )
        counts = counts.reshape(-1, self.BINS)
        shares: Floats = (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)).astype("f4")
        return shares


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union (M, K) of each box of `a` (M, 4) with each of `b` (K, 4)."""
    corner = np.maximum(a[:, None, :2], b[None, :, :2])
    opposite = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(opposite - corner, 0, None).prod(axis=-1)
    area_a, area_b = ((box[:, 2:] - box[:, :2]).prod(axis=-1) for box in (a, b))
    total = area_a[:, None] + area_b[None] - shared
    overlap: Floats = np.divide(shared, total, out=np.zeros_like(total), where=total > 0)
    return overlap


def _widened(boxes: Floats, buffer: float) -> Floats:
    margin = np.float32(buffer) * (boxes[:, 2:] - boxes[:, :2])
    return np.hstack([boxes[:, :2] - margin, boxes[:, 2:] + margin])
