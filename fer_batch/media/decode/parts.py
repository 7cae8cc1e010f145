"""A stretch of a file that is decoded by itself."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import NamedTuple

from fer_batch.records import Bytes


class Frame(NamedTuple):
    """One decoded frame, upright."""

    frame_index: int
    rgb: Bytes
    is_damaged: bool


@dataclass(slots=True)
class Part:
    """Some of the frames of a file, and what became of them so far."""

    n_wanted: int
    is_open: bool = False
    """Whether it goes on reading the file while it is decoded: the next part has to wait."""
    frames: Generator[Frame] = field(init=False)
    """The wanted frames; for one thread, once."""
    n_delivered: int = 0
    n_decoded: int = 0
    n_damaged: int = 0
    n_fallback: int = 0
    decoders: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)
