"""The one way to read the frames of a video or image file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fer_batch.config import Decode, Sampling
from fer_batch.media.decode.images import StillImage
from fer_batch.media.decode.source import SegmentedSource
from fer_batch.media.decode.video import Video
from fer_batch.records import DecodeReport, FrameChunk, MediaFile, MediaInfo


class FrameReader:
    """Reads a video, a piece of one, or a still image from the first frame to the last, once.

    A context manager. Iterate over it inside the block, or take the segments of `source` and decode
    several of them at once, each in a thread of its own. Leaving the block closes the file.
    """

    def __init__(
        self,
        file: MediaFile,
        sampling: Sampling,
        decode: Decode,
        threads: int = 1,
        *,
        only: Sequence[int] | None = None,
    ) -> None:
        """The file is not opened yet.

        Args:
            file: What to read.
            sampling: Which frames of a video to read.
            decode: How to decode them.
            threads: How many threads PyAV uses for one segment. Decord always uses one.
            only: ``frame_index`` of the frames to read, of those that ``sampling`` chooses; None
                reads all. Segments without such a frame are not decoded.
        """
        self._file = file
        self._sampling = sampling
        self._decode = decode
        self._threads = threads
        self._only = only
        self.source: SegmentedSource
        """Known inside the block."""

    def __enter__(self) -> FrameReader:
        """Open the file.

        Raises:
            MediaError: It cannot be opened, is no video or image, or is larger than allowed.
            DecodeError: There is no decoder for it.
            ConfigError: The configured decoder is not installed.
        """
        if self._file.kind == "image":
            self.source = StillImage(self._file.path, self._decode.max_image_mp)
        else:
            self.source = Video(self._file, self._sampling, self._decode, self._threads, self._only)
        self._chunks = self.source.chunks()
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.close()
        self.source.close()

    def __iter__(self) -> Iterator[FrameChunk]:
        """The wanted frames in order of time. Damaged ones are marked, lost ones are left out.

        Raises:
            DecodeError: The file was changed while it was read.
        """
        return self._chunks

    @property
    def info(self) -> MediaInfo:
        """What the container says about the file."""
        return self.source.info

    @property
    def report(self) -> DecodeReport:
        """How decoding went; complete when all frames were read."""
        return self.source.report
