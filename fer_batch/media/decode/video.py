"""One video: cut into parts that any thread can decode, each with Decord or PyAV.

A part is a segment: its packets go into a Matroska file in memory and that to Decord, or one by one
to PyAV where Decord is not up to it. Which frames there are and when comes from the packets alone
(`fer_batch.media.decode.index`); no decoder is asked.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import logging
import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue
from typing import cast

import av
import decord
import numpy as np
from av.video.stream import VideoStream

from fer_batch.config import Decode, Sampling
from fer_batch.media.decode.demux import Packet, PacketFeed, open_video, remux, scan
from fer_batch.media.decode.parts import Frame, Part
from fer_batch.media.decode.segments import Segment, choose, piece_of, plan
from fer_batch.records import Bools, Bytes, Ints, MediaFile

logger = logging.getLogger(__name__)

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


class Video:
    """The wanted frames of a video or a piece of it, part by part."""

    def __init__(
        self,
        file: MediaFile,
        sampling: Sampling,
        decode: Decode,
        threads: int,
        only: Sequence[int] | None = None,
    ) -> None:
        self._path = file.path
        self._decode = decode
        self._threads = threads
        self.info, self._index = scan(file.path)
        self.pts_s = self._index.pts_s
        self._wanted = choose(self.pts_s, sampling)
        if only is not None:
            self._wanted &= np.isin(np.arange(len(self.pts_s)), only)
        width, height = self.info.width_px, self.info.height_px
        self._stored = (height, width) if self.info.rotation_deg % 180 == 0 else (width, height)
        self._max_packets = decode.segment_mb * _MB / (width * height * 3)
        is_concerned = sampling.end_s is None or self._wanted[self._index.packet < 0].any()
        self.problems = [self._index.problem] if self._index.problem and is_concerned else []
        segments = plan(
            self._index,
            self._wanted,
            min_frames=decode.segment_frames,
            max_packets=self._max_packets,
        )
        segments, frames = piece_of(segments, file.piece, n_frames=len(self.pts_s))
        self.n_wanted = int(self._wanted[frames].sum())
        self.n_parts = len(segments)
        keep_from = [*(segment.first for segment in segments[1:]), len(self._index.frame)]
        self._left = iter(zip(segments, keep_from, strict=False))
        self._feed = PacketFeed(file.path)
        self._containers = [self._feed.container]
        self._idle: SimpleQueue[VideoStream] = SimpleQueue()
        self._idle.put(self._threaded(self._feed.stream))

    def close(self) -> None:
        """Close the file; no part may be read any more."""
        for container in self._containers:
            container.close()

    def take(self) -> Part:
        """The next part, its packets read from the file unless they are too many to hold."""
        segment, keep_from = next(self._left)
        packets: Iterable[tuple[int, Packet]]
        packets = self._feed.stretch(segment.first, segment.last, keep_from)
        is_long = segment.last + 1 - segment.first > self._max_packets
        part = Part(n_wanted=segment.n_wanted, is_open=is_long)
        part.frames = self._frames(part, segment, packets if is_long else list(packets))
        return part

    def _frames(
        self, part: Part, segment: Segment, packets: Iterable[tuple[int, Packet]]
    ) -> Generator[Frame]:
        """Frames of one segment, upright."""
        decoded = self._decord(part, segment, packets) if isinstance(packets, list) else None
        if decoded is None:
            part.n_fallback += self._decode.decoder != "pyav"
            part.decoders.add("pyav")
            decoded = self._pyav(part, segment, packets)
        else:
            part.decoders.add("decord")
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
            and not self._index.is_corrupt[span].any()
        )

    def _decord(
        self, part: Part, segment: Segment, packets: list[tuple[int, Packet]]
    ) -> Iterator[Frame] | None:
        """All frames of a segment, or None when Decord does not give every one.

        Nothing is handed on before the last frame has come: a frame lost on the way shows only
        then, and the frames after it have the wrong numbers.
        """
        if not self._is_for_decord(segment):
            return None
        index = self._index
        inside = [(at, packet) for at, packet in packets if index.gop[at] >= segment.gop]
        at = np.array([at for at, _ in inside])
        visible = at[np.argsort(index.order[at])]
        frame_index = index.frame[visible[~index.is_hidden[visible]]]
        is_ours = (segment.frames[0] <= frame_index) & (frame_index <= segment.frames[-1])
        is_wanted = is_ours & self._wanted[frame_index]
        try:
            carrier = remux(self._feed.stream, [packet for _, packet in inside], index.order[at])
            pictures = _read_decord(carrier, is_wanted)
        except _DECORD_FAILED as error:
            begin_s = self.pts_s[segment.frames[0]]
            logger.debug("%s: Decord failed at %.3f s: %s", self._path, begin_s, error)
            return None
        part.n_decoded += int(is_ours.sum())
        wanted = frame_index[is_wanted].tolist()
        return (Frame(number, self._fitted(part, pictures.popleft()), False) for number in wanted)

    def _pyav(
        self, part: Part, segment: Segment, packets: Iterable[tuple[int, Packet]]
    ) -> Iterator[Frame]:
        """The frames of a segment that can be saved, each as soon as it is decoded."""
        inside = ((at, packet) for at, packet in packets if self._index.gop[at] >= segment.gop)
        in_order = iter(np.flatnonzero(self._index.packet >= 0))
        newest = -1
        with self._decoder() as stream:
            for source, picture, is_damaged in self._pictures(stream, inside, segment.last):
                frame = self._index.frame[source] if self._index.is_timed else next(in_order, -1)
                number = int(frame)
                if number not in segment.frames:
                    continue
                part.n_decoded += 1
                if self._wanted[number] and number > newest:
                    newest = number
                    yield Frame(number, self._fit(part, picture), is_damaged)
                if number == segment.frames[-1]:
                    return

    def _threaded(self, stream: VideoStream) -> VideoStream:
        stream.codec_context.thread_count = self._threads
        stream.codec_context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        return stream

    @contextlib.contextmanager
    def _decoder(self) -> Iterator[VideoStream]:
        """The stream of a decoder that nobody else uses; the file is opened anew for more."""
        try:
            stream = self._idle.get_nowait()
        except Empty:
            container, stream = open_video(self._path)
            self._containers.append(container)
            self._threaded(stream)
        try:
            yield stream
        finally:
            self._idle.put(stream)

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

    def _fitted(self, part: Part, rgb: Bytes) -> Bytes:
        if not decord.__version__.startswith("0."):  # decord2 gives upright frames
            rgb = np.rot90(rgb, -(self.info.rotation_deg // 90))
        if rgb.shape[:2] == self._stored:
            return rgb
        return self._fit(part, av.VideoFrame.from_ndarray(rgb, format="rgb24"))

    def _fit(self, part: Part, picture: av.VideoFrame) -> Bytes:
        """RGB in the size of the first frame."""
        height, width = self._stored
        if (picture.height, picture.width) != self._stored:
            problem = f"the picture size changes, all frames are scaled to {width} x {height}"
            if problem not in part.problems:
                part.problems.append(problem)
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
