"""The records that one stage hands to the next: files, frames, faces, rows.

Names end in their unit: ``_px`` stands for pixels of the upright source frame, ``_s`` for seconds.
A ``box_px`` is always ``x1, y1, x2, y2``. A ``frame_index`` counts from 0 in the order in which
frames are shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fer_batch.emotions import EMOTIONS

MediaKind = Literal["video", "image"]
Status = Literal["ok", "partial", "failed"]

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Seconds = NDArray[np.float64]

Frames = Bytes | Sequence[Bytes]
"""RGB pictures (H, W, 3) uint8: one array (N, H, W, 3), or a list if their sizes differ."""


def _check(
    name: str, array: NDArray[np.generic], shape: tuple[int | None, ...], dtype: type
) -> None:
    """Raise ValueError unless the array has this dtype and shape (None stands for any length)."""
    fits = len(array.shape) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype != np.dtype(dtype):
        want = ", ".join("_" if size is None else str(size) for size in shape)
        raise ValueError(
            f"{name} must be {np.dtype(dtype)} of shape ({want}), got {array.dtype} {array.shape}"
        )


@dataclass(frozen=True, slots=True)
class Piece:
    """One of the consecutive pieces into which a video is divided."""

    number: int
    """Position of the piece in the video, from 0."""
    n: int
    """Number of pieces of the video."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One input file, as discovery found it. The file has not been opened yet."""

    path: Path
    """Absolute path."""
    media: str
    """POSIX path relative to the input folder: the file's name in every table."""
    kind: MediaKind
    """A GIF is a video, as it has frames and times."""
    size_bytes: int
    mtime_ns: int
    """Time of the last change, in nanoseconds since 1970."""
    subject: str | None = None
    """DISFA subject (``SN001``), for files in folders that are laid out as DISFA's."""
    camera: Literal["left", "right"] | None = None
    """DISFA camera, for files in folders that are laid out as DISFA's."""
    piece: Piece = Piece(0, 1)
    """The piece of the file that is to be done; by default the whole file."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the container says about a file, before any frame is decoded."""

    width_px: int
    """Width of the upright frame, after rotation."""
    height_px: int
    """Height of the upright frame, after rotation."""
    rotation_deg: int
    """Counter-clockwise turn that makes the stored frame upright: 0, 90, 180 or 270."""
    frame_rate: Fraction | None
    """Average rate in frames per second; None for a still image, or if unknown."""
    duration_s: float | None
    """Length of the video; None for a still image, or if unknown."""
    n_frames_container: int | None
    """Number of frames that the container holds and wants shown; None if unknown."""
    codec: str
    start_s: float = 0.0
    """Time in the container at which ``pts_s`` is 0. Subtract it from the times of sound packets to
    get times that fit the frames."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameChunk:
    """Consecutive frames of one file that were decoded together."""

    rgb: Bytes
    """(N, H, W, 3) uint8, upright."""
    frame_index: Ints
    """(N,) int64, 0-based position in the source; sampling and lost frames leave gaps."""
    pts_s: Seconds
    """(N,) float64, each frame's own presentation time."""
    is_damaged: Bools
    """(N,) bool, True for frames in which the decoder reported or concealed an error."""

    def __post_init__(self) -> None:
        n = len(self.rgb)
        _check("rgb", self.rgb, (n, None, None, 3), np.uint8)
        _check("frame_index", self.frame_index, (n,), np.int64)
        _check("pts_s", self.pts_s, (n,), np.float64)
        _check("is_damaged", self.is_damaged, (n,), np.bool_)


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """How the decoding of a file, or a piece, went. It is complete after the last frame."""

    decoder: str
    """The decoders that were used: ``decord``, ``pyav``, ``decord+pyav`` or ``pillow``."""
    n_frames_decoded: int
    """Number of frames that were decoded, before sampling."""
    n_frames_damaged: int
    """Number of decoded frames with errors."""
    n_frames_missing: int
    """Number of frames in the chosen time span that the container lists but no decoder gave."""
    n_frames_wanted: int = 0
    """Number of frames that should have been decoded, with the missing ones."""
    n_segments: int = 0
    """Number of segments of the video."""
    n_segments_fallback: int = 0
    """Number of segments that PyAV decoded because Decord could not."""
    problems: tuple[str, ...] = ()
    """What else went wrong, as text for the user."""

    @classmethod
    def join(cls, reports: Sequence[DecodeReport]) -> DecodeReport:
        """The report of a whole from those of its pieces, in order."""
        names = {name for report in reports for name in report.decoder.split("+")} - {"none"}
        return cls(
            decoder="+".join(sorted(names)) or "none",
            n_frames_decoded=sum(report.n_frames_decoded for report in reports),
            n_frames_damaged=sum(report.n_frames_damaged for report in reports),
            n_frames_missing=sum(report.n_frames_missing for report in reports),
            n_frames_wanted=sum(report.n_frames_wanted for report in reports),
            n_segments=sum(report.n_segments for report in reports),
            n_segments_fallback=sum(report.n_segments_fallback for report in reports),
            problems=tuple(dict.fromkeys(text for each in reports for text in each.problems)),
        )

    @property
    def message(self) -> str | None:
        """What went wrong, as text for the user; None if nothing did."""
        counts = {"missing": self.n_frames_missing, "damaged": self.n_frames_damaged}
        problems = [
            f"{n} of {self.n_frames_wanted} frames {'is' if n == 1 else 'are'} {what}"
            for what, n in counts.items()
            if n
        ]
        return "; ".join([*problems, *self.problems]) or None

    @property
    def status(self) -> Status:
        """``failed`` if frames are missing and none was decoded; ``partial`` for other problems."""
        if self.n_frames_decoded == 0 and self.n_frames_missing > 0:
            return "failed"
        return "partial" if self.n_frames_missing or self.n_frames_damaged or self.message else "ok"


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """All faces of a chunk of frames, one row per face, ordered by frame."""

    frame_row: Ints
    """(M,) int64, position of the face's frame in the chunk, ascending."""
    box_px: Floats
    """(M, 4) float32, x1 y1 x2 y2 in pixels of the full upright frame, inside it."""
    score: Floats
    """(M,) float32, how sure the detector is; its scale differs between detectors."""
    points_px: Floats | None = None
    """(M, 5, 2) float32, x y of right eye, left eye, nose, right and left corner of the mouth."""

    def __post_init__(self) -> None:
        m = len(self.frame_row)
        _check("frame_row", self.frame_row, (m,), np.int64)
        _check("box_px", self.box_px, (m, 4), np.float32)
        _check("score", self.score, (m,), np.float32)
        if self.points_px is not None:
            _check("points_px", self.points_px, (m, 5, 2), np.float32)

    def __len__(self) -> int:
        return len(self.frame_row)

    @property
    def face_index(self) -> Ints:
        """(M,) int64, number of each face within its frame, from 0."""
        return np.arange(len(self)) - np.searchsorted(self.frame_row, self.frame_row)

    def take(self, rows: Bools | slice) -> Faces:
        """Some of the faces, in their order."""
        points = self.points_px
        return Faces(
            frame_row=self.frame_row[rows],
            box_px=self.box_px[rows],
            score=self.score[rows],
            points_px=None if points is None else points[rows],
        )

    @classmethod
    def join(cls, parts: Sequence[Faces], n_frames: Sequence[int]) -> Faces:
        """The faces of consecutive chunks as the faces of one chunk.

        Args:
            parts: Faces of each chunk.
            n_frames: Number of frames of each chunk.
        """
        first = np.cumsum([0, *n_frames])
        rows = [faces.frame_row + start for faces, start in zip(parts, first, strict=False)]
        points = [faces.points_px for faces in parts if faces.points_px is not None]
        return cls(
            frame_row=np.concatenate([np.empty(0, np.int64), *rows]),
            box_px=np.concatenate([np.empty((0, 4), np.float32), *(each.box_px for each in parts)]),
            score=np.concatenate([np.empty(0, np.float32), *(each.score for each in parts)]),
            points_px=np.concatenate(points) if points else None,
        )

    def split(self, n_frames: Sequence[int]) -> Iterator[Faces]:
        """The faces of each of several chunks, whose numbers of frames are given: undoes `join`."""
        first = 0
        for n in n_frames:
            start, stop = np.searchsorted(self.frame_row, [first, first + n])
            faces = self.take(slice(start, stop))
            yield replace(faces, frame_row=faces.frame_row - first)
            first += n


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """How good M faces are for classification: see `fer_batch.faces.quality`."""

    size_px: Floats
    """(M,) float32, like all measures; this one is the longer side of the box."""
    sharpness: Floats
    """0 where everything has the same brightness."""
    brightness: Floats
    """In [0, 1]."""
    yaw_deg: Floats
    """Above 0 where the face looks to the right of the frame; NaN, like the other angles, where it
    has no points."""
    pitch_deg: Floats
    """Above 0 where the face looks up."""
    roll_deg: Floats
    """Above 0 where the face is turned clockwise."""
    edge_share: Floats
    """In [0, 1]."""
    is_usable: Bools
    """(M,) bool, True for a face within the limits of the configuration."""

    def __post_init__(self) -> None:
        for name in self.__slots__:
            dtype = np.bool_ if name == "is_usable" else np.float32
            _check(name, getattr(self, name), (len(self.size_px),), dtype)

    @classmethod
    def join(cls, parts: Sequence[Quality]) -> Quality:
        """The quality of all faces of consecutive chunks."""
        empty = {name: np.empty(0, bool if name == "is_usable" else "f4") for name in cls.__slots__}
        return cls(
            **{
                name: np.concatenate([nothing, *(getattr(part, name) for part in parts)])
                for name, nothing in empty.items()
            }
        )


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """What is stored about a chunk of frames: its faces, their tracks and their emotions."""

    media: str
    frame_index: Ints
    pts_s: Seconds
    is_damaged: Bools
    faces: Faces
    track_id: Ints | None
    """(M,) int64, unique within a video; None for a still image."""
    probs: Floats
    """(M, 8) float32 in EMOTIONS order, NaN for emotions that the model does not know."""
    quality: Quality | None = None
    """Of the faces; None where they were not measured."""
    is_short: Bools | None = None
    """(M,) bool, True for a face of a short track; None where it is unknown, or for a still image.
    """

    def __post_init__(self) -> None:
        n, m = len(self.frame_index), len(self.faces)
        _check("frame_index", self.frame_index, (n,), np.int64)
        _check("pts_s", self.pts_s, (n,), np.float64)
        _check("is_damaged", self.is_damaged, (n,), np.bool_)
        if self.track_id is not None:
            _check("track_id", self.track_id, (m,), np.int64)
        _check("probs", self.probs, (m, len(EMOTIONS)), np.float32)
        if self.quality is not None:
            _check("quality.size_px", self.quality.size_px, (m,), np.float32)
        if self.is_short is not None:
            _check("is_short", self.is_short, (m,), np.bool_)


@dataclass(frozen=True, slots=True)
class MediaRow:
    """One row of the table ``media``: an input file and what became of it.

    `fer_batch.results.columns` says what each field means.
    """

    media: str
    root: str
    kind: MediaKind
    status: Status
    error: str | None
    size_bytes: int
    mtime_ns: int
    subject: str | None
    camera: str | None
    width_px: int | None
    height_px: int | None
    rotation_deg: int | None
    frame_rate: str | None
    duration_s: float | None
    n_frames_container: int | None
    n_frames_decoded: int
    n_frames_damaged: int
    n_frames_missing: int
    n_faces: int
    decoder: str | None
    n_segments: int
    n_segments_fallback: int
    detector: str
    model: str
    config_hash: str
    seconds: float
