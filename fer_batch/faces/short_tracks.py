"""Tells which tracks are short: a face that is seen for a frame or two is mostly none."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from fer_batch.config import Config
from fer_batch.records import Bools, Ints, Seconds

T = TypeVar("T")

ROUNDING_S = 1e-6
"""Times in seconds that differ by less are equal."""


@dataclass(slots=True)
class _Span:
    """The part of a video in which a track has faces."""

    begin_s: float
    end_s: float
    """When the next frame after its last face is shown."""
    last_frame: int


class ShortTracks(Generic[T]):
    """Holds chunks of one video back until it is known which of their tracks are short.

    A track lasts from its first face until the next frame after its last one. It is short if that
    is less than `Track.min_s`, and less than the whole video. What is held back are the chunks
    since the first one with a track that may still be either: about ``min_s + max_gap_s``. The
    answers do not depend on how frames are grouped into chunks.

    Args:
        config: The settings of the run.
    """

    def __init__(self, config: Config) -> None:
        self._min_s, self._max_gap_s = config.track.min_s, config.track.max_gap_s
        self._every = config.detector.every
        self._held: deque[tuple[T, Ints]] = deque()
        self._spans: dict[int, _Span] = {}
        self._ids: list[int] = []
        """Tracks of the faces in the last frame."""
        self._n_frames = 0
        self._first_s = self._before_s = self._last_s = -math.inf
        """Times of the first frame, the last but one, and the last one."""

    def add(
        self, chunk: T, track_id: Ints, frame_row: Ints, pts_s: Seconds
    ) -> list[tuple[T, Bools]]:
        """Take the next chunk, and give those about which everything is known.

        Args:
            chunk: What is held back.
            track_id: (M,) int64 of its faces.
            frame_row: (M,) int64, positions of their frames in the chunk, ascending.
            pts_s: (N,) float64, times of its frames.

        Returns:
            Earlier chunks in order, each with (M,) bool, True for a face of a short track.
        """
        bounds = np.searchsorted(frame_row, np.arange(len(pts_s) + 1))
        for time_s, (start, stop) in zip(pts_s.tolist(), pairwise(bounds), strict=True):
            self._see(time_s, track_id[start:stop].tolist())
        self._held.append((chunk, track_id))
        known = []
        while self._held and all(map(self._is_known, self._held[0][1].tolist())):
            known.append(self._next())
        held = {track for _, ids in self._held for track in ids.tolist()}
        for track in [each for each in self._spans if each not in held and self._is_over(each)]:
            del self._spans[track]
        return known

    def end(self) -> list[tuple[T, Bools]]:
        """Give the remaining chunks, after the last frame; it lasts as long as the one before."""
        end_s = self._last_s + (self._last_s - self._before_s)
        for track in self._ids:
            self._spans[track].end_s = end_s
        self._min_s = min(self._min_s, end_s - self._first_s)
        return [self._next() for _ in range(len(self._held))]

    def _see(self, time_s: float, ids: list[int]) -> None:
        if not self._n_frames:
            self._first_s = time_s
        self._before_s, self._last_s = self._last_s, time_s
        for track in self._ids:
            self._spans[track].end_s = time_s
        for track in ids:
            span = self._spans.setdefault(track, _Span(time_s, time_s, 0))
            span.last_frame, span.end_s = self._n_frames, time_s
        self._ids = ids
        self._n_frames += 1

    def _next(self) -> tuple[T, Bools]:
        chunk, ids = self._held.popleft()
        return chunk, np.array([self._is_short(track) for track in ids.tolist()], np.bool_)

    def _is_known(self, track: int) -> bool:
        return not self._is_short(track) or self._is_over(track)

    def _is_short(self, track: int) -> bool:
        span = self._spans[track]
        return span.end_s - span.begin_s < self._min_s - ROUNDING_S

    def _is_over(self, track: int) -> bool:
        """Whether a track cannot go on: its face was searched for in vain, and for too long."""
        span = self._spans[track]
        n_frames_ago = self._n_frames - 1 - span.last_frame
        gap_s = self._last_s - span.end_s
        return n_frames_ago > self._every and gap_s > self._max_gap_s
