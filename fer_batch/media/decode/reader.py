"""Frames of one file, in bounded chunks, with true times."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import numpy as np

from fer_batch.config import Decode, Sampling
from fer_batch.media.decode.images import read_image
from fer_batch.media.decode.parts import Frame, Part
from fer_batch.media.decode.video import Video
from fer_batch.records import DecodeReport, FrameChunk, MediaFile, MediaInfo

MAX_CHUNK_FRAMES = 64
_MB = 1_000_000


class FrameReader:
    """Reads one video, or a piece of one, or a still image, from front to back, once.

    A context manager; iterate inside it. Or take its parts in order and decode several at once in
    threads of their own. Leaving it early closes the file and ends the decoder.
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
        """Nothing is opened yet.

        Args:
            file: What to read; of a video, its piece.
            sampling: Which frames of a video to give.
            decode: How to decode them.
            threads: Those of PyAV; Decord works with one.
            only: ``frame_index`` of those of them to give; few cost little. None gives all.
        """
        self._file = file
        self._sampling = sampling
        self._decode = decode
        self._threads = threads
        self._only = only
        self._source: Video | _Still
        self._taken: list[Part] = []

    def __enter__(self) -> FrameReader:
        """Open the file.

        Raises:
            MediaError: It cannot be opened, is no medium, or is larger than allowed.
            DecodeError: There is no decoder for it.
        """
        if self._file.kind == "image":
            self._source = _Still(self._file.path, self._decode.max_image_mp)
        else:
            self._source = Video(
                self._file, self._sampling, self._decode, self._threads, self._only
            )
        self._chunks = self._read_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.close()
        self._source.close()

    def __iter__(self) -> Iterator[FrameChunk]:
        """The wanted frames in order of time; damaged ones are marked, lost ones left out.

        Raises:
            DecodeError: The file was changed while it was read.
        """
        return self._chunks

    @property
    def info(self) -> MediaInfo:
        """What the container says; known once the reader is entered."""
        return self._source.info

    @property
    def n_parts(self) -> int:
        """How often `take` can be called."""
        return self._source.n_parts

    def take(self) -> Part:
        """The next part, for `read`; one thread at a time.

        Raises:
            DecodeError: The file was changed while it was read.
        """
        part = self._source.take()
        self._taken.append(part)
        return part

    def read(self, part: Part) -> Generator[FrameChunk]:
        """The chunks of one part, for any thread.

        Raises:
            DecodeError: The file was changed while it was read.
        """
        shape = (self.info.height_px, self.info.width_px, 3)
        fitting = int(self._decode.chunk_mb * _MB / math.prod(shape))
        size = min(max(fitting, 1), MAX_CHUNK_FRAMES)
        with contextlib.closing(part.frames) as frames:
            while True:
                # Filled in place: a list of frames and their stack would be twice the memory.
                rgb = np.empty((min(size, part.n_wanted - part.n_delivered), *shape), np.uint8)
                frame_index: list[int] = []
                is_damaged: list[bool] = []
                for frame in itertools.islice(frames, len(rgb)):
                    rgb[len(frame_index)] = frame.rgb
                    frame_index.append(frame.frame_index)
                    is_damaged.append(frame.is_damaged)
                if not frame_index:
                    return
                part.n_delivered += len(frame_index)
                part.n_damaged += sum(is_damaged)
                yield FrameChunk(
                    rgb=rgb[: len(frame_index)],
                    frame_index=np.array(frame_index, np.int64),
                    pts_s=self._source.pts_s[frame_index],
                    is_damaged=np.array(is_damaged),
                )

    @property
    def report(self) -> DecodeReport:
        """How decoding went; complete once all parts have been read to their ends."""
        source, parts = self._source, self._taken
        problems = source.problems + [text for part in parts for text in part.problems]
        return DecodeReport(
            decoder="+".join(sorted(set().union(*(part.decoders for part in parts)))) or "none",
            n_frames_decoded=sum(part.n_decoded for part in parts),
            n_frames_damaged=sum(part.n_damaged for part in parts),
            n_frames_missing=source.n_wanted - sum(part.n_delivered for part in parts),
            n_frames_wanted=source.n_wanted,
            n_segments=source.n_parts if self._file.kind == "video" else 0,
            n_segments_fallback=sum(part.n_fallback for part in parts),
            problems=tuple(dict.fromkeys(problems)),
        )

    def _read_all(self) -> Generator[FrameChunk]:
        for _ in range(self.n_parts):
            yield from self.read(self.take())


class _Still:
    """The one frame of a still image."""

    n_parts = n_wanted = 1

    def __init__(self, path: Path, max_mp: float) -> None:
        self._picture = read_image(path, max_mp)
        self.info = self._picture.info
        self.pts_s = np.zeros(1)
        self.problems = [self._picture.message] if self._picture.message else []

    def take(self) -> Part:
        part = Part(n_wanted=1, n_decoded=1, decoders={"pillow"})
        part.frames = self._frames()
        return part

    def close(self) -> None:
        pass

    def _frames(self) -> Generator[Frame]:
        yield Frame(0, self._picture.rgb, self._picture.is_damaged)
