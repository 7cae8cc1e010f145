"""Loading and saving of weight files, always together with their cards."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from fer_batch.errors import ConfigError, WeightsError
from fer_batch.models.card import FileCard, ModelCard, read_card
from fer_batch.models.networks import build_network
from fer_batch.storage import urls


def load(path: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    """A classifier ready for inference in float32, and its card.

    Raises:
        WeightsError: The file does not have the card's hash, or does not fit the card's network.
    """
    card = read_card(path)
    try:
        network = build_network(card.network, len(card.classes))
    except ConfigError as error:
        raise WeightsError(f"{path}: {error}") from error
    fill(network, path, card.sha256, name=card.network)
    return network.to(device).to(memory_format=torch.channels_last).eval(), card


def fill(network: nn.Module, path: Path, sha256: str, *, name: str) -> None:
    """Give a network the weights of a file.

    Args:
        network: The network.
        path: The file, as `save` writes it.
        sha256: What the card says that its hash is.
        name: What the network is called in errors.

    Raises:
        WeightsError: The file cannot be read, has another hash, or does not fit the network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(
            f"{path}: sha256 is {found}, its card says {sha256}: the file was altered or cut"
        )
    try:
        tensors = {key: tensor.float() for key, tensor in load_tensors(content).items()}
        network.load_state_dict(tensors, strict=True)
    except (RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{path}: does not hold a {name}: {error}") from error
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite: the training went wrong")


def round_to_half(network: nn.Module) -> None:
    """Give the weights, in place, the values that `save` writes and `load` reads."""
    network.load_state_dict(_in_half_precision(network))


def save(network: nn.Module, card: FileCard, folder: Path) -> Path:
    """Write ``NAME.safetensors`` in half precision and ``NAME.json``, each renamed into place.

    Returns:
        Path of the weight file.
    """
    tensors = {
        name: tensor.contiguous().cpu() for name, tensor in _in_half_precision(network).items()
    }
    content = save_tensors(tensors)
    card = card.model_copy(update={"sha256": hashlib.sha256(content).hexdigest()})
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{card.name}.safetensors"
    urls.write(path, content)
    urls.write(path.with_suffix(".json"), f"{card.model_dump_json(indent=2)}\n".encode())
    return path


def _in_half_precision(network: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.half() if tensor.is_floating_point() else tensor.clone()
        for name, tensor in network.state_dict().items()
    }
