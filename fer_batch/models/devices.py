"""The devices on which networks run, by their names."""

from __future__ import annotations

import torch

from fer_batch.errors import ConfigError


def pick_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` means.

    ``auto`` is the first CUDA device, else the CPU; ``mps`` is the GPU of a Mac.

    Raises:
        ConfigError: It is not a device, or it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise _unknown(name) from error
    if device.type not in {"cpu", "cuda", "mps"}:
        raise _unknown(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name} is not there: {torch.cuda.device_count()} CUDA devices found"
        )
    if device.type == "mps" and (device.index or not torch.backends.mps.is_available()):
        raise ConfigError(
            f"device {name} is not there: mps is the GPU of a Mac, and needs a PyTorch built for it"
        )
    return device


def pick_devices(names: str) -> tuple[torch.device, ...]:
    """The devices that a list such as ``cuda:0,cuda:1`` means; ``auto``: every GPU, else the CPU.

    Raises:
        ConfigError: One of them is not a device, or it is not there.
    """
    if names == "auto" and torch.cuda.is_available():
        return tuple(torch.device("cuda", index) for index in range(torch.cuda.device_count()))
    return tuple(pick_device(name.strip()) for name in names.split(","))


def _unknown(name: str) -> ConfigError:
    return ConfigError(
        f"{name!r} is not a device: runtime.device and --device take auto, cpu, cuda, cuda:N or mps"
    )
