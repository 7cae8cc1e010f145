"""Frames of one file, in bounded chunks, with true times.

A video is decoded one segment at a time: its packets go into a Matroska file in memory and that to
Decord, or one by one to PyAV where Decord is not up to it. Which frames there are and when comes
from the packets alone (`fer_batch.decode.index`); no decoder is asked.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, cast

import av
import decord
import numpy as np
from av.video.stream import VideoStream

from fer_batch.config import Decode, Sampling
from fer_batch.decode.demux import Packet, PacketFeed, remux, scan
from fer_batch.decode.images import read_image
from fer_batch.decode.segments import Segment, choose, plan
from fer_batch.schema import Bools, Bytes, DecodeReport, FrameChunk, Ints, MediaFile, MediaInfo

logger = logging.getLogger(__name__)

MAX_CHUNK_FRAMES = 64
_MB = 1_000_000
_NOT_FOR_DECORD = frozenset({"av1"})
_SPARSE = 0.5
"""Decord converts every frame it decodes, PyAV only those wanted: below this it is faster."""
_NO_FILL_IN = 1e-6
"""Decord puts copies of the last frame in place of lost ones, silently, unless the fraction of
copies exceeds its `fault_tol`; 0 would allow all."""
_DECORD_FAILED = (
    decord.DECORDError,
    decord.DECORDLimitReachedError,
    av.FFmpegError,
    AssertionError,
    RuntimeError,
    StopIteration,
    ValueError,
)


class FrameReader:
    """Reads one video or still image, from front to back, once.

    A context manager; iterate inside it. Leaving it early closes the file and ends the decoder.
    One reader is for one thread.
    """

    def __init__(
        self, file: MediaFile, sampling: Sampling, decode: Decode, threads: int = 1
    ) -> None:
        """Nothing is opened yet. ``threads`` are those of PyAV; Decord works with one."""
        self._file = file
        self._sampling = sampling
        self._decode = decode
        self._threads = threads
        self._source: _Video | _Still
        self._chunks: Generator[FrameChunk]

    def __enter__(self) -> FrameReader:
        """Open the file.

        Raises:
            MediaError: It cannot be opened, is no medium, or is larger than allowed.
            DecodeError: There is no decoder for it.
        """
        if self._file.kind == "image":
            self._source = _Still(self._file.path, self._decode.max_image_mp)
        else:
            self._source = _Video(self._file.path, self._sampling, self._decode, self._threads)
        self._chunks = self._pack()
        return self

    def __exit__(self, *_: object) -> None:
        self._chunks.close()

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
    def report(self) -> DecodeReport:
        """How decoding went; complete once the iteration has ended by itself."""
        tally = self._source.tally
        missing = tally.n_wanted - tally.n_delivered
        counts = {"missing": missing, "damaged": tally.n_damaged}
        problems = [
            f"{n} of {tally.n_wanted} frames {'is' if n == 1 else 'are'} {what}"
            for what, n in counts.items()
            if n
        ]
        return DecodeReport(
            decoder="+".join(sorted(tally.decoders)) or "none",
            n_frames_decoded=tally.n_decoded,
            n_frames_damaged=tally.n_damaged,
            n_frames_missing=missing,
            n_segments=tally.n_segments,
            n_segments_fallback=tally.n_fallback,
            message="; ".join(problems + tally.problems) or None,
        )

    def _pack(self) -> Generator[FrameChunk]:
        source, tally = self._source, self._source.tally
        shape = (source.info.height_px, source.info.width_px, 3)
        fitting = int(self._decode.chunk_mb * _MB / math.prod(shape))
        size = min(max(fitting, 1), MAX_CHUNK_FRAMES)
        with contextlib.closing(source.frames()) as frames:
            while True:
                # Filled in place: a list of frames and their stack would be twice the memory.
                rgb = np.empty((min(size, tally.n_wanted - tally.n_delivered), *shape), np.uint8)
                frame_index: list[int] = []
                is_damaged: list[bool] = []
                for frame in itertools.islice(frames, len(rgb)):
                    rgb[len(frame_index)] = frame.rgb
                    frame_index.append(frame.frame_index)
                    is_damaged.append(frame.is_damaged)
                if not frame_index:
                    return
                tally.n_delivered += len(frame_index)
                tally.n_damaged += sum(is_damaged)
                yield FrameChunk(
                    rgb=rgb[: len(frame_index)],
                    frame_index=np.array(frame_index, np.int64),
                    pts_s=source.pts_s[frame_index],
                    is_damaged=np.array(is_damaged),
                )


class _Frame(NamedTuple):
    frame_index: int
    rgb: Bytes
    is_damaged: bool


@dataclass(slots=True)
class _Tally:
    """What happened so far."""

    n_wanted: int
    n_delivered: int = 0
    n_decoded: int = 0
    n_damaged: int = 0
    n_segments: int = 0
    n_fallback: int = 0
    decoders: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class _Still:
    """The one frame of a still image."""

    def __init__(self, path: Path, max_mp: float) -> None:
        self._picture = read_image(path, max_mp)
        self.info = self._picture.info
        self.pts_s = np.zeros(1)
        message = self._picture.message
        self.tally = _Tally(
            n_wanted=1, n_decoded=1, decoders={"pillow"}, problems=[message] if message else []
        )

    def frames(self) -> Generator[_Frame]:
        yield _Frame(0, self._picture.rgb, self._picture.is_damaged)


class _Video:
    """The wanted frames of a video, segment by segment."""

    def __init__(self, path: Path, sampling: Sampling, decode: Decode, threads: int) -> None:
        self._path = path
        self._decode = decode
        self._threads = threads
        self.info, self._index = scan(path)
        self.pts_s = self._index.pts_s
        self._wanted = choose(self.pts_s, sampling)
        width, height = self.info.width_px, self.info.height_px
        self._stored = (height, width) if self.info.rotation_deg % 180 == 0 else (width, height)
        self._max_packets = decode.segment_mb * _MB / (width * height * 3)
        is_concerned = sampling.end_s is None or self._wanted[self._index.packet < 0].any()
        self.tally = _Tally(
            n_wanted=int(self._wanted.sum()),
            problems=[self._index.problem] if self._index.problem and is_concerned else [],
        )

    def frames(self) -> Generator[_Frame]:
        segments = plan(
            self._index,
            self._wanted,
            min_frames=self._decode.segment_frames,
            max_packets=self._max_packets,
        )
        keep_from = [*(segment.first for segment in segments[1:]), len(self._index.frame)]
        with PacketFeed(self._path) as feed:
            feed.stream.codec_context.thread_count = self._threads
            feed.stream.codec_context.thread_type = "AUTO" if self._threads > 1 else "NONE"
            for segment, keep in zip(segments, keep_from, strict=True):
                self.tally.n_segments += 1
                packets = feed.stretch(segment.first, segment.last, keep)
                yield from self._segment(segment, feed.stream, packets)

    def _segment(
        self, segment: Segment, stream: VideoStream, packets: Iterable[tuple[int, Packet]]
    ) -> Iterator[_Frame]:
        """Frames of one segment, upright."""
        decoded = None
        if self._is_for_decord(segment):
            packets = list(packets)
            decoded = self._decord(segment, stream, packets)
        if decoded is None:
            self.tally.n_fallback += self._decode.decoder != "pyav"
            self.tally.decoders.add("pyav")
            decoded = self._pyav(segment, stream, packets)
        else:
            self.tally.decoders.add("decord")
        turns = self.info.rotation_deg // 90
        for frame in decoded:
            yield frame._replace(rgb=np.rot90(frame.rgb, turns))

    def _is_for_decord(self, segment: Segment) -> bool:
        span = slice(segment.first, segment.last + 1)
        n_packets = span.stop - span.start
        is_sparse = segment.n_wanted < _SPARSE * n_packets
        return (
            self._decode.decoder != "pyav"
            and not (self._decode.decoder == "auto" and is_sparse)
            and self.info.codec not in _NOT_FOR_DECORD
            and self._index.is_timed
            and n_packets <= self._max_packets
            and not self._index.is_corrupt[span].any()
        )

    def _decord(
        self, segment: Segment, stream: VideoStream, packets: list[tuple[int, Packet]]
    ) -> Iterator[_Frame] | None:
        """All frames of a segment, or None when Decord does not give every one.

        Nothing is handed on before the last frame has come: a frame lost on the way shows only
        then, and the frames after it have the wrong numbers.
        """
        index = self._index
        inside = [(at, packet) for at, packet in packets if index.gop[at] >= segment.gop]
        at = np.array([at for at, _ in inside])
        visible = at[np.argsort(index.order[at])]
        frame_index = index.frame[visible[~index.is_hidden[visible]]]
        is_ours = (segment.frames[0] <= frame_index) & (frame_index <= segment.frames[-1])
        is_wanted = is_ours & self._wanted[frame_index]
        try:
            carrier = remux(stream, [packet for _, packet in inside], index.order[at])
            pictures = _read_decord(carrier, is_wanted)
        except _DECORD_FAILED as error:
            begin_s = self.pts_s[segment.frames[0]]
            logger.debug("%s: Decord failed at %.3f s: %s", self._path, begin_s, error)
            return None
        self.tally.n_decoded += int(is_ours.sum())
        wanted = frame_index[is_wanted].tolist()
        return (_Frame(number, self._fitted(pictures.popleft()), False) for number in wanted)

    def _pyav(
        self, segment: Segment, stream: VideoStream, packets: Iterable[tuple[int, Packet]]
    ) -> Iterator[_Frame]:
        """The frames of a segment that can be saved, each as soon as it is decoded."""
        inside = ((at, packet) for at, packet in packets if self._index.gop[at] >= segment.gop)
        in_order = iter(np.flatnonzero(self._index.packet >= 0))
        newest = -1
        for source, picture, is_damaged in self._pictures(stream, inside, segment.last):
            number = int(self._index.frame[source] if self._index.is_timed else next(in_order, -1))
            if number not in segment.frames:
                continue
            self.tally.n_decoded += 1
            if self._wanted[number] and number > newest:
                newest = number
                yield _Frame(number, self._fit(picture), is_damaged)
            if number == segment.frames[-1]:
                return

    def _pictures(
        self, stream: VideoStream, packets: Iterable[tuple[int, Packet]], last: int
    ) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """What PyAV decodes: the packet it comes from, the picture, whether it is damaged.

        Packets get their position for a time. Decoders pass it on to the picture, which so tells
        where it comes from when others are lost. From a damaged packet on, all pictures of its
        group count as damaged: they are made from it.
        """
        damage = _Damage(self._index.gop)
        held: list[av.VideoFrame] = []
        stream.codec_context.flush_buffers()
        for at, packet in itertools.chain(packets, [(last, None)]):
            if packet is not None:
                packet.pts = packet.dts = at
                if self._index.is_corrupt[at]:
                    damage.begins(at)
            try:
                pictures = stream.codec_context.decode(packet)
            except av.FFmpegError:
                # Often the packet before is cut as well. With several threads the one at fault is
                # among the last few.
                pictures = []
                if not self._index.is_corrupt[at]:
                    damage.begins(max(at - self._threads, 0))
                    damage.begins(at)
            for picture in pictures:
                if picture.is_corrupt:
                    damage.begins(picture.pts or 0)
            # One step late, for what the next packet tells of this one.
            yield from damage.mark(held)
            held = pictures
        yield from damage.mark(held)

    def _fitted(self, rgb: Bytes) -> Bytes:
        if rgb.shape[:2] == self._stored:
            return rgb
        return self._fit(av.VideoFrame.from_ndarray(rgb, format="rgb24"))

    def _fit(self, picture: av.VideoFrame) -> Bytes:
        """RGB in the size of the first frame."""
        height, width = self._stored
        if (picture.height, picture.width) != self._stored:
            problem = f"the picture size changes, all frames are scaled to {width} x {height}"
            if problem not in self.tally.problems:
                self.tally.problems.append(problem)
        return cast(Bytes, picture.to_ndarray(format="rgb24", width=width, height=height))


class _Damage:
    """From which packet on the pictures of each group are damaged."""

    def __init__(self, gop: Ints) -> None:
        self._gop = gop
        self._begin: dict[int, int] = {}

    def begins(self, at: int) -> None:
        gop = int(self._gop[at])
        self._begin[gop] = min(at, self._begin.get(gop, at))

    def mark(self, pictures: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """Pictures with the packet that each comes from, and whether it is damaged."""
        for picture in pictures:
            source = picture.pts or 0
            yield source, picture, source >= self._begin.get(int(self._gop[source]), math.inf)


def _read_decord(carrier: bytes, is_wanted: Bools) -> deque[Bytes]:
    """Decode the first ``len(is_wanted)`` frames of a Matroska file, keep those that are wanted."""
    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(io.BytesIO(carrier), num_threads=1, fault_tol=_NO_FILL_IN)
    pictures: deque[Bytes] = deque()
    for is_kept in is_wanted:
        picture = reader.next()
        if is_kept:
            pictures.append(picture.asnumpy())
    return pictures
