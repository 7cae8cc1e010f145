"""Read the frames of files; everything else uses `FrameReader`."""

from __future__ import annotations

from fer_batch.media.decode.reader import FrameReader
from fer_batch.media.decode.source import Source

__all__ = ["FrameReader", "Source"]
