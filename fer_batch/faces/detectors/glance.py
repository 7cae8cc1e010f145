"""The detector of fer_batch: a small network for pictures of any size, in batches on a GPU."""

from __future__ import annotations

from functools import lru_cache, partial

import cv2
import torch
from torch import Tensor, nn

from fer_batch.config import Glance
from fer_batch.faces.detectors.batches import ResizedBatches, Size, best_faces
from fer_batch.faces.detectors.glance_network import cells, decode, prepare
from fer_batch.records import Bytes, Faces, Frames

_CUDA_BATCH_FRAMES, _CUDA_BATCH_PX = 64, 1 << 24
"""Frames, and pixels of shrunk frames, that go through the network at once."""


class GlanceDetector:
    """Faces of any pose, with points.

    The score is the share of boxes with this score that are faces, in pictures that were kept out
    of the training. Points may lie outside the frame.

    Args:
        network: A `GlanceNetwork`; it is not changed.
        config: The settings.
        device: Where to run.
    """

    def __init__(self, network: nn.Module, config: Glance, device: torch.device) -> None:
        self._config = config
        self._network = prepare(network, device)
        is_cpu = device.type == "cpu"
        self.batch_frames = 1 if is_cpu else _CUDA_BATCH_FRAMES
        self._cells = lru_cache(maxsize=16)(partial(cells, device=device))
        self._batches = ResizedBatches(
            self._candidates,
            device,
            batch_px=1 if is_cpu else _CUDA_BATCH_PX,
            interpolation=cv2.INTER_AREA,
            name="glance",
        )

    @torch.inference_mode()
    def detect(self, frames: Frames) -> Faces:
        """See `Detector.detect`."""
        sizes = [_shrunk_size(frame, self._config.longest_side_px) for frame in frames]
        candidates = self._batches.candidates(frames, sizes)
        return best_faces(candidates, frames, sizes, nms_iou=self._config.nms_iou)

    def _candidates(self, pixels: Tensor) -> Tensor:
        """See `ResizedBatches.look`."""
        outputs = self._network(pixels.permute(0, 3, 1, 2).float())
        least = torch.tensor(min(self._config.weak_score, self._config.min_score))
        frame, cell = torch.nonzero(outputs[..., 0] > torch.logit(least), as_tuple=True)
        logits, boxes, points = decode(outputs[frame, cell], self._cells(*pixels.shape[1:3])[cell])
        scores = torch.sigmoid(logits)
        columns = [frame[:, None], boxes, scores[:, None], points.flatten(1)]
        return torch.cat(columns, dim=1).cpu()


def _shrunk_size(frame: Bytes, longest_side_px: int) -> Size:
    height, width = frame.shape[:2]
    scale = min(1.0, longest_side_px / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
