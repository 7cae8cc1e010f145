"""Quality of probabilities compared with labels: counts, scores and calibration.

Every number comes from scikit-learn, torchmetrics or SciPy. Scores are fractions in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binned_statistic, bootstrap
from sklearn.metrics import (
    accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    precision_recall_fscore_support,
    recall_score,
)
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_batch.emotions import EMOTIONS
from fer_batch.records import Bools, Floats, Ints

Doubles = NDArray[np.float64]

BINS = 15
"""Number of equally wide bins of confidence, as in Guo et al. (2017)."""


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Confidence against accuracy, in `BINS` equal bins of [0, 1]."""

    n: Ints
    """(BINS,) pictures in each bin."""
    confidence: Doubles
    """(BINS,) mean probability of the predicted class; NaN for an empty bin."""
    accuracy: Doubles
    """(BINS,) share of correct predictions; NaN for an empty bin."""


@dataclass(frozen=True, slots=True, eq=False)
class Metrics:
    """The quality of a classifier on N labelled pictures, over the C classes that it knows."""

    n: int
    classes: tuple[str, ...]
    """Classes of the classifier, in EMOTIONS order."""
    accuracy: float
    accuracy_low: float
    """Lower end of the accuracy's 95 % interval: percentiles of a bootstrap over pictures."""
    accuracy_high: float
    precision: Doubles
    """(C,) NaN for a class that was never predicted."""
    recall: Doubles
    """(C,) NaN for a class without a picture."""
    f1: Doubles
    """(C,) NaN for a class that has no picture and was never predicted."""
    support: Ints
    """(C,) pictures of each class."""
    macro_f1: float
    """Mean F1 of the classes that have pictures."""
    balanced_accuracy: float
    """Mean recall of the classes that have pictures."""
    confusion: Ints
    """(C, C) pictures: rows are true classes, columns predicted ones."""
    ece: float
    """Expected calibration error: mean distance between confidence and accuracy over the bins."""
    nll: float
    """Mean negative log-probability of the true class, in nats."""
    reliability: Reliability


def measure(probs: Floats, targets: Floats) -> Metrics:
    """Compare predicted probabilities with labels.

    Args:
        probs: (N, 8) in EMOTIONS order; NaN in the columns of classes that the model does not have.
        targets: (N, 8) in EMOTIONS order; the largest entry of a row is its true class.

    Raises:
        ValueError: The shapes differ, there are fewer than two pictures, a probability is missing,
            or the true class of a picture is unknown to the model.
    """
    known, true = _known_classes(probs, targets)
    scores = _scores(probs, known)
    predicted = scores.argmax(axis=1)
    right = predicted == true
    low, high = _interval(right)
    labels, present = range(len(known)), np.unique(true)
    precision, recall, f1, support = precision_recall_fscore_support(
        true, predicted, labels=labels, zero_division=np.nan
    )
    return Metrics(
        n=len(true),
        classes=tuple(EMOTIONS[column] for column in known),
        accuracy=float(accuracy_score(true, predicted)),
        accuracy_low=low,
        accuracy_high=high,
        precision=precision,
        recall=recall,
        f1=f1,
        support=support,
        macro_f1=float(f1_score(true, predicted, labels=present, average="macro")),
        balanced_accuracy=float(recall_score(true, predicted, labels=present, average="macro")),
        confusion=confusion_matrix(true, predicted, labels=labels),
        ece=calibration_error(probs, targets),
        nll=float(log_loss(true, scores, labels=labels)),
        reliability=_reliability(scores.max(axis=1), right),
    )


def calibration_error(probs: Floats, targets: Floats) -> float:
    """Expected calibration error of the predicted classes (Guo et al., 2017), as in `measure`."""
    known, true = _known_classes(probs, targets)
    scores, labels = torch.from_numpy(_scores(probs, known)), torch.from_numpy(true)
    return float(multiclass_calibration_error(scores, labels, len(known), BINS, "l1"))


def scale_temperature(probs: Floats, temperature: float) -> Floats:
    """Turn ``softmax(logits)`` into ``softmax(logits / temperature)``.

    Args:
        probs: (N, 8); NaN where the model has no such class.
        temperature: Above 1 makes the probabilities more equal, below 1 less.
    """
    known = ~np.isnan(probs).all(axis=0)
    changed = probs.copy()
    with np.errstate(divide="ignore"):  # a probability of 0 stays 0
        changed[:, known] = softmax(np.log(probs[:, known]) / temperature, axis=1)
    return changed


def as_record(metrics: Metrics) -> dict[str, object]:
    """Metrics as plain values for JSON, with None for NaN."""
    return {name: _plain(value) for name, value in asdict(metrics).items()}


def _known_classes(probs: Floats, targets: Floats) -> tuple[Ints, Ints]:
    """Columns of the classes that the model knows, and each picture's true class among them."""
    shape = (len(targets), len(EMOTIONS))
    if probs.shape != shape or targets.shape != shape or len(targets) < 2:
        raise ValueError(
            f"expected probs and targets of one shape (N, {len(EMOTIONS)}) with N of 2 or more, "
            f"got {probs.shape} and {targets.shape}"
        )
    missing = np.isnan(probs)
    known = np.flatnonzero(~missing.all(axis=0))
    if missing[:, known].any():
        raise ValueError(f"probs lacks values in {missing[:, known].any(axis=1).sum()} rows")
    true = targets.argmax(axis=1)
    foreign = [EMOTIONS[column] for column in np.setdiff1d(true, known)]
    if foreign:
        raise ValueError(f"some pictures show {', '.join(foreign)}, which the model does not know")
    return known, np.searchsorted(known, true)


def _scores(probs: Floats, known: Ints) -> Doubles:
    """The columns of known classes, with rows that sum to 1 in double precision."""
    scores = probs[:, known].astype(np.float64)
    return np.asarray(scores / scores.sum(axis=1, keepdims=True))


def _interval(right: Bools) -> tuple[float, float]:
    found = bootstrap((right,), np.mean, batch=100, method="percentile", rng=0)
    low, high = found.confidence_interval
    return float(low), float(high)


def _reliability(confidence: Doubles, right: Bools) -> Reliability:
    means = binned_statistic(confidence, [confidence, right], "mean", BINS, (0, 1)).statistic
    return Reliability(np.histogram(confidence, BINS, (0, 1))[0], *means)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
