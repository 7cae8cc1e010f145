"""Cut out the faces that were found, and have those of many chunks classified together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fer_batch.config import Quality as Limits
from fer_batch.emotions import EMOTIONS
from fer_batch.faces.crop import crop
from fer_batch.faces.quality import measure
from fer_batch.models.card import Card
from fer_batch.pipeline.face_finder import FoundFaces
from fer_batch.pipeline.lanes import Pending
from fer_batch.records import ChunkResult, Floats, FrameChunk


@dataclass(frozen=True, slots=True, eq=False)
class CroppedFaces:
    """The faces of a chunk, ready for the classifier; the frames are not needed any more."""

    result: ChunkResult
    """What is known so far; the probabilities are NaN."""
    crops: Tensor
    """(M, C, S, S) float32."""


def cut_out(
    media: str, chunk: FrameChunk, found: FoundFaces, card: Card, limits: Limits
) -> CroppedFaces:
    """Cut out the faces of a chunk as the classifier needs them, and measure how good they are.

    Args:
        media: The name of the file in the tables.
        chunk: The frames.
        found: Their faces.
        card: Says how to crop.
        limits: Say which faces are usable.
    """
    result = ChunkResult(
        media=media,
        frame_index=chunk.frame_index,
        pts_s=chunk.pts_s,
        is_damaged=chunk.is_damaged,
        faces=found.faces,
        track_id=found.track_id,
        probs=np.full((len(found.faces), len(EMOTIONS)), np.nan, np.float32),
        quality=measure(chunk.rgb, found.faces, card, limits),
    )
    return CroppedFaces(result, crop(chunk.rgb, found.faces, card))


class Classification:
    """The faces of several chunks while they are classified.

    Args:
        faces: The faces of each chunk.
        classify: Starts to classify one crop or more; see `Lanes.classify`.
    """

    def __init__(
        self, faces: Sequence[CroppedFaces], classify: Callable[[Tensor], Pending[Floats]]
    ) -> None:
        self._faces = faces
        crops = [each.crops for each in faces if len(each.crops)]
        self._probs = classify(torch.cat(crops)) if crops else None

    def is_done(self) -> bool:
        """Whether `results` would not have to wait."""
        return self._probs is None or self._probs.is_done()

    def results(self) -> list[ChunkResult]:
        """Wait, and complete the result of each chunk."""
        if self._probs is None:
            return [each.result for each in self._faces]
        ends = np.cumsum([len(each.crops) for each in self._faces])
        probs = np.split(self._probs.result(), ends[:-1])
        return [
            replace(each.result, probs=rows) for each, rows in zip(self._faces, probs, strict=True)
        ]
