"""Work out the frames of a video from its packets: which, when, and where decoding can begin.

``pts_s`` is 0 at the start of the file as players count it: the earliest start among its streams
(`Packets.start_s` in the container's own time). A first frame that is later keeps its offset, so
that sound from the same container stays in step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fer_batch.records import Bools, Ints, Seconds

_EVEN = 0.25
"""Intervals between frames that differ from the usual one by a smaller fraction count as equal."""
_STEADY = 0.8
"""The rate is steady when more than this fraction of the intervals are equal."""
_EARLY_END_S = 0.2
"""Lengths in headers are rounded; a file that is less than this too short is complete."""
_MAX_REORDER = 16
"""The most frames by which storage order and presentation order can differ."""
_MAX_LOST = 1_000_000
"""A gap of more frames means that a clock or a header is wrong, not that frames were lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """The P video packets of a file, in file order, and what the container says about them."""

    pts: Seconds
    """(P,) float64, ticks; NaN where the container gives none."""
    dts: Seconds
    is_key: Bools
    is_shown: Bools
    """False where the picture is only used to decode others, or where an edit list removes it."""
    is_hidden: Bools
    """True where the decoder gives no picture for the packet."""
    is_corrupt: Bools
    container: str
    tick_s: float
    frame_ticks: float
    """The usual interval between frames according to the container, in ticks."""
    first_tick: float
    """Start of the stream, in ticks."""
    start_s: float | None
    """Start of the file, in container time."""
    end_s: float
    """End of the last packet of any stream, in container time."""
    duration_s: float | None
    n_promised: int
    """The number of packets according to the header; 0 when the header does not say."""
    lists_frames: bool
    """Whether the container lists each frame with its time, so that no gap can be overlooked."""
    can_enter: bool
    """Whether decoding can begin at key frames after the first. It cannot in streams that refresh
    the picture gradually, though they mark key frames."""
    restarts_clock: bool
    """Whether the container's clock may restart in the middle of the file."""
    reorders: bool
    """Whether frames may be shown in a different order than they are stored."""
    problem: str | None
    """Why reading stopped early."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The F frames that a file is meant to show, in order of time, and its P packets."""

    pts_s: Seconds
    """(F,) float64; ``frame_index`` is the position here."""
    packet: Ints
    """(F,) int64, position of the packet that holds the frame, -1 where the frame is lost."""
    frame: Ints
    """(P,) int64, ``frame_index`` of the packet's frame, -1 where it shows none."""
    order: Ints
    """(P,) int64, rank of the packet's picture in order of time."""
    gop: Ints
    """(P,) int64, the group of pictures to which the packet's picture belongs in order of time.
    Pictures that are stored after a key frame but shown before it belong to the previous group:
    they need both groups."""
    start: Ints
    """(G,) int64, the packet at which decoding of each group begins."""
    is_hidden: Bools
    """(P,) bool, True where the decoder gives no picture for the packet."""
    is_corrupt: Bools
    """(P,) bool, True where the container itself reports damage."""
    is_timed: bool
    """Whether each packet has its own time. Where it has none (AVI with B-frames, raw streams, some
    MPEG program streams), the stored times are sorted, or times at the average rate are used. Then
    only the order in which a decoder gives the frames tells which is which, so decoding has to
    begin at the first packet."""
    start_s: float
    """The container time at which ``pts_s`` is 0."""
    problem: str | None
    """Why frames are lost, written for the user."""


def build(packets: Packets) -> Index:
    """Put the frames in order, give each its time, and find those that are missing."""
    n = len(packets.pts)
    keys = np.flatnonzero(packets.is_key & packets.can_enter)
    start = np.union1d([0], keys).astype(np.int64)
    ticks, is_timed = _ticks(packets, start)
    start = start if is_timed else start[:1]
    gop = np.searchsorted(start, np.arange(n), side="right") - 1
    gop -= (ticks < ticks[start[gop]]) & (gop > 0)
    in_time = np.lexsort((ticks, gop))
    packet = in_time[packets.is_shown[in_time]]
    packet, ticks, problem = _with_lost(packets, packet, ticks[packet])
    is_there = packet >= 0
    frame = np.full(n, -1)
    frame[packet[is_there]] = np.flatnonzero(is_there)
    start_s = ticks[0] * packets.tick_s if packets.start_s is None else packets.start_s
    # Whole microseconds, as containers give their start.
    pts_us = np.rint((ticks * packets.tick_s - start_s) * 1e6).astype(np.int64)
    return Index(
        pts_s=pts_us / 1e6,
        packet=packet,
        frame=frame,
        order=np.argsort(in_time),
        gop=gop,
        start=start,
        is_hidden=packets.is_hidden,
        is_corrupt=packets.is_corrupt,
        is_timed=is_timed,
        start_s=float(start_s),
        problem=problem,
    )


def _ticks(packets: Packets, start: Ints) -> tuple[Seconds, bool]:
    """(P,) time of each packet in ticks, and whether these are the packets' own times."""
    ticks: Seconds = np.where(np.isnan(packets.pts), packets.dts, packets.pts)
    if np.isnan(ticks).any():
        ticks[:] = np.arange(len(ticks)) * packets.frame_ticks + packets.first_tick
        return ticks, False
    if packets.restarts_clock:
        _continue_clock(ticks, start, packets.frame_ticks)
    shown = ticks[packets.is_shown]
    is_guessed = np.isnan(packets.pts).any() or (packets.container == "avi" and packets.reorders)
    if not is_guessed and len(np.unique(shown)) == len(shown):
        return ticks, True
    shown = np.sort(shown)
    ticks[packets.is_shown] = shown - shown[0] + packets.first_tick
    return ticks, False


def _continue_clock(ticks: Seconds, start: Ints, frame_ticks: float) -> None:
    """Where the clock of a broadcast restarts, let it continue from its last value, in place."""
    high = -np.inf
    for first, last in itertools.pairwise([*start.tolist(), len(ticks)]):
        if ticks[first] < high:
            ticks[first:] += high + frame_ticks - ticks[first]
        high = max(high, ticks[first:last].max())


def _with_lost(packets: Packets, packet: Ints, ticks: Seconds) -> tuple[Ints, Seconds, str | None]:
    """Add the frames that the file has lost: packet -1, at about their time.

    Gaps are looked for only where the file is known to be damaged and its rate is steady; otherwise
    a long interval may be intended.
    """
    n = len(ticks)
    gaps = np.diff(ticks)
    step = (float(np.median(gaps)) if n > 1 else 0.0) or packets.frame_ticks
    is_even = np.abs(gaps / step - 1) < _EVEN
    step = float(gaps[is_even].mean()) if is_even.any() else step
    n_short = _n_short(packets, step, widest=gaps.max(initial=0.0))
    lost = np.zeros(n, np.int64)
    if is_even.sum() > _STEADY * n:
        lost[:-1] = np.clip(np.rint(gaps / step) - 1, 0, _MAX_LOST)
    if packets.lists_frames or not packets.is_corrupt.any():
        # In a file that was cut off, frames that are shown before the last ones may be missing.
        lost[: -_MAX_REORDER if n_short else None] = 0
    problems = [packets.problem] if packets.problem else []
    if lost.any():
        problems.append("the file has holes")
    if n_short:
        problems.append("the file ends early")
        lost[-1] = max(n_short - (lost.sum() if packets.n_promised else 0), 0)
    after = np.repeat(np.arange(n), lost)
    nth = np.arange(len(after)) - np.repeat(np.cumsum(lost) - lost, lost) + 1
    packet = np.insert(packet, after + 1, -1)
    ticks = np.insert(ticks, after + 1, ticks[after] + nth * step)
    return packet, ticks, "; ".join(problems) or None


def _n_short(packets: Packets, step: float, widest: float) -> int:
    """The number of frames that are missing at the end, by the count or length in the header.

    ``step`` is the usual interval between frames and ``widest`` the longest one, in ticks.
    """
    if packets.n_promised:
        n = packets.n_promised - len(packets.pts)
    else:
        promised_s = (packets.duration_s or 0.0) + (packets.start_s or 0.0)
        short_s = promised_s - packets.end_s
        is_short = short_s > max(_EARLY_END_S, 2 * widest * packets.tick_s)
        n = round(short_s / packets.tick_s / step) if is_short else 0
    return n if 0 < n <= _MAX_LOST else 0
