"""Files -> frames: the one door is `FrameReader`."""

from __future__ import annotations

from fer_batch.media.decode.reader import FrameReader

__all__ = ["FrameReader"]
