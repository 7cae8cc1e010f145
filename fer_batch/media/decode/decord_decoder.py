"""Decode segments with Decord, which reads each as a small Matroska file in memory."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Generator, Iterable
from functools import cache
from types import ModuleType

import av
import numpy as np
from av.video.stream import VideoStream

from fer_batch.config import Decode
from fer_batch.errors import ConfigError
from fer_batch.media.decode.decoder import DecodedFrame, IncompleteError, Selection, Tally
from fer_batch.media.decode.demux import Packet, remux
from fer_batch.media.decode.segments import Segment
from fer_batch.records import Bools, Bytes

_UNSUPPORTED = frozenset({"av1"})
_NO_FILL_IN = 1e-6
"""Decord silently puts copies of the last frame in place of lost ones, unless the fraction of
copies exceeds its `fault_tol`; 0 would allow all."""


@cache
def _installed() -> ModuleType | None:
    try:
        import decord
    except (ImportError, OSError, RuntimeError):  # the last two: one of its libraries is missing
        return None
    decord.logging.set_level(decord.logging.QUIET)
    package: ModuleType = decord
    return package


def find_decord(decode: Decode) -> ModuleType | None:
    """The package decord if the settings ask for it; None where `auto` has to do without it.

    Raises:
        ConfigError: `decode.decoder` is `decord`, and the package is not installed.
    """
    decord = None if decode.decoder == "pyav" else _installed()
    if decode.decoder == "decord" and decord is None:
        raise ConfigError(
            "decode.decoder is decord, but the package decord is not installed: "
            "`pip install decord` (decord2 on arm64), "
            "or set decode.decoder to auto"
        )
    return decord


class DecordDecoder:
    """Decodes a segment as a whole, or not at all.

    Args:
        decord: The package.
        selection: The video.
        stream: The stream that the packets come from.
        max_packets: Longer segments would need too much memory.
    """

    name = "decord"

    def __init__(
        self, decord: ModuleType, selection: Selection, stream: VideoStream, max_packets: float
    ) -> None:
        self._decord = decord
        self._selection = selection
        self._stream = stream
        self._max_packets = max_packets
        self._errors = (
            decord.DECORDError,
            decord.DECORDLimitReachedError,
            av.FFmpegError,
            AssertionError,
            RuntimeError,
            StopIteration,
            ValueError,
        )

    def can_decode(self, segment: Segment) -> bool:
        """False where Decord fails, gives wrong frames, or conceals damage."""
        index = self._selection.index
        return (
            segment.n_packets <= self._max_packets
            and self._selection.info.codec not in _UNSUPPORTED
            and index.is_timed
            and not index.is_corrupt[segment.first : segment.last + 1].any()
        )

    def decode(
        self, segment: Segment, packets: Iterable[tuple[int, Packet]], tally: Tally
    ) -> Generator[DecodedFrame]:
        """The wanted frames of a segment.

        All are decoded before the first is returned: only at the end is it certain that none was
        lost, and after a lost frame all others would have wrong numbers.

        Raises:
            IncompleteError: Decord does not give every frame.
        """
        index = self._selection.index
        inside = [(at, packet) for at, packet in packets if index.gop[at] >= segment.gop]
        at = np.array([at for at, _ in inside])
        visible = at[np.argsort(index.order[at])]
        frame_index = index.frame[visible[~index.is_hidden[visible]]]
        is_inside = (segment.frames[0] <= frame_index) & (frame_index <= segment.frames[-1])
        is_wanted = is_inside & self._selection.is_wanted[frame_index]
        try:
            carrier = remux(self._stream, [packet for _, packet in inside], index.order[at])
            pictures = self._read(carrier, is_wanted)
        except self._errors as error:
            begin_s = index.pts_s[segment.frames[0]]
            message = f"{self._selection.path}: Decord failed at {begin_s:.3f} s: {error}"
            raise IncompleteError(message) from error
        tally.n_decoded += int(is_inside.sum())
        return (
            DecodedFrame(number, self._fit(pictures.popleft(), tally), is_damaged=False)
            for number in frame_index[is_wanted].tolist()
        )

    def _read(self, carrier: bytes, is_wanted: Bools) -> deque[Bytes]:
        """Decode the first ``len(is_wanted)`` frames of a file and keep the wanted ones."""
        reader = self._decord.VideoReader(io.BytesIO(carrier), num_threads=1, fault_tol=_NO_FILL_IN)
        pictures: deque[Bytes] = deque()
        for is_kept in is_wanted:
            picture = reader.next()
            if is_kept:
                pictures.append(picture.asnumpy())
        return pictures

    def _fit(self, rgb: Bytes, tally: Tally) -> Bytes:
        if not self._decord.__version__.startswith("0."):  # decord2 gives upright frames
            rgb = np.rot90(rgb, -(self._selection.info.rotation_deg // 90))
        if rgb.shape[:2] == self._selection.stored_size:
            return rgb
        return self._selection.fit(av.VideoFrame.from_ndarray(rgb, format="rgb24"), tally)
