"""The network of the detector ``glance``: small, fully convolutional, for any size of picture.

At three strides it says for each cell of the picture whether the centre of a face is near, and
where the box and the five points of that face are; a feature pyramid (Lin et al., 2017) without
anchors, as in FCOS (Tian et al., 2019).
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse
from torch.nn import functional as F

from fer_batch.models import weights
from fer_batch.models.card import FileCard, read_card_as

STRIDES = (8, 16, 32)
"""Pixels between the cells of each level."""
STEM = (8, 16)
WIDTHS = (32, 64, 96)
"""Channels of the backbone at each stride."""
PYRAMID = 32
"""Channels of the feature pyramid at each stride."""
N_OUTPUTS = 15
"""Score, centre and size of the box, and five points."""
WHITE = 255.0
RARE = 0.01
"""Score of every cell before the training."""
MAX_LOG_SIZE = 6.0


class GlanceNetwork(nn.Module):
    """Maps pictures to one row of numbers per cell."""

    def __init__(self) -> None:
        super().__init__()
        first, second = STEM
        eighth, sixteenth, last = WIDTHS
        self.at_8 = nn.Sequential(
            _convolution(3, first, stride=2),
            _convolution(first, second, stride=2),
            _convolution(second, eighth, stride=2),
        )
        self.at_16 = nn.Sequential(
            _convolution(eighth, sixteenth, stride=2), _convolution(sixteenth, sixteenth)
        )
        self.at_32 = nn.Sequential(
            _convolution(sixteenth, last, stride=2), _convolution(last, last)
        )
        self.lateral = nn.ModuleList(_convolution(width, PYRAMID, size=1) for width in WIDTHS)
        self.head = nn.ModuleList(_convolution(PYRAMID, PYRAMID) for _ in STRIDES)
        self.output = nn.ModuleList(_output() for _ in STRIDES)

    def forward(self, pixels: Tensor) -> Tensor:
        """Outputs of every cell.

        Args:
            pixels: RGB pictures (N, 3, H, W), float, in [0, 1].

        Returns:
            (N, K, 15), one row for each of the K `cells`: logit of a face; offset of the box's
            centre in strides; logarithms of its width and height in strides; offsets of right eye,
            left eye, nose, right and left corner of the mouth in strides.
        """
        fine = self.at_8(pixels)
        middle = self.at_16(fine)
        coarse = self.at_32(middle)
        top = self.lateral[2](coarse)
        centre = self.lateral[1](middle) + F.interpolate(top, size=middle.shape[2:])
        base = self.lateral[0](fine) + F.interpolate(centre, size=fine.shape[2:])
        outputs = [
            output(head(features)).permute(0, 2, 3, 1).flatten(1, 2)
            for features, head, output in zip(
                (base, centre, top), self.head, self.output, strict=True
            )
        ]
        return torch.cat(outputs, dim=1)

    @torch.no_grad()
    def scale_scores(self, factor: float, offset: float) -> None:
        """Replace the logit of every cell by ``factor * logit + offset``."""
        for output in self.output:
            weight, bias = (output.get_parameter(name) for name in ("weight", "bias"))
            weight[0] *= factor
            bias[0] = factor * bias[0] + offset


class DetectorCard(FileCard):
    """What the weights of a detector are, and how they were made."""

    trained_on: str
    """What the pictures are, where their faces come from, and what they lack."""
    n_train: int
    """Pictures of the training."""
    n_faces: int
    """Faces in them."""
    metrics: dict[str, float]
    """On the pictures that were kept out of the training, by metric and split."""
    licence: str
    recipe: dict[str, JsonValue]
    """What `fer-batch train-detector` was told to make the file."""


def load(path: Path) -> GlanceNetwork:
    """The network of a weight file, on the CPU.

    Raises:
        WeightsError: The file or its card cannot be read, or do not fit.
    """
    card = read_card_as(DetectorCard, path)
    network = GlanceNetwork()
    weights.fill(network, path, card.sha256, name="glance")
    return network


def prepare(network: nn.Module, device: torch.device) -> nn.Module:
    """A copy for inference on a device that takes pixels in [0, 255]; it gives the same, sooner."""
    folded = fuse(copy.deepcopy(network).eval())
    folded.get_parameter("at_8.0.0.weight").data /= WHITE
    return folded.to(device).to(memory_format=torch.channels_last)


def cells(height: int, width: int, device: torch.device) -> Tensor:
    """Centre x, centre y and stride of the K cells of a picture, in its pixels: (K, 3) float32."""
    levels = [
        torch.cartesian_prod(
            (torch.arange(-(-height // stride)) + 0.5) * stride,
            (torch.arange(-(-width // stride)) + 0.5) * stride,
            torch.tensor([float(stride)]),
        )
        for stride in STRIDES
    ]
    return torch.cat(levels)[:, [1, 0, 2]].to(device)


def decode(outputs: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (..., C), boxes (..., C, 4) as x1 y1 x2 y2 and points (..., C, 5, 2), in pixels.

    Args:
        outputs: (..., C, 15), of some cells.
        cells: (C, 3), these `cells`.
    """
    centre, stride = cells[:, :2], cells[:, 2:]
    middle = centre + outputs[..., 1:3] * stride
    half = torch.exp(outputs[..., 3:5].clamp(max=MAX_LOG_SIZE)) * stride / 2
    points = outputs[..., 5:].reshape(*outputs.shape[:-1], 5, 2) * stride[:, None] + centre[:, None]
    return outputs[..., 0], torch.cat([middle - half, middle + half], dim=-1), points


def _output() -> nn.Conv2d:
    layer = nn.Conv2d(PYRAMID, N_OUTPUTS, 1)
    bias = torch.zeros(N_OUTPUTS)
    bias[0] = torch.logit(torch.tensor(RARE))
    layer.bias = nn.Parameter(bias)
    nn.init.normal_(layer.weight, std=0.01)
    return layer


def _convolution(n_in: int, n_out: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )
