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
from fer_batch.plugins import did_you_mean


class _Build(Protocol):
    def __call__(self, n_classes: int, *, dropout: float) -> nn.Module: ...


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """How to build a network, and the input that it takes."""

    build: _Build
    in_channels: int
    """1: grey; 3: grey repeated."""
    input_size_px: int
    dropout: float
    """Default dropout between its linear layers, or before its only one."""


def _resnet(name: str, n_classes: int, *, dropout: float) -> nn.Module:
    """A ResNet (He et al., 2016) that keeps the resolution its stem would pool away."""
    from torchvision import models  # loading takes seconds, and most runs do not need it

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
"""All networks, by name."""


def find_network(name: str) -> NetworkSpec:
    """The network of a name.

    Raises:
        ConfigError: The name is not one of `NETWORKS`.
    """
    if name not in NETWORKS:
        raise ConfigError(
            f"no network is named {name!r}{did_you_mean(name, NETWORKS)}; there are: "
            f"{', '.join(NETWORKS)}"
        )
    return NETWORKS[name]


def build_network(name: str, n_classes: int, *, dropout: float | None = None) -> nn.Module:
    """A freshly initialised network that maps crops (M, C, S, S) float32 to logits (M, n_classes).

    Args:
        name: One of `NETWORKS`.
        n_classes: Number of outputs.
        dropout: Of the head; None means the network's default.

    Raises:
        ConfigError: The name is not one of `NETWORKS`.
    """
    spec = find_network(name)
    return spec.build(n_classes, dropout=spec.dropout if dropout is None else dropout)


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """The input that a network takes, and what it costs."""

    name: str
    in_channels: int
    input_size_px: int
    parameters: int
    """Number of trainable parameters."""
    macs: int
    """Multiply-accumulate operations of one face at `input_size_px`."""
    file_mb: float
    """Megabytes of its weights in half precision."""


def describe(name: str, n_classes: int, *, input_size_px: int | None = None) -> NetworkFacts:
    """Count the parameters and operations of a network; nothing is allocated.

    Args:
        name: One of `NETWORKS`.
        n_classes: Number of outputs.
        input_size_px: Side of the pictures; None means the network's own.

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
