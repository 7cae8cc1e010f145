"""A network in training: one epoch at a time, from labelled pictures on its device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Beta
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from fer_batch.models.networks import build_network
from fer_batch.training.augment import augment
from fer_batch.training.recipe import TrainConfig

EVALUATION_BATCH = 256


class Trainer:
    """A network with its optimiser, schedule and random numbers, all of which can be saved.

    Args:
        recipe: How to train.
        n_classes: Outputs of the network.
        n_train: Pictures per epoch.
        mean: Mean of each channel, in [0, 1]; pictures are standardised with it.
        std: Standard deviation of each channel.
        device: Holds the network and the pictures.
    """

    def __init__(
        self,
        recipe: TrainConfig,
        n_classes: int,
        n_train: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        device: torch.device,
    ) -> None:
        self._recipe = recipe
        self._mean, self._std = (
            torch.tensor(values, device=device)[:, None, None] for values in (mean, std)
        )
        self.device = device
        network = build_network(recipe.network, n_classes, dropout=recipe.dropout)
        self._network = network.to(device).to(memory_format=torch.channels_last)
        self._average = (
            AveragedModel(
                self._network,
                multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay),  # type: ignore[no-untyped-call]
                use_buffers=True,
            )
            if recipe.ema_decay
            else None
        )
        self._batch_size = min(recipe.batch_size, n_train)
        self._n_steps = n_train // self._batch_size
        self._optimizer = _build_optimizer(recipe, self._network)
        self._schedule = _build_schedule(recipe, self._optimizer, recipe.epochs * self._n_steps)
        self._generator = torch.Generator(device).manual_seed(recipe.seed)

    @property
    def network(self) -> nn.Module:
        """The trained network, with the moving average of its weights if the recipe asks for it."""
        network: nn.Module = self._average.module if self._average else self._network
        return network

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self._schedule.get_last_lr()[0])

    def train_epoch(
        self, pixels: Tensor, targets: Tensor, on_step: Callable[[float], None]
    ) -> float:
        """Train once on every picture, in a new random order.

        Args:
            pixels: (N, S, S) uint8.
            targets: (N, C) float32, rows sum to 1.
            on_step: Called after each step with the share of the epoch that is done.

        Returns:
            The mean loss.
        """
        self._network.train()
        losses = []
        order = torch.randperm(len(pixels), generator=self._generator, device=self.device)
        batches = torch.split(order[: self._n_steps * self._batch_size], self._batch_size)
        for number, rows in enumerate(batches, start=1):
            loss = self._loss(pixels[rows, None].float() / 255, targets[rows])
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            self._schedule.step()
            if self._average:
                self._average.update_parameters(self._network)
            losses.append(loss.detach())
            on_step(number / self._n_steps)
        return float(torch.stack(losses).mean())

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        """Logits (N, C) float32 of pictures (N, S, S) uint8."""
        self.network.eval()
        batches = torch.split(pixels[:, None], EVALUATION_BATCH)
        return torch.cat([self._forward(self.network, batch.float() / 255) for batch in batches])

    def state_dict(self) -> dict[str, Any]:
        """Everything that the rest of the training depends on."""
        on_cuda = self.device.type == "cuda"
        return {
            "network": self._network.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "generator": self._generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state(self.device) if on_cuda else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned."""
        self._network.load_state_dict(state["network"])
        if self._average:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"], self.device)

    def _loss(self, pictures: Tensor, targets: Tensor) -> Tensor:
        if self._recipe.augment:
            pictures = augment(pictures, self._recipe.augment, self._generator)
        if self._recipe.mixup:
            pictures, targets = self._mix(pictures, targets)
        return F.cross_entropy(
            self._forward(self._network, pictures),
            targets,
            label_smoothing=self._recipe.label_smoothing,
        )

    def _mix(self, pictures: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Mix each picture and target with those of another picture (Zhang et al., 2018)."""
        share = float(Beta(self._recipe.mixup, self._recipe.mixup).sample())
        other = torch.randperm(len(targets), generator=self._generator, device=self.device)
        return torch.lerp(pictures[other], pictures, share), torch.lerp(
            targets[other], targets, share
        )

    def _forward(self, network: nn.Module, pictures: Tensor) -> Tensor:
        batch = (pictures - self._mean) / self._std
        use_amp = self._recipe.amp and self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=use_amp):
            logits: Tensor = network(batch.contiguous(memory_format=torch.channels_last))
        return logits.float()


def _build_optimizer(recipe: TrainConfig, network: nn.Module) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.AdamW(
            network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
    return torch.optim.SGD(
        network.parameters(),
        recipe.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )


def _build_schedule(
    recipe: TrainConfig, optimizer: torch.optim.Optimizer, n_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)
    # OneCycleLR divides by the number of rising steps minus one, which must not be 0.
    rise = 0.25 if n_steps > 4 else 0.6
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, recipe.learning_rate, total_steps=n_steps, pct_start=rise
    )
