"""Read a video in segments that several threads can decode, each with Decord or PyAV.

Which frames there are, and when, is known from the packets alone (`fer_batch.media.decode.index`);
the decoders are not asked.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Generator, Iterable, Sequence

import numpy as np

from fer_batch.config import Decode, Sampling
from fer_batch.media.decode.decoder import (
    DecodedFrame,
    Decoder,
    IncompleteError,
    Selection,
    Tally,
)
from fer_batch.media.decode.decord_decoder import DecordDecoder, find_decord
from fer_batch.media.decode.demux import Packet, PacketFeed, scan
from fer_batch.media.decode.pyav_decoder import PyavDecoder
from fer_batch.media.decode.segments import Segment, choose, piece_of, plan
from fer_batch.media.decode.source import SegmentReader
from fer_batch.records import DecodeReport, FrameChunk, MediaFile

logger = logging.getLogger(__name__)

MAX_CHUNK_FRAMES = 64
_MB = 1_000_000
_SPARSE = 0.5
"""Where a smaller fraction of the frames is wanted, PyAV is faster: it converts only wanted frames
to RGB, and Decord converts all."""
_NO_FALLBACK = "Decord cannot decode all frames: set decode.decoder to auto"


class Video:
    """The wanted frames of a video, or of a piece of it; a `SegmentedSource`."""

    def __init__(
        self,
        file: MediaFile,
        sampling: Sampling,
        decode: Decode,
        threads: int,
        only: Sequence[int] | None = None,
    ) -> None:
        decord = find_decord(decode)
        self.info, index = scan(file.path)
        is_wanted = choose(index.pts_s, sampling)
        if only is not None:
            is_wanted &= np.isin(np.arange(len(index.pts_s)), only)
        self._selection = Selection(file.path, self.info, index, is_wanted)
        self._decode = decode
        frame_bytes = self.info.width_px * self.info.height_px * 3
        self._max_packets = decode.segment_mb * _MB / frame_bytes
        self._chunk_frames = min(max(int(decode.chunk_mb * _MB / frame_bytes), 1), MAX_CHUNK_FRAMES)
        concerns_span = sampling.end_s is None or is_wanted[index.packet < 0].any()
        self._problems = [index.problem] if index.problem and concerns_span else []
        segments = plan(
            index, is_wanted, min_frames=decode.segment_frames, max_packets=self._max_packets
        )
        segments, frames = piece_of(segments, file.piece, n_frames=len(index.pts_s))
        self._n_wanted = int(is_wanted[frames].sum())
        self.n_segments = len(segments)
        keep_from = [*(segment.first for segment in segments[1:]), len(index.frame)]
        self._left = iter(zip(segments, keep_from, strict=False))
        self._tallies: list[Tally] = []
        self._feed = PacketFeed(file.path)
        self._decoders: list[Decoder] = []
        self._cleanup = contextlib.ExitStack()
        self._cleanup.callback(self._feed.close)
        if decord:
            self._decoders.append(
                DecordDecoder(decord, self._selection, self._feed.stream, self._max_packets)
            )
        if decode.decoder != "decord":
            pyav = PyavDecoder(self._selection, self._feed.stream, threads)
            self._decoders.append(pyav)
            self._cleanup.callback(pyav.close)

    def close(self) -> None:
        """Close the file; no segment can be read any more."""
        self._cleanup.close()

    def chunks(self) -> Generator[FrameChunk]:
        """The wanted frames in order of time; damaged ones are marked, lost ones left out.

        Raises:
            DecodeError: The file was changed while it was read.
        """
        for _ in range(self.n_segments):
            yield from self.next_segment().chunks

    def next_segment(self) -> SegmentReader:
        """The next segment. Its packets are read now, unless they are too many to hold in memory.

        Raises:
            DecodeError: The file was changed while it was read.
        """
        segment, keep_from = next(self._left)
        packets: Iterable[tuple[int, Packet]]
        packets = self._feed.read(segment.first, segment.last, keep_from)
        is_streamed = segment.n_packets > self._max_packets
        tally = Tally()
        self._tallies.append(tally)
        chunks = self._chunks(segment, packets if is_streamed else list(packets), tally)
        return SegmentReader(chunks, is_streamed)

    @property
    def report(self) -> DecodeReport:
        """How decoding went; complete when all segments were read to their ends."""
        tallies = self._tallies
        problems = self._problems + [text for tally in tallies for text in tally.problems]
        decoders = sorted({tally.decoder for tally in tallies if tally.decoder})
        n_with_pyav = sum(tally.decoder == "pyav" for tally in tallies)
        return DecodeReport(
            decoder="+".join(decoders) or "none",
            n_frames_decoded=sum(tally.n_decoded for tally in tallies),
            n_frames_damaged=sum(tally.n_damaged for tally in tallies),
            n_frames_missing=self._n_wanted - sum(tally.n_delivered for tally in tallies),
            n_frames_wanted=self._n_wanted,
            n_segments=self.n_segments,
            n_segments_fallback=n_with_pyav if self._decode.decoder == "auto" else 0,
            problems=tuple(dict.fromkeys(problems)),
        )

    def _chunks(
        self, segment: Segment, packets: Iterable[tuple[int, Packet]], tally: Tally
    ) -> Generator[FrameChunk]:
        """The wanted frames of a segment, upright."""
        shape = (self.info.height_px, self.info.width_px, 3)
        turns = self.info.rotation_deg // 90
        decoded = self._decoded(segment, packets, tally)
        if decoded is None:
            tally.problems.append(_NO_FALLBACK)
            return
        with contextlib.closing(decoded) as frames:
            while True:
                n_frames = min(self._chunk_frames, segment.n_wanted - tally.n_delivered)
                # Filled in place: a list of frames and their stack would need twice the memory.
                rgb = np.empty((n_frames, *shape), np.uint8)
                frame_index: list[int] = []
                is_damaged: list[bool] = []
                for frame in itertools.islice(frames, n_frames):
                    rgb[len(frame_index)] = np.rot90(frame.rgb, turns)
                    frame_index.append(frame.frame_index)
                    is_damaged.append(frame.is_damaged)
                if not frame_index:
                    return
                tally.n_delivered += len(frame_index)
                tally.n_damaged += sum(is_damaged)
                yield FrameChunk(
                    rgb=rgb[: len(frame_index)],
                    frame_index=np.array(frame_index, np.int64),
                    pts_s=self._selection.index.pts_s[frame_index],
                    is_damaged=np.array(is_damaged),
                )

    def _decoded(
        self, segment: Segment, packets: Iterable[tuple[int, Packet]], tally: Tally
    ) -> Generator[DecodedFrame] | None:
        """The wanted frames of a segment, from the first decoder that can give them."""
        is_sparse = segment.n_wanted < _SPARSE * segment.n_packets
        for decoder in self._decoders[-1:] if is_sparse else self._decoders:
            if not decoder.can_decode(segment):
                continue
            try:
                frames = decoder.decode(segment, packets, tally)
            except IncompleteError as error:
                logger.debug("%s", error)
                continue
            tally.decoder = decoder.name
            return frames
        return None
