"""From the packets of a video to its frames: which there are, when, and where decoding can begin.

Time: ``pts_s`` is 0 at the start of the file as players count it, the earliest start among its
streams (`Packets.start_s` in the container's own time). A first frame later than that keeps its
offset, so that sound from the same container stays in step.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fer_batch.records import Bools, Ints, Seconds

_EVEN = 0.25
"""Distances of frames that differ by less, relative to the usual one, count as equal."""
_STEADY = 0.8
"""Fraction of equal distances that make a steady rate."""
_EARLY_END_S = 0.2
"""A promised length is missed by less where it is rounded."""
_MAX_REORDER = 16
"""Frames by which the order of storage and that of showing can differ."""
_MAX_LOST = 1_000_000
"""Frames in one gap beyond which a clock or a header is wrong, not a frame lost."""


@dataclass(frozen=True, slots=True, eq=False)
class Packets:
    """The P video packets of a file, in file order, and what the container says of them."""

    pts: Seconds
    """(P,) float64, ticks; NaN where the container gives none."""
    dts: Seconds
    is_key: Bools
    is_shown: Bools
    """False where the picture only helps to decode others, or an edit list cuts it."""
    is_hidden: Bools
    """True where the decoder gives no picture for the packet."""
    is_corrupt: Bools
    container: str
    tick_s: float
    frame_ticks: float
    """Usual distance of frames, in ticks, as the container says."""
    first_tick: float
    """Where the stream starts."""
    start_s: float | None
    """Where the file starts, in container time."""
    end_s: float
    """Where the last packet of any stream ends, in container time."""
    duration_s: float | None
    n_promised: int
    """Packets that the header counts; 0 when it does not count."""
    lists_frames: bool
    """Whether the container lists each frame with its time, so that no hole can go unseen."""
    can_enter: bool
    """Whether decoding can begin at key frames after the first: streams that refresh the picture
    piece by piece mark key frames where it cannot."""
    restarts_clock: bool
    """Whether the container allows its clock to start anew midway."""
    reorders: bool
    """Whether frames may be shown in another order than they are stored."""
    problem: str | None
    """Why reading stopped early."""


@dataclass(frozen=True, slots=True, eq=False)
class Index:
    """The F frames that a file means to show, in order of time, and its P packets."""

    pts_s: Seconds
    """(F,) float64; ``frame_index`` is the position here."""
    packet: Ints
    """(F,) int64, position of the packet that carries the frame, -1 where the file lost it."""
    frame: Ints
    """(P,) int64, ``frame_index`` that the packet shows, -1 for none."""
    order: Ints
    """(P,) int64, place of the packet's picture in order of time."""
    gop: Ints
    """(P,) int64, group that the picture belongs to in order of time. Pictures stored after a key
    frame but shown before it belong to the group before: they need both."""
    start: Ints
    """(G,) int64, packet where decoding each group begins."""
    is_hidden: Bools
    """(P,) bool, True where the decoder gives no picture for the packet."""
    is_corrupt: Bools
    """(P,) bool, True where the container itself reports damage."""
    is_timed: bool
    """Whether each packet has its own time. Where it has not (AVI with B-frames, raw streams, some
    MPEG program streams), the times are those of storage in ascending order, or even ones at the
    average rate; which frame is which is told by the order in which the decoder gives them, from
    the first packet on."""
    start_s: float
    """Container time of ``pts_s`` 0."""
    problem: str | None
    """Why frames are lost, in words for the user."""


def build(packets: Packets) -> Index:
    """Order the frames, give each its time, and find those that are gone."""
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
    """(P,) time of each packet in ticks, and whether it is the packet's own."""
    ticks: Seconds = np.where(np.isnan(packets.pts), packets.dts, packets.pts)
    if np.isnan(ticks).any():
        ticks[:] = np.arange(len(ticks)) * packets.frame_ticks + packets.first_tick
        return ticks, False
    if packets.restarts_clock:
        _mend(ticks, start, packets.frame_ticks)
    shown = ticks[packets.is_shown]
    is_guessed = np.isnan(packets.pts).any() or (packets.container == "avi" and packets.reorders)
    if not is_guessed and len(np.unique(shown)) == len(shown):
        return ticks, True
    shown = np.sort(shown)
    ticks[packets.is_shown] = shown - shown[0] + packets.first_tick
    return ticks, False


def _mend(ticks: Seconds, start: Ints, frame_ticks: float) -> None:
    """Where a broadcast's clock starts anew, let it go on from where it was, in place."""
    high = -np.inf
    for first, last in itertools.pairwise([*start.tolist(), len(ticks)]):
        if ticks[first] < high:
            ticks[first:] += high + frame_ticks - ticks[first]
        high = max(high, ticks[first:last].max())


def _with_lost(packets: Packets, packet: Ints, ticks: Seconds) -> tuple[Ints, Seconds, str | None]:
    """Add the frames that are gone from the file: packet -1, at about their time.

    Holes are looked for only where the file is known to be damaged and its frames keep a steady
    distance; else a wide distance may be meant.
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
        # Where the file was cut, the last frames stored are not all of those shown last.
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
    """Frames that the container promises beyond those read: by their number, or by its length.

    ``step`` is the usual distance of frames and ``widest`` the widest, in ticks.
    """
    if packets.n_promised:
        n = packets.n_promised - len(packets.pts)
    else:
        promised_s = (packets.duration_s or 0.0) + (packets.start_s or 0.0)
        short_s = promised_s - packets.end_s
        is_short = short_s > max(_EARLY_END_S, 2 * widest * packets.tick_s)
        n = round(short_s / packets.tick_s / step) if is_short else 0
    return n if 0 < n <= _MAX_LOST else 0
