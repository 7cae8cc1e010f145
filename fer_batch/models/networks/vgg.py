"""The small VGG that the GiMeFive paper compares with (after Simonyan & Zisserman, 2015)."""

from __future__ import annotations

from torch import Tensor, nn


class VGG(nn.Module):
    """Three pairs of convolutions, each pair with one batch normalisation, and three linear layers.

    Both convolutions of a pair are followed by the same batch normalisation, as in the source.
    """

    def __init__(self, n_classes: int, *, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for width in (64, 128, 256):
            norm = nn.BatchNorm2d(width)
            layers += [nn.Conv2d(channels, width, 3, padding=1), norm, nn.ReLU(inplace=True)]
            layers += [nn.Conv2d(width, width, 3, padding=1), norm, nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2))
            channels = width
        self.features = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(8), nn.Flatten())
        self.head = nn.Sequential(
            nn.Linear(16_384, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(4096, 1024),
            nn.ReLU(inplace=True),
            nn.Linear(1024, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Crops (M, 3, S, S) float32 to logits (M, n_classes); S is at least 8."""
        logits: Tensor = self.head(self.features(x))
        return logits
