"""Recipes: how to train one classifier, as a frozen configuration read from YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fer_batch.config import layer, validate
from fer_batch.emotions import LabelSet
from fer_batch.training.augment import Augment


class TrainConfig(BaseModel):
    """How to train one classifier."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    """Of the weight file."""
    dataset: str
    """Which reader: a name of `fer_batch.datasets.READERS`."""
    labels: LabelSet | None = None
    """Keep only these emotions; all that the data set has where nothing is said."""
    drop_duplicates: bool = True
    """Leave out training pictures that also stand, equal or nearly so, in a held-out split."""
    soft_targets: bool = True
    """Learn the shares of votes, where the data set has them, and not only the winner."""

    network: str = "resnet-compact"
    """One of `fer_batch.models.networks.NETWORKS`."""
    input_size_px: int | None = Field(None, ge=16)
    """Side of the pictures; the network's own where nothing is said."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """In the network's head; the network's own where nothing is said."""

    epochs: int = Field(30, ge=1)
    patience: int = Field(30, ge=1)
    """Stop after this many epochs without a better validation accuracy."""
    batch_size: int = Field(128, ge=2)
    optimizer: Literal["sgd", "adam"] = "sgd"
    """SGD with Nesterov momentum (0.9; the one-cycle schedule moves it between 0.95 and 0.85), or
    Adam with decoupled weight decay."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """Of the learning rate: up for a quarter and down to nothing (Smith & Topin, 2019), or none."""
    learning_rate: float = Field(0.1, gt=0)
    """The peak of the schedule."""
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0, ge=0, lt=1)
    """Share of each target that is spread over all classes (Szegedy et al., 2016)."""
    mixup: float = Field(0, ge=0)
    """Alpha of the mixing of pictures and targets (Zhang et al., 2018); 0: none."""
    ema_decay: float = Field(0, ge=0, lt=1)
    """Use the moving average of the weights over steps, with this decay; 0: the weights."""
    augment: Augment | None = Augment()
    """Random changes of the training pictures; null: none."""
    amp: bool = True
    """On CUDA, compute in bfloat16 where that is safe."""
    seed: int = 0

    crop: Literal["box", "points"] = "box"
    """For the card: how the training pictures were cut."""
    crop_margin: float = Field(0, gt=-0.5, le=1)
    """For the card: how much more than a detector's box the training pictures show."""
    licence: str = "unknown"
    """For the card."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read a recipe; ``key=value`` overrides are stronger than the file.

    Raises:
        ConfigError: The file cannot be read, or a key or value is wrong; every problem is named.
    """
    return validate(TrainConfig, layer(path, overrides, {}))
