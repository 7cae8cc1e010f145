"""The file from which a stopped training continues."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from fer_batch.errors import ConfigError, FerError
from fer_batch.storage import urls


class TrainingError(FerError):
    """A training went wrong."""


class Checkpoint:
    """Saves and restores what a training depends on.

    Args:
        path: The file.
        origin: What has to be the same for a training to be continued: recipe, data, device.
    """

    def __init__(self, path: Path, origin: list[str]) -> None:
        self._path = path
        self._origin = origin

    def load(self) -> dict[str, Any] | None:
        """What was saved; None if nothing was.

        Raises:
            ConfigError: It belongs to another training.
            TrainingError: The file cannot be read.
        """
        if not self._path.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise TrainingError(f"{self._path} cannot be read: {error}; delete it") from error
        if saved["origin"] != self._origin:
            raise ConfigError(
                f"{self._path} belongs to a training with another recipe, other pictures or "
                "another kind of device: choose another folder, or delete it to start again"
            )
        return saved

    def save(self, **content: object) -> None:
        """Replace what was saved: tensors, numbers, texts, lists and dicts."""
        with urls.replacing(self._path) as temporary:
            torch.save({"origin": self._origin, **content}, temporary)
