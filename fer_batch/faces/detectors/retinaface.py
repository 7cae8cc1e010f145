"""RetinaFace (Deng et al., 2020) in batches, on the device of the run.

Frames are prepared and the network's outputs decoded as in `predict_jsons` of retinaface-pytorch
0.0.8, which takes one picture at a time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.ops import nms

from fer_batch.config import RetinaFace
from fer_batch.errors import DetectorError, WeightsError
from fer_batch.faces.detectors.retinaface_network import anchors, decode, load
from fer_batch.records import Bytes, Faces, Frames
from fer_batch.storage.downloads import fetch

logger = logging.getLogger(__name__)

RELEASE = (
    "https://github.com/ternaus/retinaface/releases/download/0.01/"
    "retinaface_resnet50_2020-07-20-f168fae3c.zip"
)
RELEASE_SHA256 = "f168fae3c"
_BATCH_FRAMES, _CUDA_BATCH_FRAMES = 1, 32
_BATCH_PX, _CUDA_BATCH_PX = 1 << 21, 1 << 24
"""Resized pixels that go through the network at once: 4 or 32 frames of 960 x 540."""

_Size = tuple[int, int]  # height, width


class RetinaFaceDetector:
    """Faces of any pose, with points.

    The score is the probability of a face.

    Raises:
        WeightsError: The weights cannot be fetched or used.
    """

    def __init__(self, config: RetinaFace, device: torch.device) -> None:
        self._config = config
        self._device = device
        is_cuda = device.type == "cuda"
        self.batch_frames = _CUDA_BATCH_FRAMES if is_cuda else _BATCH_FRAMES
        self._network = load(config.network, _find_weights(config), device)
        self._anchors = lru_cache(maxsize=16)(partial(anchors, device=device))
        self._batch_px = _CUDA_BATCH_PX if is_cuda else _BATCH_PX
        self._in_bfloat16 = is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)

    @torch.inference_mode()
    def detect(self, frames: Frames) -> Faces:
        """See `Detector.detect`."""
        sizes = [_resized_size(frame, self._config.longest_side_px) for frame in frames]
        rows_by_size: dict[_Size, list[int]] = {}
        for row, size in enumerate(sizes):
            rows_by_size.setdefault(size, []).append(row)
        candidates = [torch.empty(0, 16)]
        try:
            for size, rows in rows_by_size.items():
                candidates += self._in_batches(frames, size, rows)
        except cv2.error as error:
            raise DetectorError(f"retinaface: OpenCV failed: {error}") from error
        return self._faces(torch.cat(candidates), frames, sizes)

    def _in_batches(self, frames: Frames, size: _Size, rows: list[int]) -> Iterator[Tensor]:
        """The candidates in frames that are all resized to the same size."""
        area = size[0] * size[1]
        while rows:
            batch = rows[: max(1, self._batch_px // area)]
            try:
                candidates = self._candidates(self._resize(frames, size, batch))
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise DetectorError(
                        f"retinaface: {self._device} has no memory for one frame of {size[1]}x"
                        f"{size[0]} pixels: set detector.retinaface.longest_side_px lower"
                    ) from error
                self._batch_px = area * (len(batch) // 2)
                logger.info("memory is short: %d frames at once from now on", len(batch) // 2)
                continue
            candidates[:, 0] = torch.tensor(batch)[candidates[:, 0].long()]
            yield candidates
            rows = rows[len(batch) :]

    def _resize(self, frames: Frames, size: _Size, rows: Sequence[int]) -> Tensor:
        """Resized frames (N, H, W, 3) uint8, which may still be on their way to the device."""
        pixels = torch.empty(
            len(rows), *size, 3, dtype=torch.uint8, pin_memory=self._device.type == "cuda"
        )
        for into, row in zip(pixels.numpy(), rows, strict=True):
            cv2.resize(frames[row], size[::-1], dst=into, interpolation=cv2.INTER_LINEAR)
        return pixels.to(self._device, non_blocking=True)

    def _candidates(self, pixels: Tensor) -> Tensor:
        """Boxes that may show a face, in pixels of the resized frame.

        Returns:
            (C, 16) float32 on the CPU: row of the frame (ascending), box, score, points.
        """
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._in_bfloat16):
            boxes, logits, points = self._network(pixels)
        scores = torch.softmax(logits.float(), dim=2)[:, :, 1]
        least = min(self._config.weak_score, self._config.min_score)
        frame, anchor = torch.nonzero(scores > least, as_tuple=True)
        found = decode(
            self._anchors(*pixels.shape[1:3])[anchor],
            boxes[frame, anchor].float(),
            points[frame, anchor].float(),
        )
        columns = [frame[:, None], found[0], scores[frame, anchor][:, None], found[1]]
        return torch.cat(columns, dim=1).cpu()

    def _faces(self, candidates: Tensor, frames: Frames, sizes: Sequence[_Size]) -> Faces:
        """The best of candidates that overlap, in pixels of the full frames.

        Each frame is done by itself: `torchvision.ops.batched_nms` would shift the boxes of each
        frame in float32, so that a face would depend on the other frames of the batch.
        """
        rows = candidates[:, 0].long()
        counts = torch.bincount(rows, minlength=len(frames)).tolist()
        by_frame = torch.split(candidates[rows.argsort(stable=True)], counts)
        table = np.concatenate(
            [
                each[nms(each[:, 1:5], each[:, 5], self._config.nms_iou)].numpy()
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


def _resized_size(frame: Bytes, longest_side_px: int) -> _Size:
    """Height and width of the resized frame, rounded as albumentations' `LongestMaxSize` does."""
    height, width = frame.shape[:2]
    scale = longest_side_px / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _find_weights(config: RetinaFace) -> Path:
    if config.weights is not None:
        return Path(config.weights).expanduser()
    if config.network == "resnet50":
        return fetch(RELEASE, RELEASE_SHA256)
    raise WeightsError(
        f"detector.retinaface.weights: there are no released weights for {config.network}: give a "
        "file as trained by https://github.com/biubug6/Pytorch_Retinaface"
    )
