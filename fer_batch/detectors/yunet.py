"""OpenCV's YuNet (Wu et al., 2023): a small network that finds faces and five points of each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import cv2
import numpy as np

from fer_batch.config import YuNet
from fer_batch.schema import Bytes, DetectorError, Faces, Floats, Frames, WeightsError

SOURCE = (
    "face_detection_yunet_2023mar.onnx, of OpenCV's model zoo "
    "(https://github.com/opencv/opencv_zoo, models/face_detection_yunet)"
)


class YuNetDetector:
    """Faces of any pose, one frame per thread.

    The score is in [0, 1]. Points may lie outside the frame. They follow the whole tilt of a head
    only where its face covers about 200 pixels of the shrunk frame, and a quarter of it at 64.

    Raises:
        WeightsError: The weights are not given, missing, or not YuNet's.
    """

    name = "yunet"

    def __init__(self, config: YuNet, threads: int) -> None:
        self._config = config
        self._threads = threads
        self._networks: SimpleQueue[cv2.FaceDetectorYN] = SimpleQueue()
        cv2.setNumThreads(1)  # frames run side by side; OpenCV's own threads would fight over cores
        for network in _load(config, threads):  # one network cannot be shared by threads
            self._networks.put(network)

    def detect(self, frames: Frames) -> Faces:
        """See `Detector.detect`."""
        try:
            with ThreadPoolExecutor(self._threads, thread_name_prefix="fer_batch-yunet") as pool:
                found = list(pool.map(self._detect_one, frames))
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
        network = self._networks.get()
        try:
            network.setInputSize(small.shape[1::-1])
            _, found = network.detect(cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        finally:
            self._networks.put(network)
        if found is None:
            return np.empty((0, 15), np.float32)
        stretch = np.array([width / small.shape[1], height / small.shape[0]] * 7)
        faces = np.asarray(found, np.float64)
        faces[:, 2:4] += faces[:, :2]
        faces[:, :14] *= stretch
        faces[:, :4] = np.clip(faces[:, :4], 0, [width, height] * 2)
        faces = faces[(faces[:, 2:4] > faces[:, :2]).all(axis=1)]
        return faces[np.lexsort((faces[:, 1], faces[:, 0]))].astype(np.float32)


def _load(config: YuNet, copies: int) -> list[cv2.FaceDetectorYN]:
    """Networks that have each been tried on a black picture."""
    if config.weights is None:
        raise WeightsError(f"yunet: no weights: set detector.yunet.weights to the path of {SOURCE}")
    try:
        content = np.frombuffer(Path(config.weights).expanduser().read_bytes(), np.uint8)
    except OSError as error:
        raise WeightsError(f"yunet: no weights: {error}; expected {SOURCE}") from error
    black = np.zeros((32, 32, 3), np.uint8)
    try:
        networks = [
            cv2.FaceDetectorYN.create(
                framework="onnx",
                bufferModel=content,
                bufferConfig=np.empty(0, np.uint8),
                input_size=(32, 32),
                score_threshold=config.min_score,
                nms_threshold=config.nms_iou,
                top_k=0,  # all: the default would drop faces of a large crowd
            )
            for _ in range(copies)
        ]
        for network in networks:
            network.detect(black)
    except cv2.error as error:
        raise WeightsError(f"{config.weights}: not {SOURCE}: {error}") from error
    return networks
