"""Choose the wanted frames of a video, and the segments of packets that have to be decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_batch.config import Sampling
from fer_batch.media.decode.index import Index
from fer_batch.records import Bools, Piece, Seconds

_TICK_S = 1e-3
"""Matroska rounds times to this, so a frame may be early by as much."""


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive packets that can be decoded by themselves."""

    first: int
    """The first packet: a key frame, or the first packet of the file."""
    last: int
    """The last packet that the wanted frames need. Segments may overlap: where pictures are stored
    after a key frame and shown before it, this segment and the next one need the key frame."""
    gop: int
    """The first packet's group of pictures; earlier groups cannot be decoded from here."""
    frames: range
    """The ``frame_index`` of all frames from the first wanted one to the last."""
    n_wanted: int

    @property
    def n_packets(self) -> int:
        """How many packets have to be decoded."""
        return self.last + 1 - self.first


def choose(pts_s: Seconds, sampling: Sampling) -> Bools:
    """(F,) bool, True for the frames that ``sampling`` asks for.

    `every` and `fps` count from the first frame of the file, not of the chosen time span, so that
    adjacent spans together give the same frames as the whole. `fps` takes the first frame of each
    period.
    """
    wanted = np.ones(len(pts_s), np.bool_)
    if sampling.fps is not None:
        turn = np.floor((pts_s - pts_s[0] + _TICK_S) * sampling.fps)
        wanted[1:] = turn[1:] > np.maximum.accumulate(turn)[:-1]
    else:
        wanted[np.arange(len(pts_s)) % sampling.every != 0] = False
    if sampling.start_s is not None:
        wanted &= pts_s >= sampling.start_s
    if sampling.end_s is not None:
        wanted &= pts_s < sampling.end_s
    return wanted


def plan(index: Index, wanted: Bools, *, min_frames: int, max_packets: float) -> list[Segment]:
    """Divide a video into segments and trim them to the wanted frames.

    Groups of pictures are joined until a segment has ``min_frames`` frames, but not beyond
    ``max_packets`` packets. Segments without a wanted frame are left out.
    """
    is_there = index.packet >= 0
    gop_of = np.maximum.accumulate(np.where(is_there, index.gop[index.packet], 0))
    frame_bounds = np.searchsorted(gop_of, np.arange(len(index.start) + 1)).tolist()
    packet_bounds = [*index.start.tolist(), len(index.frame)]
    segments = []
    begin = 0
    while begin < len(index.start):
        end = begin + 1
        while (
            end < len(index.start)
            and frame_bounds[end] - frame_bounds[begin] < min_frames
            and packet_bounds[end + 1] - packet_bounds[begin] <= max_packets
        ):
            end += 1
        span = slice(frame_bounds[begin], frame_bounds[end])
        frames = span.start + np.flatnonzero(wanted[span] & is_there[span])
        if len(frames):
            gop = int(gop_of[frames[0]])
            last = index.packet[frames].max() if index.is_timed else packet_bounds[-1] - 1
            segments.append(
                Segment(
                    first=packet_bounds[gop],
                    last=int(last),
                    gop=gop,
                    frames=range(int(frames[0]), int(frames[-1]) + 1),
                    n_wanted=len(frames),
                )
            )
        begin = end
    return segments


def piece_of(
    segments: list[Segment], piece: Piece, *, n_frames: int
) -> tuple[list[Segment], slice]:
    """The segments of a piece, and the range of frames that belongs to the piece.

    Pieces have about equally many segments; where there are more pieces than segments, some are
    empty. Each frame of the video belongs to exactly one piece: a frame between two segments
    belongs to the earlier one.
    """
    n = max(len(segments), 1)
    first, stop = (number * n // piece.n for number in (piece.number, piece.number + 1))
    starts = [0, *(segment.frames[0] for segment in segments[1:]), n_frames]
    return segments[first:stop], slice(starts[first], starts[stop])
