"""RetinaFace (Deng et al., 2020) in batches, on the device of the run.

Frames are prepared and the network's outputs decoded as in `predict_jsons` of retinaface-pytorch
0.0.8, which takes one picture at a time.
"""

from __future__ import annotations

from functools import lru_cache, partial
from pathlib import Path

import cv2
import torch
from torch import Tensor

from fer_batch.config import RetinaFace
from fer_batch.errors import WeightsError
from fer_batch.faces.detectors.batches import ResizedBatches, Size, best_faces
from fer_batch.faces.detectors.retinaface_network import anchors, decode, load
from fer_batch.records import Bytes, Faces, Frames
from fer_batch.storage.downloads import fetch

RELEASE = (
    "https://github.com/ternaus/retinaface/releases/download/0.01/"
    "retinaface_resnet50_2020-07-20-f168fae3c.zip"
)
RELEASE_SHA256 = "f168fae3c"
_BATCH_FRAMES, _CUDA_BATCH_FRAMES = 1, 32
_BATCH_PX, _CUDA_BATCH_PX = 1 << 21, 1 << 24
"""Resized pixels that go through the network at once: 4 or 32 frames of 960 x 540."""


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
        self._in_bfloat16 = is_cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        self._batches = ResizedBatches(
            self._candidates,
            device,
            batch_px=_CUDA_BATCH_PX if is_cuda else _BATCH_PX,
            interpolation=cv2.INTER_LINEAR,
            name="retinaface",
        )

    @torch.inference_mode()
    def detect(self, frames: Frames) -> Faces:
        """See `Detector.detect`."""
        sizes = [_resized_size(frame, self._config.longest_side_px) for frame in frames]
        candidates = self._batches.candidates(frames, sizes)
        return best_faces(candidates, frames, sizes, nms_iou=self._config.nms_iou)

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


def _resized_size(frame: Bytes, longest_side_px: int) -> Size:
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
