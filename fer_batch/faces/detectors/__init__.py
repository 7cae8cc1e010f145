"""Face detectors: one protocol, one builder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from fer_batch.config import Detector as DetectorConfig
from fer_batch.errors import WeightsError
from fer_batch.records import Faces, Frames

if TYPE_CHECKING:  # a process that only plans holds no networks
    import torch


class Detector(Protocol):
    """Finds the faces of a batch of frames; several threads may ask at once."""

    name: str
    batch_frames: int
    """Frames that are worth asking for together."""

    def detect(self, frames: Frames) -> Faces:
        """Faces of every frame.

        Args:
            frames: Upright pictures.

        Returns:
            Faces whose ``frame_row`` is the position in `frames`; within a frame ordered from left
            to right. The same whatever else is in the batch.

        Raises:
            DetectorError: The detector failed.
        """
        ...


def weights_sha256(config: DetectorConfig) -> str:
    """Hash of the weight file that the configuration names; empty where it names none.

    Raises:
        WeightsError: The file cannot be read.
    """
    weights = {"retinaface": config.retinaface.weights, "yunet": config.yunet.weights}
    path = weights.get(config.name)
    if path is None:
        return ""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"detector.{config.name}.weights: cannot be read: {error}") from error


def build_detector(config: DetectorConfig, device: torch.device) -> Detector:
    """The configured detector, on the device if it uses one.

    Raises:
        DetectorError: It cannot be set up.
        WeightsError: Its weights cannot be used.
    """
    if config.name == "retinaface":
        from fer_batch.faces.detectors.retinaface import RetinaFaceDetector

        return RetinaFaceDetector(config.retinaface, device)
    if config.name == "yunet":
        from fer_batch.faces.detectors.yunet import YuNetDetector

        return YuNetDetector(config.yunet)
    from fer_batch.faces.detectors.haar import HaarDetector

    return HaarDetector(config.haar)
