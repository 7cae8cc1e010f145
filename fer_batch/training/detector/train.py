"""Training of a detector: in steps, validated on scenes of its own, continued after a stop."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_expit, logit
from torch.utils.data import DataLoader

from fer_batch.config import Glance
from fer_batch.datasets import Split
from fer_batch.datasets.face_boxes import FacePicture
from fer_batch.evaluation.detection import Matches, compare
from fer_batch.faces.detectors.glance import GlanceDetector
from fer_batch.faces.detectors.glance_network import DetectorCard, GlanceNetwork
from fer_batch.models import weights
from fer_batch.results import store
from fer_batch.storage import urls
from fer_batch.training.checkpoint import Checkpoint, TrainingError
from fer_batch.training.detector.loss import Losses
from fer_batch.training.detector.recipe import DetectorRecipe
from fer_batch.training.detector.samples import Crop, CropDataset, read_picture
from fer_batch.training.detector.trainer import Trainer
from fer_batch.training.log import TrainingLog

CHECKPOINT = "checkpoint.pt"
LEAST_SCORE = 0.05
"""Boxes of a lower score are not looked at in validation."""
SCORE = 0.5
"""Score from which recall and wrong boxes are counted."""
SMALL_PX = 32


@dataclass(frozen=True, slots=True)
class Validation:
    """Results of the steps since the last validation."""

    step: int
    """Steps that are done."""
    train_score_loss: float
    train_box_loss: float
    train_points_loss: float
    valid_average_precision: float
    """At an overlap of 0.5."""
    valid_recall: float
    """Share of the faces that are found with a score of 0.5."""
    valid_recall_small: float
    """The same, of faces below 32 pixels."""
    valid_wrong: int
    """Boxes with a score of 0.5 that are no faces."""
    learning_rate: float
    """After the step."""
    seconds: float


OnStep = Callable[[int, Validation | None], None]


def fit(
    recipe: DetectorRecipe,
    splits: Mapping[Split, Sequence[FacePicture]],
    out: Path,
    *,
    device: torch.device,
    workers: int = 1,
    force: bool = False,
    on_step: OnStep = lambda step, validation: None,
) -> Path:
    """Train on split ``train``, calibrate scores on ``valid``, measure both held-out splits.

    A training that was stopped continues after its last validation. If it had finished, only the
    weights and their card are written again.

    Args:
        recipe: How to train.
        splits: From `read_face_boxes`.
        out: Folder for the weights, their card, the log and the checkpoint.
        device: Where to train.
        workers: Processes that make crops; 0: this one makes them.
        force: Start again from the beginning, even if there is a checkpoint.
        on_step: Called after each step with the number of steps that are done, and after each
            validation also with its results; an error that it raises stops the training.

    Returns:
        Path of the weight file.

    Raises:
        ConfigError: `out` holds another training.
        DatasetError: A picture cannot be decoded, or there is none of a kind that `recipe` names.
        StoreError: Another training is writing to `out`.
        TrainingError: The loss became infinite or NaN.
    """
    with store.lock(out), torch.random.fork_rng([]):
        urls.remove_temporaries(out)
        if force:
            (out / CHECKPOINT).unlink(missing_ok=True)
        torch.manual_seed(recipe.seed)
        trainer = Trainer(recipe, device)
        checkpoint = Checkpoint(
            out / CHECKPOINT, [recipe.model_dump_json(), _fingerprint(splits), device.type]
        )
        history = _continue(trainer, checkpoint)
        step = history[-1].step if history else 0
        with TrainingLog(out, n_before=step) as log:
            for result in _train(recipe, trainer, splits, device, step, workers, on_step):
                history.append(result)
                log.write(history)
                checkpoint.save(
                    trainer=trainer.state_dict(), history=[asdict(each) for each in history]
                )
                on_step(result.step, result)
        return _export(recipe, trainer.network, splits, device, out)


def validate(
    network: GlanceNetwork, pictures: Sequence[FacePicture], device: torch.device
) -> Matches:
    """What a network finds in pictures, compared with what is there."""
    detector = GlanceDetector(network, Glance(min_score=LEAST_SCORE), device)
    return compare((picture, detector.detect([read_picture(picture)])) for picture in pictures)


def _continue(trainer: Trainer, checkpoint: Checkpoint) -> list[Validation]:
    """Put a trainer where its checkpoint is; the results until then."""
    saved = checkpoint.load()
    if not saved:
        return []
    trainer.load_state_dict(saved["trainer"])
    return [Validation(**each) for each in saved["history"]]


def _train(
    recipe: DetectorRecipe,
    trainer: Trainer,
    splits: Mapping[Split, Sequence[FacePicture]],
    device: torch.device,
    step: int,
    workers: int,
    on_step: OnStep,
) -> Iterator[Validation]:
    """Train from a step on; the results of each validation."""
    crops = _batches(recipe, splits["train"], step, workers)
    while step < recipe.n_steps:
        start = time.perf_counter()
        losses = []
        for batch in islice(crops, recipe.validate_every - step % recipe.validate_every):
            losses.append(trainer.step(batch))
            step += 1
            on_step(step, None)
        found = validate(trainer.network, splits["valid"], device)
        result = Validation(
            step=step,
            **_means(losses),
            valid_average_precision=found.average_precision(),
            valid_recall=found.recall(SCORE),
            valid_recall_small=found.recall(SCORE, below_px=SMALL_PX),
            valid_wrong=found.n_wrong(SCORE),
            learning_rate=trainer.learning_rate,
            seconds=time.perf_counter() - start,
        )
        if not math.isfinite(result.train_score_loss):
            raise TrainingError(f"step {step}: the loss is not finite: lower learning_rate")
        yield result


def _batches(
    recipe: DetectorRecipe, pictures: Sequence[FacePicture], step: int, workers: int
) -> Iterator[list[Crop]]:
    """The batches of crops from a step on."""
    for number, phase in enumerate(recipe.phases):
        first = min(step, phase.steps)
        step -= first
        if first < phase.steps:
            yield from DataLoader(
                CropDataset(pictures, recipe, number),
                batch_size=phase.batch_size,
                sampler=range(first * phase.batch_size, phase.steps * phase.batch_size),
                num_workers=workers,
                collate_fn=list,
                worker_init_fn=_use_one_thread,
            )


def _use_one_thread(worker: int) -> None:
    cv2.setNumThreads(1)


def _means(losses: Sequence[Losses]) -> dict[str, float]:
    return {
        f"train_{field.name}_loss": float(
            torch.stack([getattr(each, field.name).detach() for each in losses]).mean()
        )
        for field in fields(Losses)
    }


def _fingerprint(splits: Mapping[Split, Sequence[FacePicture]]) -> str:
    """Hash of all pictures and boxes."""
    found = hashlib.sha256()
    for split, pictures in splits.items():
        found.update(split.encode())
        for picture in pictures:
            found.update(picture.jpeg)
            for column in (picture.box_px, picture.points_px, picture.is_sure):
                found.update(column.tobytes())
    return found.hexdigest()


def _export(
    recipe: DetectorRecipe,
    network: GlanceNetwork,
    splits: Mapping[Split, Sequence[FacePicture]],
    device: torch.device,
    out: Path,
) -> Path:
    """Calibrate, measure and write a network."""
    network.scale_scores(*_calibrate(validate(network, splits["valid"], device)))
    weights.round_to_half(network)
    metrics: dict[str, float] = {}
    for split in ("valid", "test"):
        found = validate(network, splits[split], device)
        metrics[f"{split}_n_faces"] = len(found.face_px)
        metrics[f"{split}_average_precision"] = round(found.average_precision(), 4)
        metrics[f"{split}_recall"] = round(found.recall(SCORE), 4)
        metrics[f"{split}_wrong"] = found.n_wrong(SCORE)
        error = found.point_error[np.isfinite(found.point_error)]
        if len(error):
            metrics[f"{split}_point_error"] = round(float(np.median(error)), 4)
    card = DetectorCard(
        name=recipe.name,
        trained_on=recipe.trained_on,
        n_train=len(splits["train"]),
        n_faces=sum(int(picture.is_sure.sum()) for picture in splits["train"]),
        metrics=metrics,
        licence=recipe.licence,
        recipe=recipe.model_dump(mode="json"),
    )
    return weights.save(network, card, out)


def _calibrate(found: Matches) -> tuple[float, float]:
    """Factor and offset of logits that make a score the share of its boxes that are faces.

    This is Platt scaling (1999). Boxes that are all right, or all wrong, change nothing.
    """
    if found.is_right.all() or not found.is_right.any():
        return 1.0, 0.0
    logits = logit(found.score.astype(np.float64))

    def loss(values: np.ndarray) -> float:
        shifted = values[0] * logits + values[1]
        return -float(np.where(found.is_right, log_expit(shifted), log_expit(-shifted)).mean())

    factor, offset = minimize(loss, [1.0, 0.0], method="Nelder-Mead").x
    return float(factor), float(offset)
