"""The records that stages pass on: files, frames, faces, rows.

Names carry their unit and space: ``_px`` is pixels of the upright source frame, ``_s`` seconds,
``box_px`` is always ``x1, y1, x2, y2``. ``frame_index`` counts from 0 in presentation order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
"""RGB pictures (H, W, 3) uint8: stacked as (N, H, W, 3), or of several sizes."""


def _check(
    name: str, array: NDArray[np.generic], shape: tuple[int | None, ...], dtype: type
) -> None:
    """Raise ValueError unless ``array`` has this dtype and shape (None matches any length)."""
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
    """One of the consecutive pieces in which a video is done."""

    number: int
    """From 0."""
    n: int
    """Into how many the video is divided."""


@dataclass(frozen=True, slots=True)
class MediaFile:
    """One input file, as discovery found it. The file has not been opened yet."""

    path: Path
    """Absolute path."""
    media: str
    """POSIX path relative to the root of the run: the file's name in every table."""
    kind: MediaKind
    """GIF counts as video: it has frames and times."""
    size_bytes: int
    mtime_ns: int
    subject: str | None = None
    """DISFA subject (``SN001``) where the file stands in DISFA's own layout."""
    camera: Literal["left", "right"] | None = None
    """DISFA camera where the file stands in DISFA's own layout."""
    piece: Piece = Piece(0, 1)
    """What of it is meant; the whole unless a video is done in pieces."""


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """What the container says of a file, before any frame is decoded."""

    width_px: int
    """Of the upright frame, after rotation."""
    height_px: int
    rotation_deg: int
    """Counter-clockwise turn that makes the stored frame upright: 0, 90, 180 or 270."""
    frame_rate: Fraction | None
    """Average rate in frames per second; None for a still image or when it is unknown."""
    duration_s: float | None
    n_frames_container: int | None
    """Frames that the container holds and means to show."""
    codec: str
    start_s: float = 0.0
    """Container time of ``pts_s`` 0: subtract it from a sound packet's time to be in step."""


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
    """(N,) bool, True where the decoder reported or concealed an error."""

    def __post_init__(self) -> None:
        n = len(self.rgb)
        _check("rgb", self.rgb, (n, None, None, 3), np.uint8)
        _check("frame_index", self.frame_index, (n,), np.int64)
        _check("pts_s", self.pts_s, (n,), np.float64)
        _check("is_damaged", self.is_damaged, (n,), np.bool_)


@dataclass(frozen=True, slots=True)
class DecodeReport:
    """How the decoding of a file, or a piece, went; complete once its last frame was delivered."""

    decoder: str
    """Which decoder ran: ``decord``, ``pyav``, ``pillow``, or ``decord+pyav`` when both did."""
    n_frames_decoded: int
    """Frames that came out of the decoder, before sampling."""
    n_frames_damaged: int
    n_frames_missing: int
    """Frames that the container promised for the chosen time span and no decoder gave."""
    n_frames_wanted: int = 0
    """Frames that were asked for, these included."""
    n_segments: int = 0
    n_segments_fallback: int = 0
    """Segments that Decord could not do and PyAV did."""
    problems: tuple[str, ...] = ()
    """What else went wrong, in words for the user."""

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
        """What went wrong, in words for the user; None when all is well."""
        counts = {"missing": self.n_frames_missing, "damaged": self.n_frames_damaged}
        problems = [
            f"{n} of {self.n_frames_wanted} frames {'is' if n == 1 else 'are'} {what}"
            for what, n in counts.items()
            if n
        ]
        return "; ".join([*problems, *self.problems]) or None

    @property
    def status(self) -> Status:
        """``ok``, ``partial`` when frames are missing or damaged, ``failed`` when none came out."""
        if self.n_frames_decoded == 0 and self.n_frames_missing > 0:
            return "failed"
        return "partial" if self.n_frames_missing or self.n_frames_damaged or self.message else "ok"


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Every face of a chunk of frames, one row per face, ordered by frame."""

    frame_row: Ints
    """(M,) int64, row of the face's frame in its chunk, ascending."""
    box_px: Floats
    """(M, 4) float32, x1 y1 x2 y2 in pixels of the full upright frame, inside it."""
    score: Floats
    """(M,) float32, the detector's own confidence; its scale differs between detectors."""
    points_px: Floats | None = None
    """(M, 5, 2) float32: right eye, left eye, nose, right and left corner of the mouth."""

    def __post_init__(self) -> None:
        m = len(self.frame_row)
        _check("frame_row", self.frame_row, (m,), np.int64)
        _check("box_px", self.box_px, (m, 4), np.float32)
        _check("score", self.score, (m,), np.float32)
        if self.points_px is not None:
            _check("points_px", self.points_px, (m, 5, 2), np.float32)

    def __len__(self) -> int:
        return len(self.frame_row)

    @classmethod
    def join(cls, parts: Sequence[Faces], n_frames: Sequence[int]) -> Faces:
        """The faces of consecutive runs of frames as those of one.

        Args:
            parts: Faces of each run.
            n_frames: Frames of each run.
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
        """The faces of each of several runs of frames, with rows counted within the run."""
        first = 0
        for n in n_frames:
            start, stop = np.searchsorted(self.frame_row, [first, first + n])
            yield Faces(
                frame_row=self.frame_row[start:stop] - first,
                box_px=self.box_px[start:stop],
                score=self.score[start:stop],
                points_px=None if self.points_px is None else self.points_px[start:stop],
            )
            first += n


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """All that is known of one chunk of frames once its faces are classified: what is stored."""

    media: str
    frame_index: Ints
    pts_s: Seconds
    is_damaged: Bools
    faces: Faces
    track_id: Ints | None
    """(M,) int64, unique within a video; None for a still image."""
    probs: Floats
    """(M, 8) float32 in EMOTIONS order, NaN where the model does not know the emotion."""

    def __post_init__(self) -> None:
        n, m = len(self.frame_index), len(self.faces)
        _check("frame_index", self.frame_index, (n,), np.int64)
        _check("pts_s", self.pts_s, (n,), np.float64)
        _check("is_damaged", self.is_damaged, (n,), np.bool_)
        if self.track_id is not None:
            _check("track_id", self.track_id, (m,), np.int64)
        _check("probs", self.probs, (m, len(EMOTIONS)), np.float32)


@dataclass(frozen=True, slots=True)
class MediaRow:
    """One row of the ``media`` table: an input file and what became of it."""

    media: str
    root: str
    """Absolute folder that ``media`` is relative to."""
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
    """Average rate as a fraction in text: ``30000/1001``."""
    duration_s: float | None
    n_frames_container: int | None
    n_frames_decoded: int
    n_frames_damaged: int
    n_frames_missing: int
    n_faces: int
    decoder: str | None
    n_segments: int
    n_segments_fallback: int
    """Segments that Decord could not do and PyAV did."""
    detector: str
    model: str
    config_hash: str
    """Of every setting and weight file that changes results."""
    seconds: float
    """Wall time from opening the file to its last row."""
