"""What the pipeline reads frames from: video files, still images, later perhaps a camera."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

from fer_batch.records import DecodeReport, FrameChunk, MediaInfo


class Source(Protocol):
    """Frames with times. Finding and classifying faces needs no more than this."""

    @property
    def info(self) -> MediaInfo:
        """Size, rate and length, as far as they are known before the first frame."""

    def chunks(self) -> Generator[FrameChunk]:
        """The frames in order of time; to be called once."""

    def close(self) -> None:
        """Free what the source holds. No more frames can be read."""


@dataclass(frozen=True, slots=True, eq=False)
class SegmentReader:
    """Decodes one segment of a source, in any thread."""

    chunks: Generator[FrameChunk]
    """The frames in order of time."""
    is_streamed: bool
    """Whether it reads from the file while it decodes; then the next segment has to wait."""


class SegmentedSource(Source, Protocol):
    """A file. Several threads can decode its segments at the same time."""

    @property
    def n_segments(self) -> int:
        """How often `next_segment` can be called."""

    @property
    def report(self) -> DecodeReport:
        """How decoding went; complete when all segments were read to their ends."""

    def next_segment(self) -> SegmentReader:
        """The next segment in order of time. Only one thread may call this at a time."""
