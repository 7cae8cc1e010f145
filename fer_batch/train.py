"""Training a classifier: fit, validate each epoch, stop early, export weights with their card."""

from __future__ import annotations

import copy
import csv
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional as F

from fer_batch import weights
from fer_batch.augment import Augment, augment
from fer_batch.card import ModelCard
from fer_batch.config import read_yaml, validate
from fer_batch.datasets import READERS, Samples, Split, drop_leaks, read_pixels
from fer_batch.networks import build_network
from fer_batch.schema import EMOTIONS, ConfigError

logger = logging.getLogger(__name__)


class TrainConfig(BaseModel):
    """How to train one classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str
    """Of the weight file."""
    dataset: str
    """ferplus or fer2013."""
    network: str = "resnet-compact"
    in_channels: int = 1
    """What the network takes: 1 for grey, 3 for grey repeated."""
    input_size_px: int = 48
    epochs: int = Field(20, ge=1)
    patience: int = Field(8, ge=1)
    """Stop after this many epochs without a better validation accuracy."""
    batch_size: int = Field(128, ge=2)
    learning_rate: float = Field(0.2, gt=0)
    """Peak of the one-cycle schedule (Smith & Topin, 2019) of SGD with Nesterov momentum."""
    weight_decay: float = Field(5e-4, ge=0)
    seed: int = 0
    crop_margin: float = 0.0
    """For the card: how much more than a detector's box the training pictures show."""
    licence: str = "unknown"
    augment: Augment = Augment()


@dataclass(frozen=True, slots=True)
class Epoch:
    """How one epoch of training went."""

    number: int
    """1-based."""
    train_loss: float
    valid_loss: float
    valid_accuracy: float


def load_config(path: Path) -> TrainConfig:
    """Read a training configuration.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong.
    """
    return validate(TrainConfig, read_yaml(path))


@dataclass(frozen=True, slots=True, eq=False)
class _Split:
    pixels: Tensor
    """(N, S, S) uint8."""
    targets: Tensor
    """(N, n_classes) float32, rows sum to 1."""


def fit(
    config: TrainConfig,
    data: Path,
    out: Path,
    *,
    device: torch.device,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Path:
    """Train on ``train``, choose the best epoch on ``valid``, measure once on ``test``, export.

    Args:
        config: What to train and how.
        data: Root folder of the data set.
        out: Folder for ``NAME.safetensors``, ``NAME.json`` and ``metrics.csv``.
        device: Where to train.
        on_epoch: Called after each epoch.

    Returns:
        Path of the weight file.

    Raises:
        ConfigError: An unknown data set or network.
        DatasetError: The data set is not as it should be.
    """
    torch.manual_seed(config.seed)
    train_samples, splits = _read_splits(config, data, device)
    columns = _classes(splits["train"].targets)
    classes = tuple(EMOTIONS[column] for column in columns)
    splits = {name: _Split(s.pixels, s.targets[:, columns]) for name, s in splits.items()}
    pixels = splits["train"].pixels.float() / 255
    mean, std = float(pixels.mean()), float(pixels.std())
    try:
        network = build_network(config.network, len(classes))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    network = network.to(device).to(memory_format=torch.channels_last)

    prepare = _Prepare(config.in_channels, mean, std)
    out.mkdir(parents=True, exist_ok=True)
    best = _fit_epochs(config, network, splits, prepare, out, on_epoch)
    network.load_state_dict(best)

    temperature = _fit_temperature(_logits(network, splits["valid"], prepare), splits["valid"])
    metrics: dict[str, float] = {}
    for name in ("valid", "test"):
        loss, accuracy = _score(_logits(network, splits[name], prepare), splits[name])
        metrics |= {f"{name}_accuracy": round(accuracy, 4), f"{name}_loss": round(loss, 4)}
        metrics[f"{name}_n"] = len(splits[name].pixels)
    card = ModelCard(
        name=config.name,
        network=config.network,
        classes=classes,
        input_size_px=config.input_size_px,
        in_channels=config.in_channels,
        mean=round(mean, 4),
        std=round(std, 4),
        crop_margin=config.crop_margin,
        temperature=round(temperature, 4),
        trained_on=config.dataset,
        n_train=len(train_samples),
        n_train_dropped=dict(train_samples.dropped),
        metrics=metrics,
        licence=config.licence,
        command=f"fer-batch train --config configs/train/{config.name}.yaml",
    )
    return weights.save(network, card, out)


@dataclass(frozen=True, slots=True)
class _Prepare:
    """Grey pictures to what the network takes."""

    channels: int
    mean: float
    std: float

    def __call__(self, pictures: Tensor) -> Tensor:
        return ((pictures - self.mean) / self.std).expand(-1, self.channels, -1, -1)


def _read_splits(
    config: TrainConfig, data: Path, device: torch.device
) -> tuple[Samples, dict[Split, _Split]]:
    if config.dataset not in READERS:
        raise ConfigError(f"no data set {config.dataset!r}; there are: {', '.join(READERS)}")
    reader = READERS[config.dataset]
    names: tuple[Split, ...] = ("train", "valid", "test")
    samples = {name: reader(data, name) for name in names}
    pixels = {name: read_pixels(samples[name], config.input_size_px) for name in names}
    samples["train"], pixels["train"] = drop_leaks(
        samples["train"], pixels["train"], [pixels["valid"], pixels["test"]]
    )
    logger.info(
        "%d training pictures, dropped: %s", len(samples["train"]), samples["train"].dropped
    )
    return samples["train"], {
        name: _Split(
            torch.from_numpy(pixels[name]).to(device),
            torch.from_numpy(samples[name].targets).to(device),
        )
        for name in names
    }


def _classes(targets: Tensor) -> list[int]:
    """Columns of EMOTIONS that occur in the training data."""
    return [int(column) for column in torch.nonzero(targets.sum(0) > 0).flatten()]


def _fit_epochs(
    config: TrainConfig,
    network: nn.Module,
    splits: dict[Split, _Split],
    prepare: _Prepare,
    out: Path,
    on_epoch: Callable[[Epoch], None],
) -> dict[str, Tensor]:
    """Train until the last epoch or until patience ends; the best epoch's weights."""
    train = splits["train"]
    steps = len(train.pixels) // config.batch_size
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=config.learning_rate,
        momentum=0.9,
        nesterov=True,
        weight_decay=config.weight_decay,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, total_steps=config.epochs * steps, pct_start=0.25
    )
    generator = torch.Generator().manual_seed(config.seed)
    best, best_epoch, best_accuracy = network.state_dict(), 0, -1.0
    with (out / "metrics.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table)
        writer.writerow(["epoch", "train_loss", "valid_loss", "valid_accuracy"])
        for number in range(1, config.epochs + 1):
            network.train()
            losses = []
            order = torch.randperm(len(train.pixels), generator=generator)
            for rows in torch.split(order[: steps * config.batch_size], config.batch_size):
                rows = rows.to(train.pixels.device)
                pictures = train.pixels[rows, None].float() / 255
                logits = network(prepare(augment(pictures, config.augment, generator)))
                loss = F.cross_entropy(logits, train.targets[rows])
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                losses.append(loss.detach())
            valid_loss, accuracy = _score(
                _logits(network, splits["valid"], prepare), splits["valid"]
            )
            epoch = Epoch(number, float(torch.stack(losses).mean()), valid_loss, accuracy)
            writer.writerow([number, epoch.train_loss, valid_loss, accuracy])
            table.flush()
            on_epoch(epoch)
            if accuracy > best_accuracy:
                best, best_epoch, best_accuracy = (
                    copy.deepcopy(network.state_dict()),
                    number,
                    accuracy,
                )
            elif number - best_epoch >= config.patience:
                break
    return best


@torch.inference_mode()
def _logits(network: nn.Module, split: _Split, prepare: _Prepare) -> Tensor:
    network.eval()
    batches = (prepare(batch[:, None].float() / 255) for batch in torch.split(split.pixels, 256))
    return torch.cat([network(batch) for batch in batches])


def _score(logits: Tensor, split: _Split) -> tuple[float, float]:
    """Cross-entropy against the targets, and accuracy against their most likely class."""
    loss = float(F.cross_entropy(logits, split.targets))
    hits = logits.argmax(1) == split.targets.argmax(1)
    return loss, float(hits.float().mean())


def _fit_temperature(logits: Tensor, split: _Split) -> float:
    """Temperature with the least cross-entropy against the majority labels (Guo et al., 2017)."""
    labels = split.targets.argmax(1)
    candidates = np.geomspace(0.25, 4, 401)
    losses = [float(F.cross_entropy(logits / float(t), labels)) for t in candidates]
    return float(candidates[int(np.argmin(losses))])
