"""Our own residual network for small grey faces (He et al., 2016; shortcuts of He et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.functional import relu


@dataclass(frozen=True, slots=True)
class CompactSpec:
    """Size of the network."""

    widths: tuple[int, ...] = (64, 128, 256)
    """Channels of each stage; every stage but the first halves the resolution."""
    depths: tuple[int, ...] = (1, 2, 2)
    """Residual blocks of each stage."""


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class _Block(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv_norm(in_channels, out_channels, 3, stride)
        self.conv2 = _conv_norm(out_channels, out_channels, 3, 1)
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), _conv_norm(in_channels, out_channels, 1, 1)
            )

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.conv2(relu(self.conv1(x), inplace=True)) + self.shortcut(x), inplace=True)


class ResNetCompact(nn.Module):
    """Stem that halves the picture, residual stages, average pooling, one linear layer."""

    def __init__(self, spec: CompactSpec, n_classes: int, *, dropout: float) -> None:
        super().__init__()
        channels = spec.widths[0]
        self.stem = nn.Sequential(
            _conv_norm(1, channels // 2, 3, 1),
            nn.ReLU(inplace=True),
            _conv_norm(channels // 2, channels, 3, 2),
            nn.ReLU(inplace=True),
        )
        blocks: list[nn.Module] = []
        for width, depth in zip(spec.widths, spec.depths, strict=True):
            for _ in range(depth):
                blocks.append(_Block(channels, width, 1 if channels == width else 2))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels, n_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Crops (M, 1, S, S) float32 to logits (M, n_classes)."""
        logits: Tensor = self.head(self.blocks(self.stem(x)))
        return logits
