"""Find faces: frames of many files are searched together, then tracked file by file."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fer_batch.config import Config
from fer_batch.errors import DetectorError
from fer_batch.faces.detectors import min_score, without_weak
from fer_batch.faces.tracking import CutDetector, Tracker
from fer_batch.pipeline.lanes import Pending
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Bools, Bytes, Faces, Floats, FrameChunk, Ints, MediaKind

MAX_FACES = 32_767
"""The most faces that a frame can have: ``n_faces`` and ``face_index`` are 16-bit columns."""


@dataclass(frozen=True, slots=True, eq=False)
class FoundFaces:
    """The faces of a chunk of frames."""

    faces: Faces
    track_id: Ints | None
    """(M,) int64, unique within a video; None for a still image."""


class TrackingState:
    """What tracking remembers about one file, or another source of frames."""

    def __init__(self, kind: MediaKind, config: Config, *, keeps_weak: bool = False) -> None:
        least = -math.inf if keeps_weak else min_score(config.detector)
        self.tracker = Tracker(config.track, least) if kind == "video" else None
        self.cuts = CutDetector(config.track.cut_threshold)
        self.n_frames = 0
        self.last_faces = Faces.join([], [])
        """Faces of the last frame that was searched."""
        self.last_ids = np.empty(0, np.int64)
        """Their tracks."""


@dataclass(frozen=True, slots=True, eq=False)
class _SearchedChunk:
    """A chunk of frames, and which of them have to be searched."""

    state: TrackingState
    chunk: FrameChunk
    is_cut: Bools
    """(N,) True where a frame does not continue the one before."""
    needs_detection: Bools
    """(N,) True where the detector has to search the frame."""

    @property
    def n_searched(self) -> int:
        """How many frames have to be searched."""
        return int(self.needs_detection.sum())


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Chunks of frames in which the detector is looking for faces."""

    chunks: Sequence[_SearchedChunk]
    n_frames: int
    """Frames that are searched, of all chunks together."""
    faces: Pending[Faces]
    """The faces in all these frames."""


class FaceFinder:
    """Finds and tracks the faces of chunks of frames.

    Args:
        detect: Starts to find the faces of frames; see `Lanes.detect`. It gets every still image,
            and of videos every ``detector.every``-th frame and those that follow a cut. In the
            other frames, each face moves on with its track, and its score is NaN.
        config: Says how to track, and how often to detect.
        watch: Measures ``track``.
    """

    def __init__(
        self,
        detect: Callable[[Sequence[Bytes]], Pending[Faces]],
        config: Config,
        watch: Stopwatch,
    ) -> None:
        self._detect = detect
        self._config = config
        self._watch = watch

    def begin(self, kind: MediaKind, *, keeps_weak: bool = False) -> TrackingState:
        """The state before the first frame of a file or another source.

        Args:
            kind: Of the file.
            keeps_weak: Also track and keep the weak faces that continue no track.
        """
        return TrackingState(kind, self._config, keeps_weak=keeps_weak)

    def submit(self, chunks: Sequence[tuple[TrackingState, FrameChunk]]) -> Search:
        """Start to search chunks of any files; those of one file have to come in order."""
        with self._watch.time("track"):
            return self._search([self._choose(state, chunk) for state, chunk in chunks])

    def collect(self, search: Search) -> list[FoundFaces | DetectorError]:
        """Wait for the faces of each chunk, or the error where the detector failed on it.

        Searches have to be collected in the order in which they were submitted.
        """
        detected = self._wait(search)
        with self._watch.time("track"):
            return [
                faces if isinstance(faces, DetectorError) else self._track(chunk, faces)
                for chunk, faces in zip(search.chunks, detected, strict=True)
            ]

    def _choose(self, state: TrackingState, chunk: FrameChunk) -> _SearchedChunk:
        """Decide which frames of a chunk have to be searched."""
        n = len(chunk.rgb)
        if state.tracker is None:
            return _SearchedChunk(state, chunk, np.zeros(n, np.bool_), np.ones(n, np.bool_))
        is_cut = state.cuts.update(chunk.rgb)
        number = state.n_frames + np.arange(n)
        state.n_frames += n
        needs_detection = (number % self._config.detector.every == 0) | is_cut
        return _SearchedChunk(state, chunk, is_cut, needs_detection)

    def _search(self, chunks: Sequence[_SearchedChunk]) -> Search:
        frames = [
            each.chunk.rgb[row] for each in chunks for row in np.flatnonzero(each.needs_detection)
        ]
        return Search(chunks, len(frames), self._detect(frames))

    def _wait(self, search: Search) -> list[Faces | DetectorError]:
        """The faces in the searched frames of each chunk; after an error, each chunk is retried."""
        try:
            faces = search.faces.result()
        except DetectorError as error:
            if len(search.chunks) == 1:
                return [error]
            return [each for chunk in search.chunks for each in self._wait(self._search([chunk]))]
        by_chunk = faces.split([chunk.n_searched for chunk in search.chunks])
        return [_check_count(each) for each in by_chunk]

    def _track(self, searched: _SearchedChunk, faces: Faces) -> FoundFaces:
        """The faces of all frames of a chunk, given those of the searched frames."""
        state, chunk = searched.state, searched.chunk
        if state.tracker is None:
            return FoundFaces(without_weak(faces, self._config.detector), None)
        detected = faces.split([1] * searched.n_searched)
        frames, track_ids = [], []
        for row, frame in enumerate(chunk.rgb):
            pts_s = chunk.pts_s[row : row + 1]
            if searched.needs_detection[row]:
                is_cut = searched.is_cut[row : row + 1]
                found = next(detected)
                track_id = state.tracker.update(found, pts_s, is_cut)
                state.last_faces, state.last_ids = (
                    found.take(track_id >= 0),
                    track_id[track_id >= 0],
                )
                frames.append(state.last_faces)
                track_ids.append(state.last_ids)
            else:
                shift = state.tracker.shift(state.last_ids, float(pts_s[0]))
                moved, stays = _move(state.last_faces, shift, frame)
                frames.append(moved)
                track_ids.append(state.last_ids[stays])
        return FoundFaces(Faces.join(frames, [1] * len(frames)), np.concatenate(track_ids))


def _check_count(faces: Faces) -> Faces | DetectorError:
    """The faces, or an error when a frame has more than the tables can count."""
    most = int(np.bincount(faces.frame_row, minlength=1).max())
    if most <= MAX_FACES:
        return faces
    return DetectorError(f"{most:,} faces in one frame: at most {MAX_FACES:,} can be counted")


def _move(faces: Faces, shift: Floats, frame: Bytes) -> tuple[Faces, Bools]:
    """The faces of a frame shifted by (M, 2) pixels; those outside are left out.

    Also returns (M,) bool, True for the faces that are still in the frame.
    """
    height, width = frame.shape[:2]
    edge = np.array([width, height, width, height], np.float32)
    box_px = np.clip(faces.box_px + np.tile(shift, 2), 0, edge)
    stays = np.all(box_px[:, 2:] > box_px[:, :2], axis=1)
    moved = Faces(
        frame_row=faces.frame_row[stays],
        box_px=box_px[stays],
        score=np.full(stays.sum(), np.nan, np.float32),
        points_px=None if faces.points_px is None else (faces.points_px + shift[:, None])[stays],
    )
    return moved, stays
