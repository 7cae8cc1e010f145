"""Crops -> calibrated emotion probabilities, in large batches."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.optimization import fuse

from fer_batch.emotions import in_order
from fer_batch.errors import ConfigError
from fer_batch.models import weights as weight_files
from fer_batch.models.card import Card, Predict, find_classifier, find_weights
from fer_batch.records import Floats

logger = logging.getLogger(__name__)

CPU_BATCH = 8
"""Faces that go through the network together on a CPU, never fewer: in which order a convolution
adds up depends on the size of its batch, and with it the last bits. More are not faster."""


class Classifier:
    """A classifier with its card, on its device; several threads may call it at once.

    Args:
        weights: As in `config.Classifier.weights`.
        device: Where it runs.
        batch_size: Faces that go through it together; fewer where memory is short.
        flip: Whether the probabilities of each face and its mirror image are averaged.

    Raises:
        WeightsError: The weights cannot be used.
    """

    def __init__(
        self, weights: Path | str, device: torch.device, *, batch_size: int, flip: bool
    ) -> None:
        self.card, self._predict = _load(str(weights), device)
        self._device = device
        self._batch_size = batch_size
        self._flip = flip

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> Floats:
        """Probabilities (M, 8) float32 in EMOTIONS order, NaN for what the model does not know.

        Args:
            crops: (M, C, S, S) float32, as `crop` makes them.
        """
        known = np.empty((len(crops), len(self.card.classes)), np.float32)
        start = 0
        while start < len(crops):
            batch = crops[start : start + self._batch_size]
            try:
                known[start : start + len(batch)] = self._classify(batch)
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
        return in_order(known, self.card.classes)

    def _classify(self, crops: Tensor) -> Floats:
        batch = crops.to(self._device, memory_format=torch.channels_last)
        known = self._probs(batch)
        if self._flip:
            known = (known + self._probs(batch.flip(-1))) / 2
        probs: Floats = known.cpu().numpy()
        return probs

    def _probs(self, batch: Tensor) -> Tensor:
        if batch.device.type != "cpu":
            return self._predict(batch)
        size = min(CPU_BATCH, self._batch_size)
        filled = torch.cat([batch, batch.new_zeros(-len(batch) % size, *batch.shape[1:])])
        probs = torch.cat([self._predict(block) for block in torch.split(filled, size)])
        return probs[: len(batch)]


def _load(weights: str, device: torch.device) -> tuple[Card, Predict]:
    spec = find_classifier(weights)
    if spec:
        return spec.card, spec.create(device)
    network, card = weight_files.load(find_weights(weights), device)
    network = fuse(network)  # merges normalisations into convolutions: the same results, sooner

    def predict(crops: Tensor) -> Tensor:
        logits: Tensor = network(crops)
        return torch.softmax(logits.float() / card.temperature, dim=1)

    return card, predict
