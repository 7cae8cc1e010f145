"""Decode segments with PyAV, packet by packet; what is damaged is saved as far as possible."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Generator, Iterable, Iterator
from queue import Empty, SimpleQueue

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from fer_batch.media.decode.decoder import DecodedFrame, Selection, Tally
from fer_batch.media.decode.demux import Packet, open_video
from fer_batch.media.decode.segments import Segment
from fer_batch.records import Ints


class PyavDecoder:
    """Decodes anything, and gives each frame as soon as it is decoded.

    Args:
        selection: The video.
        stream: Its open stream; the file is opened again for every further thread.
        threads: How many threads each stream decodes with.
    """

    name = "pyav"

    def __init__(self, selection: Selection, stream: VideoStream, threads: int) -> None:
        self._selection = selection
        self._threads = threads
        self._opened: list[InputContainer] = []
        self._idle: SimpleQueue[VideoStream] = SimpleQueue()
        self._idle.put(self._configured(stream))

    def close(self) -> None:
        """Close the files that were opened for further threads."""
        for container in self._opened:
            container.close()

    def can_decode(self, segment: Segment) -> bool:
        """Always True."""
        return True

    def decode(
        self, segment: Segment, packets: Iterable[tuple[int, Packet]], tally: Tally
    ) -> Generator[DecodedFrame]:
        """The wanted frames of a segment that can be saved, each as soon as it is decoded."""
        selection, index = self._selection, self._selection.index
        inside = ((at, packet) for at, packet in packets if index.gop[at] >= segment.gop)
        in_order = iter(np.flatnonzero(index.packet >= 0))
        newest = -1
        with self._stream() as stream:
            for source, picture, is_damaged in self._pictures(stream, inside, segment.last):
                frame = index.frame[source] if index.is_timed else next(in_order, -1)
                number = int(frame)
                if number not in segment.frames:
                    continue
                tally.n_decoded += 1
                if selection.is_wanted[number] and number > newest:
                    newest = number
                    yield DecodedFrame(number, selection.fit(picture, tally), is_damaged)
                if number == segment.frames[-1]:
                    return

    def _configured(self, stream: VideoStream) -> VideoStream:
        stream.codec_context.thread_count = self._threads
        stream.codec_context.thread_type = "AUTO" if self._threads > 1 else "NONE"
        return stream

    @contextlib.contextmanager
    def _stream(self) -> Iterator[VideoStream]:
        """A stream that no other thread uses."""
        try:
            stream = self._idle.get_nowait()
        except Empty:
            container, stream = open_video(self._selection.path)
            self._opened.append(container)
            self._configured(stream)
        try:
            yield stream
        finally:
            self._idle.put(stream)

    def _pictures(
        self, stream: VideoStream, packets: Iterable[tuple[int, Packet]], last: int
    ) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """The decoded pictures, each with its packet and whether it is damaged.

        For decoding, the time of each packet is replaced by its position. The decoder copies it to
        the picture, which thus tells its packet even when others are lost. From a damaged packet
        on, all pictures of the same group count as damaged, as they are derived from it.
        """
        damage = _Damage(self._selection.index.gop)
        is_corrupt = self._selection.index.is_corrupt
        held: list[av.VideoFrame] = []
        stream.codec_context.flush_buffers()
        for at, packet in itertools.chain(packets, [(last, None)]):
            if packet is not None:
                packet.pts = packet.dts = at
                if is_corrupt[at]:
                    damage.add(at)
            try:
                pictures = stream.codec_context.decode(packet)
            except av.FFmpegError:
                # Often the packet before is damaged as well. With several threads, any of the last
                # few packets can be the cause.
                pictures = []
                if not is_corrupt[at]:
                    damage.add(max(at - self._threads, 0))
                    damage.add(at)
            for picture in pictures:
                if picture.is_corrupt:
                    damage.add(picture.pts or 0)
            # One step late, as the next packet can show that these pictures are damaged.
            yield from damage.mark(held)
            held = pictures
        yield from damage.mark(held)


class _Damage:
    """The packet from which on the pictures of each group are damaged."""

    def __init__(self, gop: Ints) -> None:
        self._gop = gop
        self._first: dict[int, int] = {}

    def add(self, at: int) -> None:
        """Note a damaged packet."""
        gop = int(self._gop[at])
        self._first[gop] = min(at, self._first.get(gop, at))

    def mark(self, pictures: list[av.VideoFrame]) -> Iterator[tuple[int, av.VideoFrame, bool]]:
        """Pictures, each with its packet and whether it is damaged."""
        for picture in pictures:
            source = picture.pts or 0
            yield source, picture, source >= self._first.get(int(self._gop[source]), math.inf)
