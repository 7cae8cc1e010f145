"""Training a classifier: fit, validate each epoch, stop early, export weights with their card."""

from __future__ import annotations

import copy
import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn import functional as F

from fer_batch.datasets import SPLITS, DatasetError, Split
from fer_batch.datasets.pictures import Data, Pictures, fingerprint, load_data
from fer_batch.emotions import EMOTIONS, LABEL_SETS
from fer_batch.errors import ConfigError, FerError
from fer_batch.evaluation.metrics import measure
from fer_batch.evaluation.plots import curves
from fer_batch.models import weights
from fer_batch.models.card import ModelCard
from fer_batch.models.networks import describe, find_network
from fer_batch.results import store
from fer_batch.training.trainer import Learner
from fer_batch.training.log import Epoch, TrainingLog, as_table
from fer_batch.training.recipe import TrainConfig

logger = logging.getLogger(__name__)

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CHECKPOINT = "checkpoint.pt"
TEMPERATURES = (0.25, 4.0)


class TrainingError(FerError):
    """A training went wrong."""


def read_data(recipe: TrainConfig, root: Path, *, splits: Sequence[Split] = SPLITS) -> Data:
    """The pictures that a recipe asks for.

    Args:
        recipe: Says which.
        root: Of the data set, or the file that it was packed into.
        splits: Which to read.

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
    resume: bool = True,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, float], None] = lambda epoch, share: None,
) -> Path:
    """Train on ``train``, choose the best epoch on ``valid``, measure on what is held out, export.

    A training that was stopped goes on after its last whole epoch, with the same result as one
    that was not; one that is finished is only exported again.

    Args:
        recipe: What to train and how.
        data: ``train``, ``valid`` and, if it shall be measured, ``test``; as `read_data` reads.
        out: Folder for the weights, their card, the log of the epochs and the checkpoint.
        device: Where to train.
        resume: Whether a training that was stopped goes on, or begins anew.
        on_epoch: Called after each epoch; what it raises stops the training.
        on_step: Called after each step with the epoch's number and the share of it that is done.

    Returns:
        Path of the weight file.

    Raises:
        ConfigError: An unknown network, or `out` holds another training.
        DatasetError: The data does not suit the recipe.
        StoreError: Another training is writing to `out`.
        TrainingError: The loss became infinite or NaN.
    """
    _check(recipe, data)
    train = data.pictures["train"]
    mean, std = _mean_and_std(recipe, train)
    with store.lock(out), _repeatable(device):
        if not resume:
            (out / CHECKPOINT).unlink(missing_ok=True)
        torch.manual_seed(recipe.seed)
        learner = Learner(recipe, len(data.classes), len(train), mean=mean, std=std, device=device)
        _learn(recipe, data, learner, out, on_epoch=on_epoch, on_step=on_step)
        return weights.save(learner.network, _card(recipe, data, learner, mean, std), out)


def _check(recipe: TrainConfig, data: Data) -> None:
    """Refuse before the first epoch what would fail after the last."""
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
    """Randomness of its own, and no algorithm that is chosen by its speed."""
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with torch.random.fork_rng([device] if device.type == "cuda" else []), cudnn:
        yield


def _learn(
    recipe: TrainConfig,
    data: Data,
    learner: Learner,
    out: Path,
    *,
    on_epoch: Callable[[Epoch], None],
    on_step: Callable[[int, float], None],
) -> None:
    """Train until the last epoch or the end of patience; the learner then has the best weights.

    They are rounded as they will be saved, so that what is measured is what is saved.
    """
    train, valid = (_tensors(recipe, data, split, learner.device) for split in SPLITS[:2])
    checkpoint = _Checkpoint(out / CHECKPOINT, recipe, data, learner.device)
    history, best = checkpoint.load(learner)
    with TrainingLog(out, n_before=len(history)) as log:
        while len(history) < recipe.epochs and _best(history) + recipe.patience > len(history):
            start, number = time.perf_counter(), len(history) + 1
            train_loss = learner.train_epoch(*train, partial(on_step, number))
            logits = learner.logits(valid[0])
            hits = logits.argmax(1) == valid[1].argmax(1)
            history.append(
                Epoch(
                    number,
                    train_loss,
                    valid_loss=float(F.cross_entropy(logits, valid[1])),
                    valid_accuracy=float(hits.float().mean()),
                    learning_rate=learner.learning_rate,
                    seconds=time.perf_counter() - start,
                )
            )
            if _best(history) == number:
                best = copy.deepcopy(learner.network.state_dict())
            log.write(history)
            if math.isfinite(train_loss):
                checkpoint.save(learner, history, best)
            on_epoch(history[-1])
            if not math.isfinite(train_loss):
                raise TrainingError(
                    f"epoch {number}: the loss is {train_loss}: lower learning_rate"
                )
    learner.network.load_state_dict(best)
    weights.round_to_half(learner.network)
    curves(as_table(history), out / "curves.png")


def _best(history: Sequence[Epoch]) -> int:
    """Number of the first epoch with the highest validation accuracy; 0 before the first."""
    return max(history, key=lambda epoch: epoch.valid_accuracy).epoch if history else 0


class _Checkpoint:
    """The file that a stopped training goes on from."""

    def __init__(self, path: Path, recipe: TrainConfig, data: Data, device: torch.device) -> None:
        self._path = path
        self._origin = [recipe.model_dump_json(), fingerprint(data), device.type]

    def load(self, learner: Learner) -> tuple[list[Epoch], dict[str, Tensor]]:
        """The epochs done so far, and the weights of the best one."""
        if not self._path.exists():
            return [], {}
        try:
            saved = torch.load(self._path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, UnpicklingError) as error:
            raise TrainingError(f"{self._path} cannot be read: {error}; delete it") from error
        if saved["origin"] != self._origin:
            raise ConfigError(
                f"{self._path} belongs to a training with another recipe, other pictures or "
                "another kind of device: give another folder, or delete it to begin anew"
            )
        learner.load_state_dict(saved["learner"])
        return [Epoch(**epoch) for epoch in saved["history"]], saved["best"]

    def save(self, learner: Learner, history: Sequence[Epoch], best: dict[str, Tensor]) -> None:
        temporary = self._path.with_suffix(".tmp")
        content = {
            "origin": self._origin,
            "learner": learner.state_dict(),
            "history": [asdict(epoch) for epoch in history],
            "best": best,
        }
        torch.save(content, temporary)
        os.replace(temporary, self._path)  # noqa: PTH105


def _card(
    recipe: TrainConfig,
    data: Data,
    learner: Learner,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ModelCard:
    temperature, metrics = _calibrate(recipe, data, learner)
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


def _calibrate(recipe: TrainConfig, data: Data, learner: Learner) -> tuple[float, dict[str, float]]:
    """The temperature that calibrates the learner, and its scores on each held-out split."""
    pixels, targets = _tensors(recipe, data, "valid", learner.device)
    temperature = _fit_temperature(learner.logits(pixels), targets.argmax(1))
    columns = [EMOTIONS.index(name) for name in data.classes]
    scores: dict[str, float] = {}
    for split in (split for split in SPLITS[1:] if split in data.pictures):
        pictures = data.pictures[split]
        pixels, _ = _tensors(recipe, data, split, learner.device)
        probs = np.full_like(pictures.targets, np.nan)
        probs[:, columns] = torch.softmax(learner.logits(pixels) / temperature, 1).cpu().numpy()
        found = measure(probs, pictures.targets)
        scores[f"{split}_n"] = found.n
        for name in ("accuracy", "macro_f1", "ece"):
            scores[f"{split}_{name}"] = round(getattr(found, name), 4)
    return round(temperature, 4), scores


def _fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """Temperature with the least cross-entropy against the majority labels (Guo et al., 2017)."""

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
    """Of the pictures themselves for a network that takes grey, else ImageNet's."""
    if find_network(recipe.network).in_channels == 3:
        return IMAGENET_MEAN, IMAGENET_STD
    pixels = pictures.pixels.astype(np.float32) / 255
    return (round(float(pixels.mean()), 4),), (round(float(pixels.std()), 4),)
