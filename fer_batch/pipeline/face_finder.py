"""Where the faces are: frames of many files detected in one batch, then tracked file by file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from fer_batch.config import Config
from fer_batch.errors import DetectorError
from fer_batch.faces.tracking import CutDetector, Tracker
from fer_batch.pipeline.lanes import Pending
from fer_batch.pipeline.stopwatch import Stopwatch
from fer_batch.records import Bools, Bytes, Faces, Floats, FrameChunk, Ints, MediaKind

MAX_FACES = 32_767
"""In a frame: ``n_faces`` and ``face_index`` have 16 bits."""


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
        self.last_faces = Faces.join([], [])
        """Of the last frame that the detector saw."""
        self.last_ids = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A chunk of frames of one file."""

    file: FileFaces
    chunk: FrameChunk
    is_cut: Bools
    """(N,) True where the frame does not continue the one before."""
    is_looked: Bools
    """(N,) True where the detector has to see the frame."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """Chunks of frames in which faces are being looked for."""

    parts: Sequence[_Part]
    n_frames: int
    """Frames that the detector has to see."""
    faces: Pending[Faces]
    """Of all of these."""


class FaceFinder:
    """Finds and tracks the faces of chunks of frames.

    Args:
        detect: Begins to find the faces of frames. Of a still image every frame goes there, and of
            a video every ``detector.every``-th one and those that follow a cut. In the frames
            between, each face moves on as its track did; its score is NaN.
        config: How.
        watch: Counts ``track``.
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

    def begin(self, kind: MediaKind) -> FileFaces:
        """The state of a file none of whose frames was seen."""
        return FileFaces(kind, self._config)

    def look(self, parts: Sequence[tuple[FileFaces, FrameChunk]]) -> Search:
        """Begin to look for faces.

        Args:
            parts: Chunks of any files, those of one file in order.
        """
        with self._watch.time("track"):
            return self._search([self._part(file, chunk) for file, chunk in parts])

    def find(self, search: Search) -> list[Found | DetectorError]:
        """The faces of each chunk, or the error of the chunk on which the detector fails.

        Searches end in the order in which they began.
        """
        detected = self._wait(search)
        with self._watch.time("track"):
            return [
                faces if isinstance(faces, DetectorError) else self._follow(part, faces)
                for part, faces in zip(search.parts, detected, strict=True)
            ]

    def _part(self, file: FileFaces, chunk: FrameChunk) -> _Part:
        n = len(chunk.rgb)
        if file.tracker is None:
            return _Part(file, chunk, is_cut=np.zeros(n, np.bool_), is_looked=np.ones(n, np.bool_))
        is_cut = file.cuts.update(chunk.rgb)
        number = file.n_frames + np.arange(n)
        file.n_frames += n
        return _Part(file, chunk, is_cut, (number % self._config.detector.every == 0) | is_cut)

    def _search(self, parts: Sequence[_Part]) -> Search:
        frames = [part.chunk.rgb[row] for part in parts for row in np.flatnonzero(part.is_looked)]
        return Search(parts, len(frames), self._detect(frames))

    def _wait(self, search: Search) -> list[Faces | DetectorError]:
        """Faces of the frames of each chunk that the detector has seen."""
        try:
            faces = search.faces.result()
        except DetectorError as error:
            if len(search.parts) == 1:
                return [error]
            return [each for part in search.parts for each in self._wait(self._search([part]))]
        parts = faces.split([int(part.is_looked.sum()) for part in search.parts])
        return [_countable(each) for each in parts]

    def _follow(self, part: _Part, faces: Faces) -> Found:
        """The faces of all frames of a chunk from those of the frames that were looked at."""
        file, chunk = part.file, part.chunk
        if file.tracker is None:
            return Found(faces, None)
        detected = faces.split([1] * int(part.is_looked.sum()))
        frames, track_ids = [], []
        for row, frame in enumerate(chunk.rgb):
            pts_s = chunk.pts_s[row : row + 1]
            if part.is_looked[row]:
                is_cut = part.is_cut[row : row + 1]
                file.last_faces = next(detected)
                file.last_ids = file.tracker.update(file.last_faces, pts_s, is_cut)
                frames.append(file.last_faces)
                track_ids.append(file.last_ids)
            else:
                shift = file.tracker.shift(file.last_ids, float(pts_s[0]))
                moved, stays = _move(file.last_faces, shift, frame)
                frames.append(moved)
                track_ids.append(file.last_ids[stays])
        return Found(Faces.join(frames, [1] * len(frames)), np.concatenate(track_ids))


def _countable(faces: Faces) -> Faces | DetectorError:
    """Faces, unless a frame has more than the tables can count."""
    most = int(np.bincount(faces.frame_row, minlength=1).max())
    if most <= MAX_FACES:
        return faces
    return DetectorError(f"{most:,} faces in one frame: at most {MAX_FACES:,} can be counted")


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
