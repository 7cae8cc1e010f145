"""Random changes of training pictures, a whole batch at a time on its device."""

from __future__ import annotations

import math

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from fer_batch.settings import Settings


class Augment(Settings):
    """Random changes of training pictures; 0 switches one off."""

    flip: float = Field(0.5, ge=0, le=1)
    """Probability of mirroring."""
    rotate_deg: float = Field(12, ge=0, le=180)
    """Largest rotation in either direction, in degrees."""
    scale: float = Field(0.12, ge=0, lt=1)
    """Largest relative change of size, up or down."""
    shift: float = Field(0.08, ge=0, le=0.5)
    """Largest shift in any direction, as a fraction of the side."""
    brightness: float = Field(0.2, ge=0, le=1)
    """Largest relative change of brightness, up or down."""
    contrast: float = Field(0.3, ge=0, le=1)
    """Largest relative change of contrast, up or down."""
    erase: float = Field(0.25, ge=0, le=1)
    """Probability that a grey rectangle covers a part (random erasing, Zhong et al., 2020)."""


def augment(pictures: Tensor, config: Augment, generator: torch.Generator) -> Tensor:
    """Change each picture of a batch in its own random way.

    Args:
        pictures: (N, C, S, S) float32 in [0, 1].
        config: Which changes, and how strong.
        generator: Random numbers, on the device of the pictures.

    Returns:
        (N, C, S, S) float32 in [0, 1].
    """
    n, device = len(pictures), pictures.device

    def uniform(*shape: int) -> Tensor:
        """Values in [-1, 1)."""
        return torch.rand(n, *shape, generator=generator, device=device) * 2 - 1

    angle = uniform() * math.radians(config.rotate_deg)
    zoom = 1 + uniform() * config.scale
    mirror = torch.where(uniform() < 2 * config.flip - 1, -1.0, 1.0)
    matrix = torch.stack(
        [
            torch.stack([zoom * angle.cos() * mirror, -zoom * angle.sin()], -1),
            torch.stack([zoom * angle.sin() * mirror, zoom * angle.cos()], -1),
        ],
        dim=1,
    )
    matrix = torch.cat([matrix, 2 * config.shift * uniform(2, 1)], dim=2)
    grid = F.affine_grid(matrix, list(pictures.shape), align_corners=False)
    pictures = F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)

    mean = pictures.mean((1, 2, 3), keepdim=True)
    pictures = (pictures - mean) * (1 + uniform(1, 1, 1) * config.contrast) + mean
    pictures = (pictures * (1 + uniform(1, 1, 1) * config.brightness)).clamp(0, 1)
    chosen = uniform(1, 1, 1) < 2 * config.erase - 1
    return torch.where(
        chosen & _rectangle(pictures, uniform(2), uniform(2)),
        pictures.mean((1, 2, 3), keepdim=True),
        pictures,
    )


def _rectangle(pictures: Tensor, centre: Tensor, extent: Tensor) -> Tensor:
    """Masks (N, 1, S, S) of rectangles whose sides are 0.1 to 0.5 of the picture's."""
    line = torch.linspace(-1, 1, pictures.shape[-1], device=pictures.device)
    half = 0.3 + 0.2 * extent
    rows = (line - centre[:, :1]).abs() < half[:, :1]
    columns = (line - centre[:, 1:]).abs() < half[:, 1:]
    return (rows[:, :, None] & columns[:, None, :])[:, None]
