"""Training of one classifier: train, validate each epoch, stop early, save weights and card."""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from fer_batch.datasets import SPLITS, DatasetError, Split
from fer_batch.datasets.pictures import Data, Pictures, fingerprint, load_data
from fer_batch.emotions import EMOTIONS, LABEL_SETS, in_order
from fer_batch.errors import ConfigError
from fer_batch.evaluation.metrics import measure
from fer_batch.evaluation.plots import curves
from fer_batch.models import weights
from fer_batch.models.card import ModelCard
from fer_batch.models.networks import describe, find_network
from fer_batch.results import store
from fer_batch.storage import urls
from fer_batch.training.checkpoint import Checkpoint, TrainingError
from fer_batch.training.log import Epoch, TrainingLog, as_table
from fer_batch.training.recipe import TrainConfig
from fer_batch.training.trainer import Trainer

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHECKPOINT = "checkpoint.pt"
TEMPERATURES = (0.25, 4.0)


def read_data(recipe: TrainConfig, root: Path, *, splits: Sequence[Split] = SPLITS) -> Data:
    """Read the pictures that a recipe asks for.

    Args:
        recipe: Names the data set, its labels and the size.
        root: Folder of the data set, or the file that it was packed into.
        splits: Splits to read.

    Raises:
        ConfigError: An unknown data set or network.
        DatasetError: The data set is not as it should be.
    """
    return load_data(
        recipe.dataset,
        root,
        size_px=recipe.input_size_px or find_network(recipe.network).input_size_px,
        labels=recipe.labels,
        splits=splits,
        drop_duplicates=recipe.drop_duplicates,
    )


def fit(
    recipe: TrainConfig,
    data: Data,
    out: Path,
    *,
    device: torch.device,
    force: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, float], None] = lambda epoch, share: None,
) -> Path:
    """Train on split ``train``, choose the best epoch on ``valid``, measure both held-out splits.

    A training that was stopped continues after its last complete epoch, with the same result as one
    that was never stopped. If it had finished, only the weights and their card are written again.

    Args:
        recipe: What to train and how.
        data: Splits ``train`` and ``valid`` and, if it is to be measured, ``test``: from
            `read_data`.
        out: Folder for the weights, their card, the log of the epochs and the checkpoint.
        device: Where to train.
        force: Start again from the beginning, even if there is a checkpoint.
        on_epoch: Called after each epoch; an error that it raises stops the training.
        on_step: Called after each step with the epoch's number and the share of it that is done.

    Returns:
        Path of the weight file.

    Raises:
        ConfigError: The network is unknown, or `out` holds another training.
        DatasetError: The data does not fit the recipe.
        StoreError: Another training is writing to `out`.
        TrainingError: The loss became infinite or NaN.
    """
    _check(recipe, data)
    train = data.pictures["train"]
    mean, std = _mean_and_std(recipe, train)
    with store.lock(out), _repeatable(device):
        urls.remove_temporaries(out)
        if force:
            (out / CHECKPOINT).unlink(missing_ok=True)
        torch.manual_seed(recipe.seed)
        trainer = Trainer(recipe, len(data.classes), len(train), mean=mean, std=std, device=device)
        _learn(recipe, data, trainer, out, on_epoch=on_epoch, on_step=on_step)
        return weights.save(trainer.network, _card(recipe, data, trainer, mean, std), out)


def _check(recipe: TrainConfig, data: Data) -> None:
    """Find before the first epoch what would fail after the last one."""
    expected = LABEL_SETS[recipe.labels] if recipe.labels else data.classes
    if data.classes != expected or len(expected) < 2:
        raise DatasetError(
            f"{data.dataset}: expected training pictures of "
            f"{', '.join(expected) if len(expected) > 1 else 'two emotions or more'}, "
            f"found {', '.join(data.classes)}"
        )
    for split, pictures in data.pictures.items():
        if len(pictures) < 2:
            raise DatasetError(f"{data.dataset}: split {split} has {len(pictures)} pictures")
    size_px = data.pictures["train"].pixels.shape[-1]
    try:
        describe(recipe.network, len(data.classes), input_size_px=size_px)
    except RuntimeError as error:
        raise ConfigError(f"{recipe.network} does not take {size_px} pixels: {error}") from error


@contextmanager
def _repeatable(device: torch.device) -> Iterator[None]:
    """Use separate random numbers, and no algorithm that is chosen by measuring its speed."""
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), cudnn:
        yield


def _learn(
    recipe: TrainConfig,
    data: Data,
    trainer: Trainer,
    out: Path,
    *,
    on_epoch: Callable[[Epoch], None],
    on_step: Callable[[int, float], None],
) -> None:
    """Train until the last epoch, or until patience ends; then load the best weights.

    They are rounded to half precision as when they are saved, so that the saved weights are
    measured.
    """
    train, valid = (_tensors(recipe, data, split, trainer.device) for split in SPLITS[:2])
    checkpoint = Checkpoint(
        out / CHECKPOINT, [recipe.model_dump_json(), fingerprint(data), trainer.device.type]
    )
    history: list[Epoch] = []
    best: dict[str, Tensor] = {}
    saved = checkpoint.load()
    if saved:
        trainer.load_state_dict(saved["trainer"])
        history = [Epoch(**epoch) for epoch in saved["history"]]
        best = saved["best"]
    with TrainingLog(out, n_before=len(history)) as log:
        while len(history) < recipe.epochs and _best(history) + recipe.patience > len(history):
            start, number = time.perf_counter(), len(history) + 1
            train_loss = trainer.train_epoch(*train, partial(on_step, number))
            logits = trainer.logits(valid[0])
            hits = logits.argmax(1) == valid[1].argmax(1)
            history.append(
                Epoch(
                    number,
                    train_loss,
                    valid_loss=float(F.cross_entropy(logits, valid[1])),
                    valid_accuracy=float(hits.float().mean()),
                    learning_rate=trainer.learning_rate,
                    seconds=time.perf_counter() - start,
                )
            )
            if _best(history) == number:
                best = copy.deepcopy(trainer.network.state_dict())
            log.write(history)
            if math.isfinite(train_loss):
                checkpoint.save(
                    trainer=trainer.state_dict(),
                    history=[asdict(epoch) for epoch in history],
                    best=best,
                )
            on_epoch(history[-1])
            if not math.isfinite(train_loss):
                raise TrainingError(
                    f"epoch {number}: the loss is {train_loss}: lower learning_rate"
                )
    trainer.network.load_state_dict(best)
    weights.round_to_half(trainer.network)
    curves(as_table(history), out / "curves.png")


def _best(history: Sequence[Epoch]) -> int:
    """Number of the first epoch with the highest validation accuracy; 0 if there is none yet."""
    return max(history, key=lambda epoch: epoch.valid_accuracy).epoch if history else 0


def _card(
    recipe: TrainConfig,
    data: Data,
    trainer: Trainer,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ModelCard:
    temperature, metrics = _calibrate(recipe, data, trainer)
    train = data.pictures["train"]
    return ModelCard(
        name=recipe.name,
        network=recipe.network,
        classes=data.classes,
        input_size_px=train.pixels.shape[-1],
        mean=mean,
        std=std,
        crop=recipe.crop,
        crop_margin=recipe.crop_margin,
        temperature=temperature,
        trained_on=recipe.dataset,
        n_train=len(train),
        n_train_dropped=dict(data.dropped),
        metrics=metrics,
        licence=recipe.licence,
        recipe=recipe.model_dump(mode="json"),
    )


def _calibrate(recipe: TrainConfig, data: Data, trainer: Trainer) -> tuple[float, dict[str, float]]:
    """The temperature that calibrates the network, and its scores on each held-out split."""
    pixels, targets = _tensors(recipe, data, "valid", trainer.device)
    temperature = _fit_temperature(trainer.logits(pixels), targets.argmax(1))
    scores: dict[str, float] = {}
    for split in (split for split in SPLITS[1:] if split in data.pictures):
        pictures = data.pictures[split]
        pixels, _ = _tensors(recipe, data, split, trainer.device)
        probs = torch.softmax(trainer.logits(pixels) / temperature, 1).cpu().numpy()
        found = measure(in_order(probs, data.classes), pictures.targets)
        scores[f"{split}_n"] = found.n
        for name in ("accuracy", "macro_f1", "ece"):
            scores[f"{split}_{name}"] = round(getattr(found, name), 4)
    return round(temperature, 4), scores


def _fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature with the lowest cross-entropy against the majority labels (Guo et al., 2017)."""

    def loss(temperature: float) -> float:
        return float(F.cross_entropy(logits / temperature, labels))

    return float(minimize_scalar(loss, bounds=TEMPERATURES, method="bounded").x)


def _tensors(
    recipe: TrainConfig, data: Data, split: Split, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Pictures (N, S, S) uint8 and targets (N, C) float32 of a split, on the device."""
    pictures = data.pictures[split]
    targets = pictures.targets[:, [EMOTIONS.index(name) for name in data.classes]]
    if not recipe.soft_targets:
        targets = np.eye(len(data.classes), dtype=np.float32)[targets.argmax(1)]
    return torch.from_numpy(pictures.pixels).to(device), torch.from_numpy(targets).to(device)


def _mean_and_std(
    recipe: TrainConfig, pictures: Pictures
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of the pictures for a network that takes grey, else those of ImageNet."""
    if find_network(recipe.network).in_channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    pixels = pictures.pixels.astype(np.float32) / 255
    return (round(float(pixels.mean()), 4),), (round(float(pixels.std()), 4),)
