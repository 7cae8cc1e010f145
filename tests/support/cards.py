"""Model cards and weight files for tests."""

from pathlib import Path

import torch
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from fer_batch.emotions import EMOTIONS
from fer_batch.models import weights
from fer_batch.models.card import ModelCard
from fer_batch.models.networks import build_network


def card(**changes: object) -> ModelCard:
    """A card of a network that was never trained, with some values of its own."""
    values = {
        "name": "tiny",
        "network": "resnet-compact",
        "classes": EMOTIONS,
        "input_size_px": 48,
        "mean": (0.0,),
        "std": (1.0,),
        "crop_margin": 0.0,
        "temperature": 1.0,
        "trained_on": "nothing",
        "n_train": 0,
        "n_train_dropped": {},
        "metrics": {},
        "licence": "MIT",
        "recipe": {},
    }
    return ModelCard.model_validate(values | changes)


def make_weights(folder: Path, **changes: object) -> Path:
    """A network with random weights, always the same, saved with its card."""
    own = card(**changes)
    torch.manual_seed(0)
    return weights.save(build_network(own.network, len(own.classes)), own, folder)


def room_for(n_pictures: int) -> RemovableHandle:
    """A context in which the device has memory for so many pictures at once."""

    def refuse(_: torch.nn.Module, args: tuple[object, ...]) -> None:
        if isinstance(args[0], torch.Tensor) and len(args[0]) > n_pictures:
            raise torch.OutOfMemoryError("no room")

    return register_module_forward_pre_hook(refuse)
