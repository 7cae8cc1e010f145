"""Crops -> calibrated emotion probabilities, in large batches."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.optimization import fuse

from fer_batch.emotions import EMOTIONS
from fer_batch.errors import ConfigError
from fer_batch.models import weights
from fer_batch.records import Floats

logger = logging.getLogger(__name__)

CPU_BATCH = 8
"""Faces that go through the network together on a CPU, never fewer: in which order a convolution
adds up depends on the size of its batch, and with it the last bits. More are not faster."""


def pick_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means.

    Raises:
        ConfigError: It is not a device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"runtime.device: {name!r} is not auto, cpu, cuda or cuda:N") from error
    if device.type not in {"cpu", "cuda"}:
        raise ConfigError(f"runtime.device: {name!r} is not auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"runtime.device: {name} is not there: {torch.cuda.device_count()} CUDA devices found"
        )
    return device


def pick_devices(names: str) -> tuple[torch.device, ...]:
    """The devices that a list such as ``cuda:0,cuda:1`` means; ``auto``: every GPU, else the CPU.

    Raises:
        ConfigError: One of them is not a device, or it is not there.
    """
    if names == "auto" and torch.cuda.is_available():
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return tuple(pick_device(name.strip()) for name in names.split(","))


class Classifier:
    """A network with its card, on its device; several threads may ask at once.

    Raises:
        WeightsError: The weights cannot be used.
    """

    def __init__(self, path: Path, device: torch.device, *, batch_size: int, flip: bool) -> None:
        network, self.card = weights.load(path, device)
        self._network = fuse(network)  # normalisations into convolutions: the same, sooner
        self._device = device
        self._batch_size = batch_size
        self._flip = flip
        self._columns = [EMOTIONS.index(name) for name in self.card.classes]

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Floats:
        """Probabilities (M, 8) float32 in EMOTIONS order, NaN for what the model does not know.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.
        """
        probs = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        start = 0
        while start < len(crops):
            batch = crops[start : start + self._batch_size]
            try:
                probs[start : start + len(batch), self._columns] = self._classify(batch)
            except torch.OutOfMemoryError as error:
                if len(batch) == 1:
                    raise ConfigError(
                        f"{self._device} has no memory for one face: free some, give "
                        "runtime.device_memory_gb more, or set runtime.device to cpu"
                    ) from error
                self._batch_size = len(batch) // 2
                logger.info("memory is short: %d faces at once from now on", self._batch_size)
                continue
            start += len(batch)
        return probs

    def _classify(self, crops: Tensor) -> Floats:
        batch = crops.to(self._device, memory_format=torch.channels_last)
        known = self._probs(batch)
        if self._flip:
            known = (known + self._probs(batch.flip(-1))) / 2
        return cast(Floats, known.cpu().numpy())

    def _probs(self, batch: Tensor) -> Tensor:
        is_cpu = batch.device.type == "cpu"
        logits = self._same_in_any_batch(batch) if is_cpu else self._network(batch)
        return torch.softmax(logits.float() / self.card.temperature, dim=1)

    def _same_in_any_batch(self, batch: Tensor) -> Tensor:
        size = min(CPU_BATCH, self._batch_size)
        filled = torch.cat([batch, batch.new_zeros(-len(batch) % size, *batch.shape[1:])])
        logits = torch.cat([self._network(block) for block in torch.split(filled, size)])
        return logits[: len(batch)]
