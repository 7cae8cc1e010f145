"""RetinaFace (Deng et al., 2020) as the package retinaface-pytorch builds it.

Its body is ResNet-50, or a quarter of MobileNet (Howard et al., 2017) as in
https://github.com/biubug6/Pytorch_Retinaface, from which the package comes.
"""

from __future__ import annotations

import pickle
import struct
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import torch
from retinaface.net import conv_bn, conv_dw
from retinaface.network import RetinaFace
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from fer_batch.errors import WeightsError
from fer_batch.storage.downloads import read_unzipped

ANCHORS = ((8, (16, 32)), (16, (64, 128)), (32, (256, 512)))
"""For each level of the pyramid: pixels between its cells; sides in pixels of a cell's anchors."""
CENTRE_VARIANCE, SIZE_VARIANCE = 0.1, 0.2
"""In training, offsets were divided by these."""


@dataclass(frozen=True, slots=True)
class _Spec:
    """How a network is built, and how pictures were prepared for its training."""

    in_channels: int
    """Half the channels that the first level of the pyramid takes from the body."""
    out_channels: int
    """Channels of every level of the pyramid."""
    mean: tuple[float, float, float]
    """Subtracted from the values in [0, 255] of each channel, in the network's channel order."""
    std: tuple[float, float, float]
    """The difference is divided by it."""
    is_bgr: bool


SPECS = {
    "resnet50": _Spec(256, 256, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), is_bgr=False),
    "mobilenet0.25": _Spec(32, 64, (104.0, 117.0, 123.0), (1.0, 1.0, 1.0), is_bgr=True),
}
"""By their names in `config.RetinaFace`."""


class _MobileNetQuarter(nn.Module):
    """MobileNet at a quarter of its width, in three stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stage1 = nn.Sequential(
            conv_bn(3, 8, 2, leaky=0.1),
            conv_dw(8, 16, 1),
            conv_dw(16, 32, 2),
            conv_dw(32, 32, 1),
            conv_dw(32, 64, 2),
            conv_dw(64, 64, 1),
        )
        self.stage2 = nn.Sequential(conv_dw(64, 128, 2), *(conv_dw(128, 128, 1) for _ in range(5)))
        self.stage3 = nn.Sequential(conv_dw(128, 256, 2), conv_dw(256, 256, 1))

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        first = self.stage1(pixels)
        second = self.stage2(first)
        return {"1": first, "2": second, "3": self.stage3(second)}


class _Prepared(nn.Module):
    """A network that prepares its pictures itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, spec: _Spec) -> None:
        super().__init__()
        self.network = network
        self.is_bgr = spec.is_bgr
        self.register_buffer("mean", torch.tensor(spec.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(spec.std)[:, None, None])

    def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pixels = (rgb.flip(-1) if self.is_bgr else rgb).permute(0, 3, 1, 2)
        boxes, logits, points = self.network((pixels.float() - self.mean) / self.std)
        return boxes, logits, points


def load(name: str, path: Path, device: torch.device) -> nn.Module:
    """A network ready for inference, in float32 and channels last.

    Args:
        name: One of `SPECS`.
        path: A torch file of its weights, or a zip around one.
        device: Where it will run.

    Returns:
        A network that maps RGB pictures (N, H, W, 3) uint8 to three tensors, with one row for each
        of the K `anchors`: offsets of the box (N, K, 4), logits of no face and of a face (N, K, 2),
        offsets of the points (N, K, 10).

    Raises:
        WeightsError: The file cannot be read, or does not fit the network.
    """
    network = _build(name)
    state = _read(path)
    _check_fit(network, state, f"{path}: does not fit the RetinaFace network {name}")
    if not all(tensor.isfinite().all() for tensor in state.values()):
        raise WeightsError(f"{path}: holds values that are not finite")
    network.load_state_dict(state, strict=True, assign=True)
    folded = fuse(_Prepared(network, SPECS[name]).eval())  # the same results, sooner
    return folded.to(device).to(memory_format=torch.channels_last)


def anchors(height: int, width: int, device: torch.device) -> Tensor:
    """Centre x, centre y and side of the K anchors of a picture, in its pixels: (K, 3) float32."""
    levels = [
        torch.cartesian_prod(
            (torch.arange(ceil(height / step)) + 0.5) * step,
            (torch.arange(ceil(width / step)) + 0.5) * step,
            torch.tensor(sides, dtype=torch.float32),
        )
        for step, sides in ANCHORS
    ]
    return torch.cat(levels)[:, [1, 0, 2]].to(device)


def decode(anchor: Tensor, boxes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes and points in pixels of the picture, from a network's outputs for some anchors.

    Args:
        anchor: (C, 3), some of `anchors`.
        boxes: (C, 4) offsets.
        points: (C, 10) offsets.

    Returns:
        Boxes (C, 4) as x1 y1 x2 y2 and points (C, 10) as x y x y ..., float32.
    """
    centre, side = anchor[:, :2], anchor[:, 2:]
    middle = centre + boxes[:, :2] * CENTRE_VARIANCE * side
    half = side * torch.exp(boxes[:, 2:] * SIZE_VARIANCE) / 2
    return (
        torch.cat([middle - half, middle + half], dim=1),
        centre.repeat(1, 5) + points * CENTRE_VARIANCE * side,
    )


def _build(name: str) -> nn.Module:
    """A network on the meta device: its weights have no values yet."""
    spec = SPECS[name]
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="torchvision.models._utils")  # about `pretrained`
        network: nn.Module = RetinaFace(
            name="Resnet50",
            pretrained=False,
            in_channels=spec.in_channels,
            return_layers={"layer2": 1, "layer3": 2, "layer4": 3},
            out_channels=spec.out_channels,
        )
        if name == "mobilenet0.25":
            network.body = _MobileNetQuarter()
    return network


def _read(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(read_unzipped(path), map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    except _DAMAGED as error:
        raise WeightsError(
            f"{path}: is not a weight file of torch, or is damaged: {type(error).__name__}"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: is not a weight file: expected tensors by name")
    return {
        str(key).removeprefix("module."): value.float() if value.is_floating_point() else value
        for key, value in state.items()
    }


_DAMAGED = (
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""Errors of `torch.load`, as observed, for damaged files and files of other kinds."""


def _check_fit(network: nn.Module, state: dict[str, Tensor], message: str) -> None:
    want = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in state.items()}
    missing = [name for name in want if name not in have and "num_batches" not in name]
    unknown = [name for name in have if name not in want]
    other = [
        f"{name} {have[name]} instead of {want[name]}"
        for name in want
        if have.get(name, want[name]) != want[name]
    ]
    problems = {"missing": missing, "unknown": unknown, "of another shape": other}
    if any(problems.values()):
        raise WeightsError(
            f"{message}: "
            + "; ".join(
                f"{len(names)} entries {what}, such as {names[0]}"
                for what, names in problems.items()
                if names
            )
        )
