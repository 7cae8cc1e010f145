"""OpenCV's YuNet (Wu et al., 2023): a small network that finds faces and five points of each."""

from __future__ import annotations

import threading

import cv2
import numpy as np

from fer_batch.config import YuNet
from fer_batch.errors import DetectorError, WeightsError
from fer_batch.faces.detectors.yunet_weights import SOURCE, read_weights
from fer_batch.records import Bytes, Faces, Floats, Frames

LEAST_PX = 64
"""Smaller frames are padded to this. OpenCV pads to multiples of 32, but where a side has only 32,
4.14 finds certain faces that are not there, others at each call, and misses those that are."""


class _PerThread(threading.local):
    """A network for each thread, as threads cannot share one."""

    def __init__(self, config: YuNet, content: Bytes) -> None:
        try:
            self.network = cv2.FaceDetectorYN.create(
                framework="onnx",
                bufferModel=content,
                bufferConfig=np.empty(0, np.uint8),
                input_size=(32, 32),
                score_threshold=min(config.weak_score, config.min_score),
                nms_threshold=config.nms_iou,
                top_k=0,  # no limit: the default would drop faces of a large crowd
            )
            self.network.detect(np.zeros((32, 32, 3), np.uint8))
        except cv2.error as error:
            raise WeightsError(f"{config.weights}: not {SOURCE}: {error}") from error


class YuNetDetector:
    """Faces of any pose, one frame after the other.

    The score is in [0, 1]. Points may lie outside the frame. They show the full tilt of a head if
    its face is about 200 pixels wide in the shrunk frame, and a quarter of it at 64 pixels.

    Raises:
        WeightsError: The weights are missing, or not YuNet's.
    """

    batch_frames = 1

    def __init__(self, config: YuNet) -> None:
        self._config = config
        content = np.frombuffer(read_weights(config.weights), np.uint8)
        self._per_thread = _PerThread(config, content)

    def detect(self, frames: Frames) -> Faces:
        """See `Detector.detect`."""
        try:
            found = [self._detect_one(frame) for frame in frames]
        except cv2.error as error:
            raise DetectorError(f"yunet: OpenCV failed: {error}") from error
        rows = np.concatenate([np.empty((0, 15), np.float32), *found])
        return Faces(
            frame_row=np.repeat(np.arange(len(frames)), [len(faces) for faces in found]),
            box_px=rows[:, :4],
            score=rows[:, 14],
            points_px=rows[:, 4:14].reshape(-1, 5, 2),
        )

    def _detect_one(self, rgb: Bytes) -> Floats:
        """Box, points and score (M, 15) of a frame's faces, from left to right."""
        height, width = rgb.shape[:2]
        scale = self._config.longest_side_px / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if scale < 1 else rgb
        bgr = np.zeros((*(max(LEAST_PX, side) for side in small.shape[:2]), 3), np.uint8)
        cv2.cvtColor(small, cv2.COLOR_RGB2BGR, dst=bgr[: small.shape[0], : small.shape[1]])
        network = self._per_thread.network
        network.setInputSize(bgr.shape[1::-1])
        _, found = network.detect(bgr)
        if found is None:
            return np.empty((0, 15), np.float32)
        stretch = np.array([width / small.shape[1], height / small.shape[0]] * 7)
        faces = np.asarray(found, np.float64)
        faces[:, 2:4] += faces[:, :2]
        faces[:, :14] *= stretch
        faces[:, :4] = np.clip(faces[:, :4], 0, [width, height] * 2)
        faces = faces[(faces[:, 2:4] > faces[:, :2]).all(axis=1)]
        return faces[np.lexsort((faces[:, 1], faces[:, 0]))].astype(np.float32)
