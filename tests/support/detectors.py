"""Detectors made for a test."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from fer_batch.faces import detectors
from fer_batch.records import Faces, Frames


@dataclass
class MadeDetector:
    """Finds what a function finds."""

    detect: Callable[[Frames], Faces]
    batch_frames: int = 1


def use_detector(
    monkeypatch: pytest.MonkeyPatch,
    detect: Callable[[Frames], Faces],
    min_score: float = -math.inf,
) -> None:
    """Register a detector in the place of the default one."""
    spec = replace(
        detectors.BUILT_IN["yunet"],
        create=lambda settings, device: MadeDetector(detect),
        min_score=lambda settings: min_score,
    )
    monkeypatch.setitem(detectors.BUILT_IN, "yunet", spec)
