"""Recipes: how to train one classifier, as settings read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from fer_batch.emotions import LabelSet
from fer_batch.errors import ConfigError
from fer_batch.settings import Settings, find_shipped, merge, validate
from fer_batch.training.augment import Augment


class TrainConfig(Settings):
    """How to train one classifier."""

    name: str = Field(pattern=r"^[\w.-]+$")
    """Name of the weight file."""
    dataset: str
    """Data set: a name of `fer_batch.datasets.READERS`."""
    labels: LabelSet | None = None
    """Use only these emotions; empty: all that the data set has."""
    drop_duplicates: bool = True
    """Leave out training pictures that also occur, equal or nearly so, in a held-out split."""
    soft_targets: bool = True
    """Learn the shares of people's votes, where the data set has them, and not only the winner."""

    network: str = "resnet-compact"
    """One of `fer_batch.models.networks.NETWORKS`."""
    input_size_px: int | None = Field(None, ge=16)
    """Side of the pictures; empty: the network's own."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout in the network's head; empty: the network's own."""

    epochs: int = Field(30, ge=1)
    """Number of passes through the training pictures."""
    patience: int = Field(30, ge=1)
    """Stop after this many epochs without a better validation accuracy."""
    batch_size: int = Field(128, ge=2)
    """Pictures per training step."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """sgd: with Nesterov momentum (0.9; the one-cycle schedule moves it between 0.95 and 0.85);
    adam: with decoupled weight decay."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """one-cycle: the learning rate rises for a quarter of the steps and then falls to zero (Smith &
    Topin, 2019); constant: it does not change."""
    learning_rate: float = Field(0.1, gt=0)
    """Highest learning rate of the schedule."""
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0, ge=0, lt=1)
    """Share of each target that is spread over all classes (Szegedy et al., 2016)."""
    mixup: float = Field(0, ge=0)
    """Alpha of the mixing of pictures and targets (Zhang et al., 2018); 0: no mixing."""
    ema_decay: float = Field(0, ge=0, lt=1)
    """Decay of a moving average of the weights over steps, which then replaces them; 0: none."""
    augment: Augment | None = Augment()
    """Random changes of the training pictures; empty: none."""
    amp: bool = True
    """On CUDA, compute in bfloat16 where that is safe."""
    seed: int = 0
    """Seed of all random numbers."""

    crop: Literal["box", "points"] = "box"
    """Written to the card: how faces were cut out for the training pictures."""
    crop_margin: float = Field(0, gt=-0.5, le=1)
    """Written to the card: how much more than a detector's box the training pictures show."""
    licence: str = "unknown"
    """Written to the card."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe, and replace values by those of ``key=value`` overrides.

    Args:
        path: YAML file, or the bare name of a recipe that comes with fer_batch.
        overrides: Settings that replace those of the file.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; every problem is named.
    """
    path = find_shipped(path, "train")
    values = merge({}, path=path, overrides=overrides)
    if "space" in values:
        raise ConfigError(f"{path} is a sweep, not a recipe: give it to `fer-batch sweep`")
    return validate(TrainConfig, values)
