"""Classifier networks by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fer_batch.errors import ConfigError
from fer_batch.models.networks.compact import CompactSpec, ResNetCompact
from fer_batch.models.networks.gimefive import GIMEFIVE_VARIANTS, GiMeFive
from fer_batch.models.networks.vgg import VGG


class _Build(Protocol):
    def __call__(self, n_classes: int, *, dropout: float) -> nn.Module: ...


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """How to build a network, and what it takes."""

    build: _Build
    in_channels: int
    """1: grey; 3: grey repeated."""
    input_size_px: int
    dropout: float
    """Between its linear layers, or before the only one, where nothing else is said."""


def _resnet(name: str, n_classes: int, *, dropout: float) -> nn.Module:
    """A ResNet (He et al., 2016) that keeps the resolution its stem would pool away."""
    from torchvision import models  # here, because it takes seconds that most runs need not wait

    network: nn.Module = models.get_model(name, num_classes=n_classes)
    network.maxpool = nn.Identity()
    network.fc = nn.Sequential(nn.Dropout(dropout), network.get_submodule("fc"))
    return network


NETWORKS = {
    "resnet-compact": NetworkSpec(partial(ResNetCompact, CompactSpec()), 1, 48, 0.2),
    **{
        name: NetworkSpec(partial(GiMeFive, spec), 3, 64, 0.5)
        for name, spec in GIMEFIVE_VARIANTS.items()
    },
    "resnet18": NetworkSpec(partial(_resnet, "resnet18"), 3, 64, 0.0),
    "resnet34": NetworkSpec(partial(_resnet, "resnet34"), 3, 64, 0.0),
    "vgg16": NetworkSpec(VGG, 3, 64, 0.5),
}
"""Every network that `build_network` knows."""


def find_network(name: str) -> NetworkSpec:
    """What a name stands for.

    Raises:
        ConfigError: The name is not one of `NETWORKS`.
    """
    if name not in NETWORKS:
        raise ConfigError(f"no network is named {name!r}; there are: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def build_network(name: str, n_classes: int, *, dropout: float | None = None) -> nn.Module:
    """A freshly initialised network that maps crops (M, C, S, S) float32 to logits (M, n_classes).

    Args:
        name: One of `NETWORKS`.
        n_classes: Outputs.
        dropout: In the head, instead of the network's own.

    Raises:
        ConfigError: The name is not one of `NETWORKS`.
    """
    spec = find_network(name)
    return spec.build(n_classes, dropout=spec.dropout if dropout is None else dropout)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """What a network takes and costs."""

    name: str
    in_channels: int
    input_size_px: int
    parameters: int
    """Trainable ones."""
    macs: int
    """Multiply-accumulate operations of one face at `input_size_px`."""
    file_mb: float
    """Megabytes of its weights in half precision."""


def describe(name: str, n_classes: int, *, input_size_px: int | None = None) -> NetworkFacts:
    """Count what a network takes and costs; nothing is allocated.

    Args:
        name: One of `NETWORKS`.
        n_classes: Outputs.
        input_size_px: Side of the pictures; the network's own where nothing is said.

    Raises:
        ConfigError: The name is not one of `NETWORKS`.
    """
    spec = find_network(name)
    side = input_size_px or spec.input_size_px
    with torch.device("meta"), torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network = build_network(name, n_classes).eval()
        network(torch.empty(1, spec.in_channels, side, side))
    return NetworkFacts(
        name=name,
        in_channels=spec.in_channels,
        input_size_px=side,
        parameters=sum(p.numel() for p in network.parameters() if p.requires_grad),
        macs=counter.get_total_flops() // 2,
        file_mb=2 * sum(tensor.numel() for tensor in network.state_dict().values()) / 1e6,
    )
