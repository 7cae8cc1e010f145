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
from fer_batch.models.card import ModelCard, read_card
from fer_batch.models.networks import build_network
from fer_batch.storage import urls


def load(path: Path, device: torch.device) -> tuple[nn.Module, ModelCard]:
    """A network ready for inference in float32, and its card.

    Raises:
        WeightsError: The file does not have the card's hash, or does not fit the card's network.
    """
    card = read_card(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error}") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != card.sha256:
        raise WeightsError(
            f"{path}: sha256 is {sha256}, its card says {card.sha256}: the file was altered or cut"
        )
    try:
        network = build_network(card.network, len(card.classes))
        tensors = {name: tensor.float() for name, tensor in load_tensors(content).items()}
        network.load_state_dict(tensors, strict=True)
    except (ConfigError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{path}: does not hold a {card.network}: {error}") from error
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise WeightsError(f"{path}: holds values that are not finite: the training went wrong")
    return network.to(device).to(memory_format=torch.channels_last).eval(), card


def round_to_half(network: nn.Module) -> None:
    """Give the weights, in place, the values that `save` writes and `load` reads."""
    network.load_state_dict(_in_half_precision(network))


def save(network: nn.Module, card: ModelCard, folder: Path) -> Path:
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
