"""What a decoder of video has to do, and what the decoders share."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol, cast

import av

from fer_batch.media.decode.demux import Packet
from fer_batch.media.decode.index import Index
from fer_batch.media.decode.segments import Segment
from fer_batch.records import Bools, Bytes, MediaInfo


class DecodedFrame(NamedTuple):
    """One frame as it is stored, before rotation."""

    frame_index: int
    rgb: Bytes
    """(H, W, 3) uint8."""
    is_damaged: bool


@dataclass(slots=True)
class Tally:
    """What became of the frames of one segment so far."""

    decoder: str | None = None
    n_decoded: int = 0
    """Frames that came out of the decoder, wanted or not."""
    n_delivered: int = 0
    n_damaged: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """A video and the frames of it that are wanted."""

    path: Path
    info: MediaInfo
    index: Index
    is_wanted: Bools
    """(F,) bool."""

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the first frame before rotation, in pixels."""
        size = self.info.height_px, self.info.width_px
        return size if self.info.rotation_deg % 180 == 0 else size[::-1]

    def fit(self, picture: av.VideoFrame, tally: Tally) -> Bytes:
        """A picture as RGB (H, W, 3) uint8, scaled to the size of the first frame."""
        height, width = self.stored_size
        if (picture.height, picture.width) != (height, width):
            problem = f"the picture size changes, all frames are scaled to {width} x {height}"
            if problem not in tally.problems:
                tally.problems.append(problem)
        return cast(Bytes, picture.to_ndarray(format="rgb24", width=width, height=height))


class IncompleteError(Exception):
    """A decoder does not give every frame of a segment; another decoder has to try."""


class Decoder(Protocol):
    """Turns the packets of a segment into frames. Several threads use one decoder."""

    @property
    def name(self) -> str:
        """Its name in the media table."""

    def can_decode(self, segment: Segment) -> bool:
        """Whether it is worth trying."""

    def decode(
        self, segment: Segment, packets: Iterable[tuple[int, Packet]], tally: Tally
    ) -> Generator[DecodedFrame]:
        """The wanted frames of a segment in order of time.

        Args:
            segment: The segment.
            packets: Its packets with their positions in the file.
            tally: Counts what comes out.

        Raises:
            IncompleteError: Raised before the generator is returned, never by the generator.
        """
