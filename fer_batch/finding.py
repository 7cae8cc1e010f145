"""Where the faces are: frames of many files detected in one batch, then tracked file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from fer_batch.config import Config
from fer_batch.detectors import Detector
from fer_batch.schema import (
    Bools,
    Bytes,
    DetectorError,
    Faces,
    Floats,
    FrameChunk,
    Ints,
    MediaKind,
)
from fer_batch.track import CutDetector, Tracker


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The faces of a chunk of frames."""

    faces: Faces
    track_id: Ints | None
    """(M,) int64, unique within a video; None for a still image."""


class FileFaces:
    """What is known of the faces of one file so far."""

    def __init__(self, kind: MediaKind, config: Config) -> None:
        self.tracker = Tracker(config.track) if kind == "video" else None
        self.cuts = CutDetector(config.track.cut_threshold)
        self.n_frames = 0
        self.last_faces = join([])
        """Of the last frame that the detector saw."""
        self.last_ids = np.empty(0, np.int64)


class FaceFinder:
    """Finds and tracks the faces of chunks of frames.

    Args:
        detector: Sees every frame of a still image, and of a video every ``detector.every``-th one
            and those that follow a cut. In the frames between, each face moves on as its track
            did; its score is NaN.
        config: How.
        timed: Takes the time of ``detect`` and ``track``.
    """

    def __init__(
        self,
        detector: Detector,
        config: Config,
        timed: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        self._detector = detector
        self._config = config
        self._timed = timed

    def begin(self, kind: MediaKind) -> FileFaces:
        """The state of a file none of whose frames was seen."""
        return FileFaces(kind, self._config)

    def find(self, parts: Sequence[tuple[FileFaces, FrameChunk]]) -> list[Found | DetectorError]:
        """The faces of each chunk, or the error of the chunk on which the detector fails.

        Args:
            parts: Chunks of any files, those of one file in order.
        """
        with self._timed("track"):
            cuts = [self._cuts(file, chunk) for file, chunk in parts]
        looks = [self._looks(file, is_cut) for (file, _), is_cut in zip(parts, cuts, strict=True)]
        chunks = [chunk for _, chunk in parts]
        detected = self._detect(list(zip(chunks, looks, strict=True)))
        with self._timed("track"):
            return [
                faces
                if isinstance(faces, DetectorError)
                else self._follow(file, chunk, faces, is_looked=is_looked, is_cut=is_cut)
                for (file, chunk), faces, is_looked, is_cut in zip(
                    parts, detected, looks, cuts, strict=True
                )
            ]

    def _cuts(self, file: FileFaces, chunk: FrameChunk) -> Bools:
        return file.cuts.update(chunk.rgb) if file.tracker else np.zeros(len(chunk.rgb), np.bool_)

    def _looks(self, file: FileFaces, is_cut: Bools) -> Bools:
        """Which frames (N,) the detector has to see."""
        if file.tracker is None:
            return np.ones(len(is_cut), np.bool_)
        number = file.n_frames + np.arange(len(is_cut))
        file.n_frames += len(is_cut)
        looked: Bools = (number % self._config.detector.every == 0) | is_cut
        return looked

    def _detect(self, parts: Sequence[tuple[FrameChunk, Bools]]) -> list[Faces | DetectorError]:
        """Faces of the frames of each chunk that the detector has to see."""
        frames = [chunk.rgb[row] for chunk, looks in parts for row in np.flatnonzero(looks)]
        try:
            with self._timed("detect"):
                faces = self._detector.detect(frames)
        except DetectorError as error:
            if len(parts) == 1:
                return [error]
            return [found for part in parts for found in self._detect([part])]
        return list(split(faces, [int(looks.sum()) for _, looks in parts]))

    def _follow(
        self, file: FileFaces, chunk: FrameChunk, faces: Faces, *, is_looked: Bools, is_cut: Bools
    ) -> Found:
        """The faces of all frames of a chunk from those of the frames that were looked at."""
        if file.tracker is None:
            return Found(faces, None)
        detected = split(faces, [1] * int(is_looked.sum()))
        frames, track_ids = [], []
        for row, frame in enumerate(chunk.rgb):
            pts_s = chunk.pts_s[row : row + 1]
            if is_looked[row]:
                file.last_faces = next(detected)
                file.last_ids = file.tracker.update(file.last_faces, pts_s, is_cut[row : row + 1])
                frames.append(file.last_faces)
                track_ids.append(file.last_ids)
            else:
                shift = file.tracker.shift(file.last_ids, float(pts_s[0]))
                moved, stays = _move(file.last_faces, shift, frame)
                frames.append(moved)
                track_ids.append(file.last_ids[stays])
        return Found(join(frames), np.concatenate(track_ids))


def _move(faces: Faces, shift: Floats, frame: Bytes) -> tuple[Faces, Bools]:
    """Faces of one frame shifted by (M, 2) pixels, and which of them are still in the frame."""
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


def split(faces: Faces, n_frames: Sequence[int]) -> Iterator[Faces]:
    """The faces of each of several runs of frames, with rows counted within the run."""
    first = 0
    for n in n_frames:
        start, stop = np.searchsorted(faces.frame_row, [first, first + n])
        yield Faces(
            frame_row=faces.frame_row[start:stop] - first,
            box_px=faces.box_px[start:stop],
            score=faces.score[start:stop],
            points_px=None if faces.points_px is None else faces.points_px[start:stop],
        )
        first += n


def join(frames: Sequence[Faces]) -> Faces:
    """The faces of single frames as those of one run of frames."""
    points = [faces.points_px for faces in frames if faces.points_px is not None]
    return Faces(
        frame_row=np.repeat(np.arange(len(frames)), [len(each) for each in frames]),
        box_px=np.concatenate([np.empty((0, 4), np.float32), *(each.box_px for each in frames)]),
        score=np.concatenate([np.empty(0, np.float32), *(each.score for each in frames)]),
        points_px=np.concatenate(points) if points else None,
    )
