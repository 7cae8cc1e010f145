"""OpenCV's Viola-Jones cascade (Viola & Jones, 2001), on a shrunk grey copy of each frame."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np

from fer_batch.config import Haar
from fer_batch.errors import DetectorError
from fer_batch.records import Bytes, Faces, Floats, Frames

CASCADE = "haarcascade_frontalface_default.xml"
WINDOW_PX = 24
"""Side of the smallest face that the cascade finds."""


class _PerThread(threading.local):
    """A cascade for each thread, as threads cannot share one."""

    def __init__(self) -> None:
        path = Path(cv2.__file__).parent / "data" / CASCADE
        self.cascade = cv2.CascadeClassifier(str(path))
        if self.cascade.empty():
            raise DetectorError(f"{path} is missing: install opencv-python-headless below 5")


class HaarDetector:
    """Frontal faces, one frame after the other.

    The score is the cascade's last-stage weight: it grows with certainty and has no upper bound.

    Raises:
        DetectorError: OpenCV's cascade file is missing.
    """

    batch_frames = 1

    def __init__(self, config: Haar) -> None:
        self._config = config
        self._per_thread = _PerThread()

    def detect(self, frames: Frames) -> Faces:
        """See `Detector.detect`."""
        try:
            found = [self._detect_one(frame) for frame in frames]
        except cv2.error as error:
            raise DetectorError(f"haar: OpenCV failed: {error}") from error
        return Faces(
            frame_row=np.repeat(np.arange(len(frames)), [len(boxes) for boxes, _ in found]),
            box_px=np.concatenate([np.empty((0, 4), np.float32), *(boxes for boxes, _ in found)]),
            score=np.concatenate([np.empty(0, np.float32), *(scores for _, scores in found)]),
        )

    def _detect_one(self, rgb: Bytes) -> tuple[Floats, Floats]:
        height, width = rgb.shape[:2]
        scale = max(1.0, self._config.min_face * min(height, width) / WINDOW_PX)
        small = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        if scale > 1:
            size = (max(1, round(width / scale)), max(1, round(height / scale)))
            small = cv2.resize(small, size, interpolation=cv2.INTER_AREA)
        boxes, _, weights = self._per_thread.cascade.detectMultiScale3(
            small,
            scaleFactor=self._config.scale_factor,
            minNeighbors=self._config.min_neighbors,
            minSize=(WINDOW_PX, WINDOW_PX),
            outputRejectLevels=True,
        )
        if not len(boxes):
            return np.empty((0, 4), np.float32), np.empty(0, np.float32)
        xywh = np.asarray(boxes, np.float64)
        stretch = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        box_px = np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]) * stretch
        order = np.lexsort((box_px[:, 1], box_px[:, 0]))
        return box_px[order].astype(np.float32), np.asarray(weights, np.float32).ravel()[order]
