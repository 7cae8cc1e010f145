"""Face detectors: their protocol, the registry, and what is done with it.

Looking into the registry loads neither torch nor OpenCV: a detector is imported when it is built.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from fer_batch import plugins
from fer_batch.config import Detector as DetectorConfig
from fer_batch.config import Glance, Haar, RetinaFace, YuNet
from fer_batch.errors import ConfigError, WeightsError
from fer_batch.faces.detectors.yunet_weights import find_weights as find_yunet_weights
from fer_batch.models.card import WEIGHTS_DIR, Card
from fer_batch.records import Faces, Frames

if TYPE_CHECKING:
    import torch


class Detector(Protocol):
    """Finds the faces of a batch of frames; several threads may call it at once."""

    batch_frames: int
    """Number of frames that are best detected together."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectorSpec:
    """What is known of a detector before it is loaded."""

    create: Callable[[Any, torch.device], Detector]
    """Called with its settings and the device; imports the detector only then."""
    settings: type[BaseModel]
    """Its section of the configuration."""
    gives_points: bool
    """Whether its faces have five points."""
    uses_gpu: bool
    """Whether it runs on the device of the run, and not always on the CPU."""
    weights: Callable[[Any], str | Path | None] = lambda settings: None
    """The weight file that its settings name, if any: a run is done again when the file changes."""
    min_score: Callable[[Any], float] = lambda settings: -math.inf
    """The score that its settings name, below which faces are weak: they continue tracks, but do
    not begin one, and are left out of still images."""
    advice: str = ""
    """What to try when no face was found."""


def _create_glance(settings: Glance, device: torch.device) -> Detector:
    from fer_batch.faces.detectors.glance import GlanceDetector
    from fer_batch.faces.detectors.glance_network import load

    return GlanceDetector(load(_glance_weights(settings)), settings, device)


def _glance_weights(settings: Glance) -> Path:
    shipped = WEIGHTS_DIR / "detectors" / "glance.safetensors"
    return Path(settings.weights).expanduser() if settings.weights else shipped


def _create_haar(settings: Haar, device: torch.device) -> Detector:
    from fer_batch.faces.detectors.haar import HaarDetector

    return HaarDetector(settings)


def _create_retinaface(settings: RetinaFace, device: torch.device) -> Detector:
    from fer_batch.faces.detectors.retinaface import RetinaFaceDetector

    return RetinaFaceDetector(settings, device)


def _create_yunet(settings: YuNet, device: torch.device) -> Detector:
    from fer_batch.faces.detectors.yunet import YuNetDetector

    return YuNetDetector(settings)


BUILT_IN = {
    "glance": DetectorSpec(
        create=_create_glance,
        settings=Glance,
        gives_points=True,
        uses_gpu=True,
        weights=_glance_weights,
        min_score=attrgetter("min_score"),
        advice="try --set detector.glance.longest_side_px=1280 for smaller ones, or --set "
        "detector.glance.min_score=0.3 for less certain ones",
    ),
    "haar": DetectorSpec(
        create=_create_haar,
        settings=Haar,
        gives_points=False,
        uses_gpu=False,
        advice="try --set detector.haar.min_face=0.05 for smaller ones; the detector knows frontal "
        "faces only",
    ),
    "retinaface": DetectorSpec(
        create=_create_retinaface,
        settings=RetinaFace,
        gives_points=True,
        uses_gpu=True,
        weights=attrgetter("weights"),
        min_score=attrgetter("min_score"),
        advice="try --set detector.retinaface.longest_side_px=1920 for smaller ones, or --set "
        "detector.retinaface.min_score=0.5 for less certain ones",
    ),
    "yunet": DetectorSpec(
        create=_create_yunet,
        settings=YuNet,
        gives_points=True,
        uses_gpu=False,
        weights=lambda settings: find_yunet_weights(settings.weights),
        min_score=attrgetter("min_score"),
        advice="try --set detector.yunet.longest_side_px=1280 for smaller ones, or --set "
        "detector.yunet.min_score=0.5 for less certain ones",
    ),
}
"""The detectors of fer_batch, by the names of their sections in `config.Detector`."""


def find_detector(name: str) -> DetectorSpec:
    """The detector that `detector.name` means.

    Raises:
        ConfigError: Another package brings it, and it cannot be loaded.
    """
    if name in BUILT_IN:
        return BUILT_IN[name]
    spec: DetectorSpec = plugins.load(plugins.DETECTORS, name)
    return spec


def build_detector(config: DetectorConfig, device: torch.device) -> Detector:
    """The configured detector, on the device if it uses one.

    Raises:
        DetectorError: It cannot be set up.
        WeightsError: Its weights cannot be used.
    """
    return find_detector(config.name).create(_settings(config), device)


def min_score(config: DetectorConfig) -> float:
    """The score below which faces of the configured detector are weak."""
    return find_detector(config.name).min_score(_settings(config))


def without_weak(faces: Faces, config: DetectorConfig) -> Faces:
    """The faces of still images: those that are not weak."""
    return faces.take(~(faces.score < min_score(config)))


def weights_sha256(config: DetectorConfig) -> str:
    """Hash of the weight file that the configuration names; empty where it names none.

    Raises:
        WeightsError: The file is missing, cannot be read, or is another one than expected.
    """
    path = find_detector(config.name).weights(_settings(config))
    if path is None:
        return ""
    try:
        with Path(path).expanduser().open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"detector.{config.name}: weights cannot be read: {error}") from error


def check_crop(card: Card, config: DetectorConfig) -> None:
    """Check that the detector gives what the classifier's crops are cut by.

    Raises:
        ConfigError: The card wants points and the detector gives none.
    """
    if card.crop == "points" and not find_detector(config.name).gives_points:
        others = " or ".join(name for name, spec in BUILT_IN.items() if spec.gives_points)
        raise ConfigError(
            f"{card.name} takes faces aligned by five points and detector.name={config.name} "
            f"gives boxes only: set detector.name to {others}, or take other weights"
        )


def _settings(config: DetectorConfig) -> BaseModel:
    settings: BaseModel = getattr(config, config.name)
    return settings
