"""Read the packets of a video file, and copy some of them into another container.

``scan`` reads the file once and tells which frames it holds; only a few key frames are decoded.
`PacketFeed` reads it a second time, segment by segment, so that the whole file is never in memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, cast

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from fer_batch.errors import DecodeError, MediaError
from fer_batch.media.decode.index import Index, Packets, build
from fer_batch.records import Ints, MediaInfo

Packet: TypeAlias = "av.Packet[VideoStream]"

_AVI_HEADER_BYTES = 8
_CONTIGUOUS = frozenset({"matroska,webm", "flv"})
"""Containers with nothing but short headers between packets."""
_MAX_HEADER_BYTES = 1024
_WITHOUT_ZEROS = frozenset({"h264", "hevc", "mpeg4"})
"""Codecs that never write `_ZEROS`: where they appear, a block of the disk was lost."""
_ZEROS = bytes(8)
_BROADCAST = cast(int, av.format.Flags.ts_discont.value)
"""Flag of formats for broadcast: clocks may restart, packets may be padded with zeros."""
_FAR = 2**63
_CARRIER_TICK = Fraction(1, 25)
_GUESSED_RATE = Fraction(25)
_N_KEYS_TRIED = 4
_VP8_IS_SHOWN = 0x10


@dataclass(slots=True)
class _Columns:
    """The video packets while they are read."""

    pts: list[int | None] = field(default_factory=list)
    dts: list[int | None] = field(default_factory=list)
    is_key: list[bool] = field(default_factory=list)
    is_discard: list[bool] = field(default_factory=list)
    is_hidden: list[bool] = field(default_factory=list)
    is_corrupt: list[bool] = field(default_factory=list)
    keys: list[Packet] = field(default_factory=list)
    """The first few key frames."""
    n_empty: int = 0
    end_s: float = 0.0
    problem: str | None = None

    def add(self, packet: Packet, *, is_hidden: bool, is_corrupt: bool, has_gap: bool) -> None:
        """Add a packet; ``has_gap``: bytes are missing between the packet before and this one."""
        if has_gap and self.is_corrupt:
            self.is_corrupt[-1] = True
        self.pts.append(packet.pts)
        self.dts.append(packet.dts)
        self.is_key.append(packet.is_keyframe)
        self.is_discard.append(packet.is_discard)
        self.is_hidden.append(is_hidden)
        self.is_corrupt.append(is_corrupt or (has_gap and not packet.is_keyframe))
        if packet.is_keyframe and len(self.keys) < _N_KEYS_TRIED:
            self.keys.append(packet)


def scan(path: Path) -> tuple[MediaInfo, Index]:
    """Read the packets of a video once, and find out which frames it holds.

    Raises:
        MediaError: The file cannot be opened, is no video, or holds no frame.
        DecodeError: There is no decoder for its codec.
    """
    container, stream = open_video(path)
    with container:
        columns = _read(container, stream)
        alone = [_decode_alone(stream, packet) for packet in columns.keys]
        can_enter = any(frame is not None and not frame.is_corrupt for frame in alone[1:])
        packets = _packets(container, stream, columns, can_enter)
        if not packets.is_shown.any():
            raise MediaError(f"{path}: its video stream holds no frame", path)
        index = build(packets)
        end_s = float(index.pts_s[-1]) + packets.frame_ticks * packets.tick_s
        first = next(filter(None, alone), None)
        turn = round(first.rotation / 90) % 4 if first else 0
        size = first or stream.codec_context
        if not size.width:
            raise DecodeError(f"{path}: none of its frames can be decoded", path)
        info = MediaInfo(
            width_px=size.height if turn % 2 else size.width,
            height_px=size.width if turn % 2 else size.height,
            rotation_deg=turn * 90,
            frame_rate=_rate(stream),
            duration_s=end_s if packets.duration_s is None else packets.duration_s,
            n_frames_container=len(index.pts_s),
            codec=stream.codec.canonical_name,
            start_s=index.start_s,
        )
    return info, index


class PacketFeed:
    """The packets of a video, in file order; each is read from the file once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container, self.stream = open_video(path)
        self._packets = enumerate(p for p in self._container.demux(self.stream) if p.size)
        self._kept: dict[int, Packet] = {}

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def read(self, first: int, last: int, keep_from: int) -> Iterator[tuple[int, Packet]]:
        """Packets ``first`` to ``last`` (inclusive) with their positions.

        Calls ask for later and later packets. Those from ``keep_from`` on are kept for the next
        call, which may ask for them again.

        Raises:
            DecodeError: The file ends before ``last``: it was changed since it was scanned.
        """
        self._kept = {at: packet for at, packet in self._kept.items() if at >= first}
        for position in range(first, last + 1):
            packet = self._kept.get(position) or self._read_to(position)
            if position >= keep_from:
                self._kept[position] = packet
            yield position, packet

    def _read_to(self, position: int) -> Packet:
        try:
            return next(packet for at, packet in self._packets if at == position)
        except (StopIteration, av.FFmpegError) as error:
            message = f"{self._path}: the file was changed while it was read"
            raise DecodeError(message, self._path) from error


def remux(stream: VideoStream, packets: list[Packet], order: Ints) -> bytes:
    """A Matroska file in memory that holds these packets, unchanged, at even times.

    Args:
        stream: The stream that the packets come from.
        packets: N packets in file order; the first can be decoded by itself.
        order: (N,) rank of each packet's picture in order of time; gaps are allowed.

    Raises:
        ValueError: Matroska cannot hold this codec.
        av.FFmpegError: Matroska cannot hold these packets.
    """
    place = np.argsort(np.argsort(order))
    delay = int(np.max(np.arange(len(packets)) - place))
    carrier = io.BytesIO()
    with av.open(carrier, "w", format="matroska") as out:
        track = out.add_stream_from_template(stream)
        for position, (packet, rank) in enumerate(zip(packets, place.tolist(), strict=True)):
            copy = av.Packet(bytes(packet))
            copy.stream, copy.is_keyframe, copy.time_base = track, packet.is_keyframe, _CARRIER_TICK
            copy.pts, copy.dts, copy.duration = rank, position - delay, 1
            out.mux_one(copy)
    return carrier.getvalue()


def open_video(path: Path) -> tuple[InputContainer, VideoStream]:
    """Open a file and choose its first video stream that is not a cover picture.

    Raises:
        MediaError: The file cannot be opened, or has no video stream.
        DecodeError: There is no decoder for its codec.
    """
    try:
        if path.stat().st_size == 0:
            raise MediaError(f"{path}: the file is empty", path)
        # A playlist in disguise must not reach for the network.
        container = av.open(
            str(path), options={"protocol_whitelist": "file"}, metadata_errors="replace"
        )
    except av.InvalidDataError as error:
        message = f"{path}: not a video, or its header is missing or damaged"
        raise MediaError(message, path) from error
    except (OSError, av.FFmpegError) as error:
        raise MediaError(f"{path}: cannot be opened: {error.strerror}", path) from error
    pictures = av.stream.Disposition.attached_pic
    videos = [video for video in container.streams.video if not video.disposition & pictures]
    if videos and videos[0].codec_context is not None:
        return container, videos[0]
    container.close()
    if videos:
        raise DecodeError(f"{path}: there is no decoder for its video codec", path)
    raise MediaError(f"{path}: has no video stream", path)


def _read(container: InputContainer, stream: VideoStream) -> _Columns:
    columns = _Columns()
    kind = container.format.name
    codec = stream.codec.canonical_name
    knows_zeros = codec in _WITHOUT_ZEROS and not container.format.flags & _BROADCAST
    # FFmpeg counts the packets that it finds. After a gap only AVI's own table is right.
    table = {e.pos + _AVI_HEADER_BYTES: e.timestamp for e in stream.index_entries if kind == "avi"}
    n_skipped_before, end_of_last, has_gap = 0, _FAR, False
    try:
        for packet in container.demux():
            at = packet.dts if packet.pts is None else packet.pts
            if at is not None:
                end_s = float((at + (packet.duration or 0)) * packet.time_base)
                columns.end_s = max(columns.end_s, end_s)
            if kind in _CONTIGUOUS and packet.pos is not None:
                has_gap |= packet.pos > end_of_last + _MAX_HEADER_BYTES
                side_bytes = sum(side.data_size for side in packet.iter_sidedata())
                end_of_last = packet.pos + packet.size + side_bytes
            if packet.stream_index != stream.index:
                continue
            if not packet.size:
                columns.n_empty += at is not None
                continue
            number = table.get(packet.pos or 0)
            if number is not None:
                n_skipped = number - (packet.dts or 0)
                has_gap, n_skipped_before = n_skipped != n_skipped_before, n_skipped
                packet.pts = packet.dts = number
            data = bytes(packet)
            has_gap |= knows_zeros and data.startswith(_ZEROS)
            columns.add(
                cast(Packet, packet),
                is_hidden=codec == "vp8" and not data[0] & _VP8_IS_SHOWN,
                is_corrupt=packet.is_corrupt or (knows_zeros and _ZEROS in data),
                has_gap=has_gap,
            )
            has_gap = False
    except av.FFmpegError as error:
        columns.problem = f"reading stopped: {error.strerror}"
    return columns


def _decode_alone(stream: VideoStream, packet: Packet) -> av.VideoFrame | None:
    """The picture that a fresh decoder gives for this packet alone, if any."""
    context = stream.codec_context
    try:
        frames = [*context.decode(packet), *context.decode(None)]
    except av.FFmpegError:
        frames = []
    context.flush_buffers()
    return frames[0] if frames else None


def _rate(stream: VideoStream) -> Fraction | None:
    return stream.average_rate or stream.guessed_rate or None


def _packets(
    container: InputContainer, stream: VideoStream, columns: _Columns, can_enter: bool
) -> Packets:
    is_mp4 = "mp4" in container.format.name
    n_listed = len(stream.index_entries) if is_mp4 else stream.frames
    tick = stream.time_base or Fraction(1, av.time_base)
    is_hidden = np.array(columns.is_hidden, bool)
    return Packets(
        pts=np.array(columns.pts, np.float64),
        dts=np.array(columns.dts, np.float64),
        is_key=np.array(columns.is_key, bool),
        is_shown=~(is_hidden | np.array(columns.is_discard, bool)),
        is_hidden=is_hidden,
        is_corrupt=np.array(columns.is_corrupt, bool),
        container=container.format.name,
        tick_s=float(tick),
        frame_ticks=float(1 / ((_rate(stream) or _GUESSED_RATE) * tick)),
        first_tick=float(stream.start_time or 0),
        start_s=None if container.start_time is None else container.start_time / av.time_base,
        end_s=columns.end_s,
        duration_s=None if container.duration is None else container.duration / av.time_base,
        n_promised=max(n_listed - columns.n_empty, 0),
        lists_frames=is_mp4,
        can_enter=can_enter,
        restarts_clock=bool(container.format.flags & _BROADCAST),
        reorders=bool(stream.codec_context.has_b_frames),
        problem=columns.problem,
    )
