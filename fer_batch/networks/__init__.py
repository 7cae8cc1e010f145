"""Classifier networks by name."""

from __future__ import annotations

from torch import nn

from fer_batch.networks.gimefive import GIMEFIVE_VARIANTS, GiMeFive
from fer_batch.networks.resnet import RESNET_VARIANTS, ResNet

NETWORKS = (*RESNET_VARIANTS, *GIMEFIVE_VARIANTS)
"""Every name that `build_network` knows."""


def build_network(name: str, n_classes: int) -> nn.Module:
    """A freshly initialised network that maps crops (M, C, S, S) float32 to logits (M, n_classes).

    Raises:
        ValueError: The name is not one of `NETWORKS`.
    """
    if name in RESNET_VARIANTS:
        return ResNet(RESNET_VARIANTS[name], n_classes)
    if name in GIMEFIVE_VARIANTS:
        return GiMeFive(GIMEFIVE_VARIANTS[name], n_classes)
    raise ValueError(f"no network is named {name!r}; there are: {', '.join(NETWORKS)}")
