"""Which frames of a video are wanted, and the stretches of packets that have to be decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fer_batch.config import Sampling
from fer_batch.media.decode.index import Index
from fer_batch.records import Bools, Piece, Seconds

_TICK_S = 1e-3
"""Times in Matroska are rounded to this; a frame may be so much early for its turn."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of packets that can be decoded by itself."""

    first: int
    """Packet to begin with: a key frame, or the first of the file."""
    last: int
    """Last packet that the wanted frames need. It may lie beyond the next segment's first: of
    pictures stored after a key frame and shown before it, both segments need the key frame."""
    gop: int
    """Group of the first packet; pictures of an earlier group cannot be decoded from here."""
    frames: range
    """``frame_index`` from the first wanted frame to the last."""
    n_wanted: int


def choose(pts_s: Seconds, sampling: Sampling) -> Bools:
    """(F,) bool, the frames that ``sampling`` asks for.

    `every` and `fps` count from the first frame of the file, not of the chosen span: spans that
    meet give together what the whole gives. `fps` takes the first frame of each period.
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
    """Cut a video into segments and trim them to the wanted frames.

    Groups of pictures are joined until a segment shows ``min_frames``, as long as it has no more
    than ``max_packets``. Segments without a wanted frame are left out.
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
    """The segments of a piece, and the frames of the video that it answers for.

    Pieces have about as many segments each; some are empty where there are more of them. Their
    frames are those of the whole, each once: up to a segment they belong to the one before.
    """
    n = max(len(segments), 1)
    first, stop = (number * n // piece.n for number in (piece.number, piece.number + 1))
    starts = [0, *(segment.frames[0] for segment in segments[1:]), n_frames]
    return segments[first:stop], slice(starts[first], starts[stop])
