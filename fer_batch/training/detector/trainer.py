"""A detector in training: one step at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fer_batch.faces.detectors.glance_network import WHITE, GlanceNetwork, cells
from fer_batch.training.detector.loss import Losses, batch_faces, measure
from fer_batch.training.detector.recipe import DetectorRecipe
from fer_batch.training.detector.samples import Crop

GRADIENT_NORM = 5.0
"""Longer gradients are shortened to it."""
LAST_RATE = 0.05
"""Share of the highest learning rate that the last step has."""


class Trainer:
    """A network with its optimiser and schedule, all of which can be saved.

    Args:
        recipe: How to train.
        device: Where.
    """

    def __init__(self, recipe: DetectorRecipe, device: torch.device) -> None:
        self._recipe = recipe
        self._device = device
        self._network = GlanceNetwork().to(device).to(memory_format=torch.channels_last)
        self._average = AveragedModel(
            self._network,
            multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay),  # type: ignore[no-untyped-call]
            use_buffers=True,
        )
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, self._rate)

    @property
    def network(self) -> GlanceNetwork:
        """The moving average of the network."""
        return cast(GlanceNetwork, self._average.module)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def step(self, crops: Sequence[Crop]) -> Losses:
        """Train on a batch of crops of the same size."""
        self._network.train()
        rgb = torch.from_numpy(np.stack([crop.rgb for crop in crops])).to(self._device)
        pixels = rgb.permute(0, 3, 1, 2).float() / WHITE
        grid = cells(pixels.shape[2], pixels.shape[3], self._device)
        losses = measure(self._network(pixels), grid, *batch_faces(crops, self._device))
        total = (
            losses.score
            + self._recipe.box_weight * losses.box
            + self._recipe.points_weight * losses.points
        )
        self._optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._network.parameters(), GRADIENT_NORM)
        self._optimizer.step()
        self._schedule.step()
        self._average.update_parameters(self._network)
        return losses

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "network": self._network,
            "average": self._average,
            "optimizer": self._optimizer,
            "schedule": self._schedule,
        }

    def _rate(self, step: int) -> float:
        """The share of the highest learning rate at a step."""
        rise = min(1.0, (step + 1) / max(1, self._recipe.warm_up_steps))
        fall = 0.5 + 0.5 * math.cos(math.pi * min(1.0, step / self._recipe.n_steps))
        return rise * (LAST_RATE + (1 - LAST_RATE) * fall)
