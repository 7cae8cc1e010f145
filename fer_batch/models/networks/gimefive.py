"""The GiMeFive networks of "Facial Emotion Recognition and Interpretation" (Wang et al., 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class GiMeFiveSpec:
    """The differences between the GiMeFive networks."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Channels of each convolution block."""
    batch_norm: bool = True
    block_dropout: float = 0.0
    """After each pooling but the last."""
    squeeze_excitation: bool = False
    """After the first block."""


GIMEFIVE_VARIANTS = {
    "gimefive-13": GiMeFiveSpec(widths=(64, 128, 256, 512)),
    "gimefive-10": GiMeFiveSpec(batch_norm=False),
    "gimefive-15": GiMeFiveSpec(),
    "gimefive-15-do": GiMeFiveSpec(block_dropout=0.2),
    "gimefive-16": GiMeFiveSpec(squeeze_excitation=True),
    "gimefive-17": GiMeFiveSpec(widths=(64, 128, 256, 512, 1024, 2048)),
}


class _SqueezeExcitation(nn.Module):
    """Channel attention (Hu et al., 2018) with linear layers without bias."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(channels, channels // reduction, bias=False),
            nn.ReLU(inplace=True),
            nn.Linear(channels // reduction, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = x * self.gate(x)[:, :, None, None]
        return gated


class GiMeFive(nn.Module):
    """Convolution blocks, average pooling, and three linear layers C, 2C, C, n."""

    def __init__(self, spec: GiMeFiveSpec, n_classes: int, *, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for block, width in enumerate(spec.widths):
            layers.append(nn.Conv2d(channels, width, 3, padding=1))
            if spec.batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers += [nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            if spec.block_dropout and block < len(spec.widths) - 1:
                layers.append(nn.Dropout(spec.block_dropout))
            if spec.squeeze_excitation and block == 0:
                layers.append(_SqueezeExcitation(width))
            channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(channels, 2 * channels),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(2 * channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Crops (M, 3, S, S) float32 to logits (M, n_classes); S is at least 2 ** blocks."""
        logits: Tensor = self.head(self.features(x))
        return logits
