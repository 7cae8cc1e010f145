"""Frames of any sizes through a network in batches, and the best of what it finds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from fer_batch.errors import DetectorError
from fer_batch.records import Faces, Frames

logger = logging.getLogger(__name__)

Size = tuple[int, int]
"""Height and width."""


class ResizedBatches:
    """Resizes frames, and has a network look at those of the same size together.

    Args:
        look: Takes frames (N, H, W, 3) uint8 on the device, and returns (C, 16) float32 on the CPU,
            one row for each box that may show a face, in pixels of the resized frames: row of the
            frame (ascending), box, score, points.
        device: Where the frames go.
        batch_px: How many resized pixels are looked at together; fewer once memory was short.
        interpolation: Of OpenCV.
        name: Detector, in errors.
    """

    def __init__(
        self,
        look: Callable[[Tensor], Tensor],
        device: torch.device,
        *,
        batch_px: int,
        interpolation: int,
        name: str,
    ) -> None:
        self._look = look
        self._device = device
        self._batch_px = batch_px
        self._interpolation = interpolation
        self._name = name

    def candidates(self, frames: Frames, sizes: Sequence[Size]) -> Tensor:
        """What `look` finds in all frames, each resized to its size; ordered by size.

        Raises:
            DetectorError: OpenCV failed, or memory does not suffice for one frame.
        """
        rows_by_size: dict[Size, list[int]] = {}
        for row, size in enumerate(sizes):
            rows_by_size.setdefault(size, []).append(row)
        found = [torch.empty(0, 16)]
        try:
            for size, rows in rows_by_size.items():
                found += self._in_batches(frames, size, rows)
        except cv2.error as error:
            raise DetectorError(f"{self._name}: OpenCV failed: {error}") from error
        return torch.cat(found)

    def _in_batches(self, frames: Frames, size: Size, rows: list[int]) -> Iterator[Tensor]:
        """What is found in frames that are all resized to the same size."""
        area = size[0] * size[1]
        while rows:
            batch = rows[: max(1, self._batch_px // area)]
            try:
                candidates = self._look(self._resize(frames, size, batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise DetectorError(
                        f"{self._name}: {self._device} has no memory for one frame of {size[1]}x"
                        f"{size[0]} pixels: set detector.{self._name}.longest_side_px lower"
                    ) from error
                self._batch_px = area * (len(batch) // 2)
                logger.info("memory is short: %d frames at once from now on", len(batch) // 2)
                continue
            candidates[:, 0] = torch.tensor(batch)[candidates[:, 0].long()]
            yield candidates
            rows = rows[len(batch) :]

    def _resize(self, frames: Frames, size: Size, rows: Sequence[int]) -> Tensor:
        """Resized frames (N, H, W, 3) uint8, which may still be on their way to the device."""
        pixels = torch.empty(
            len(rows), *size, 3, dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        )
        for into, row in zip(pixels.numpy(), rows, strict=True):
            cv2.resize(frames[row], size[::-1], dst=into, interpolation=self._interpolation)
        return pixels.to(self._device, non_blocking=True)


def best_faces(
    candidates: Tensor, frames: Frames, sizes: Sequence[Size], *, nms_iou: float
) -> Faces:
    """The best of candidates that overlap, in pixels of the full frames.

    Each frame is done by itself: `torchvision.ops.batched_nms` would shift the boxes of each frame
    in float32, so that a face would depend on the other frames of the batch.

    Args:
        candidates: (C, 16), from `ResizedBatches.candidates`.
        frames: The frames.
        sizes: The sizes to which they were resized.
        nms_iou: When two boxes overlap more than this, only the one of the higher score is kept.
    """
    rows = candidates[:, 0].long()
    counts = torch.bincount(rows, minlength=len(frames)).tolist()
    by_frame = torch.split(candidates[rows.argsort(stable=True)], counts)
    table = np.concatenate(
        [
            each[nms(each[:, 1:5], each[:, 5], nms_iou)].numpy()
            for each in (candidates[:0], *by_frame)
        ]
    )
    frame_row = table[:, 0].astype(np.int64)
    whole_px = np.array([frame.shape[1::-1] for frame in frames]).reshape(-1, 1, 2)[frame_row]
    small_px = np.array([size[::-1] for size in sizes]).reshape(-1, 1, 2)[frame_row]
    stretch = whole_px / small_px
    corners = table[:, 1:5].reshape(-1, 2, 2) * stretch
    corners = np.clip(corners, 0, whole_px - 1).astype(np.float32)
    order = np.lexsort((corners[:, 0, 1], corners[:, 0, 0], frame_row))
    order = order[(corners[order, 0] < corners[order, 1]).all(axis=1)]
    return Faces(
        frame_row=frame_row[order],
        box_px=corners[order].reshape(-1, 4),
        score=table[order, 5],
        points_px=(table[:, 6:].reshape(-1, 5, 2) * stretch)[order].astype(np.float32),
    )
