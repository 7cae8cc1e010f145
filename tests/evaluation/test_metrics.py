from __future__ import annotations

import json

import numpy as np
import pytest

from fer_batch.emotions import EMOTIONS
from fer_batch.evaluation.metrics import as_record, calibration_error, measure, scale_temperature
from fer_batch.records import Floats

N_CLASSES = len(EMOTIONS)


def one_hot(columns: list[int]) -> Floats:
    return np.eye(N_CLASSES, dtype=np.float32)[columns]


def certain(columns: list[int], n_known: int = N_CLASSES) -> Floats:
    """Probabilities of a model that knows the first classes and gives 0.9 to these columns."""
    probs = np.full((len(columns), N_CLASSES), 0.1 / (n_known - 1), np.float32)
    probs[:, n_known:] = np.nan
    probs[np.arange(len(columns)), columns] = 0.9
    return probs


def random_probs(n: int, seed: int = 0) -> Floats:
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.full(N_CLASSES, 0.3), n).astype(np.float32)


def test_scores_are_those_counted_by_hand() -> None:
    true = [0, 0, 0, 0, 1, 1, 2, 2]
    said = [0, 0, 0, 1, 1, 0, 1, 1]
    found = measure(certain(said, n_known=3), one_hot(true))
    assert (found.n, found.classes) == (8, EMOTIONS[:3])
    assert found.confusion.tolist() == [[3, 1, 0], [1, 1, 0], [0, 2, 0]]
    assert found.support.tolist() == [4, 2, 2]
    assert found.accuracy == 4 / 8
    np.testing.assert_allclose(found.precision, [3 / 4, 1 / 4, np.nan])
    np.testing.assert_allclose(found.recall, [3 / 4, 1 / 2, 0])
    np.testing.assert_allclose(found.f1, [3 / 4, 1 / 3, 0])
    assert found.macro_f1 == pytest.approx((3 / 4 + 1 / 3 + 0) / 3)
    assert found.balanced_accuracy == pytest.approx((3 / 4 + 1 / 2 + 0) / 3)
    assert found.nll == pytest.approx(-(4 * np.log(0.9) + 4 * np.log(0.05)) / 8, rel=1e-5)
    assert found.ece == pytest.approx(0.9 - 0.5, abs=1e-6)


def test_a_class_without_pictures_counts_in_no_mean() -> None:
    found = measure(certain([0, 1, 7, 1]), one_hot([0, 0, 1, 1]))
    assert np.isnan(found.recall[2:]).all()
    assert np.isnan(found.f1[2:7]).all()
    assert found.f1[7] == 0  # predicted, wrongly
    assert found.macro_f1 == pytest.approx(np.mean(found.f1[:2]))
    assert found.balanced_accuracy == pytest.approx(np.mean(found.recall[:2]))


def test_targets_may_be_shares_of_votes() -> None:
    targets = one_hot([0, 1, 2]) * 0.6 + one_hot([3, 3, 3]) * 0.4
    assert measure(certain([0, 1, 3]), targets).accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("known", [[0, 1, 2, 3, 4, 5], [1, 6], [0, 3, 7]])
def test_classes_are_those_that_the_model_knows(known: list[int]) -> None:
    probs = np.full((20, N_CLASSES), np.nan, np.float32)
    probs[:, known] = np.random.default_rng(0).dirichlet(np.ones(len(known)), 20)
    found = measure(probs, one_hot(known * 10)[:20])
    assert found.classes == tuple(EMOTIONS[column] for column in known)
    assert found.confusion.shape == (len(known), len(known))


@pytest.mark.parametrize(
    "said, confidence, share", [("too sure", 0.9, 0.6), ("too humble", 0.6, 0.9)]
)
def test_calibration_error_is_the_distance_of_confidence_and_accuracy(
    said: str, confidence: float, share: float
) -> None:
    n = 100
    true = np.zeros(n, int)
    probs = np.full((n, N_CLASSES), (1 - confidence) / (N_CLASSES - 1), np.float32)
    predicted = np.where(np.arange(n) < share * n, 0, 1)
    probs[np.arange(n), predicted] = confidence
    found = measure(probs, one_hot(true.tolist()))
    assert found.ece == pytest.approx(abs(confidence - share), abs=1e-6)
    assert found.ece == calibration_error(probs, one_hot(true.tolist()))


def test_reliability_bins_hold_every_picture_and_explain_the_error() -> None:
    probs, rng = random_probs(500), np.random.default_rng(1)
    found = measure(probs, one_hot(rng.integers(0, N_CLASSES, 500).tolist()))
    bins = found.reliability
    assert bins.n.sum() == 500
    filled = bins.n > 0
    assert np.isnan(bins.accuracy[~filled]).all()
    edges = np.linspace(0, 1, len(bins.n) + 1)
    assert (edges[:-1][filled] <= bins.confidence[filled]).all()
    assert (bins.confidence[filled] <= edges[1:][filled]).all()
    distances = np.abs(bins.accuracy - bins.confidence)
    assert found.ece == pytest.approx(np.nansum(bins.n * distances) / 500, abs=1e-5)
    assert (bins.accuracy * bins.n)[filled].sum() == pytest.approx(found.accuracy * 500)


def test_interval_covers_the_accuracy_and_narrows_with_more_pictures() -> None:
    widths = []
    for n in (50, 1000):
        said = [0] * (4 * n // 5) + [1] * (n // 5)
        found = measure(certain(said), one_hot([0] * n))
        assert found.accuracy_low < found.accuracy == 0.8 < found.accuracy_high
        deviation = np.sqrt(0.8 * 0.2 / n)
        widths.append(found.accuracy_high - found.accuracy_low)
        assert widths[-1] == pytest.approx(2 * 1.96 * deviation, rel=0.15)
    assert widths[1] < widths[0] / 3


def test_the_same_input_gives_the_same_numbers() -> None:
    probs, targets = random_probs(60), one_hot([0, 1, 2] * 20)
    assert as_record(measure(probs, targets)) == as_record(measure(probs, targets))


def test_perfection_has_no_uncertainty() -> None:
    found = measure(one_hot([0, 1, 2]), one_hot([0, 1, 2]))
    assert (found.accuracy_low, found.accuracy, found.accuracy_high) == (1, 1, 1)
    assert found.ece == 0
    assert found.nll == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "probs, targets, message",
    [
        (certain([0, 1, 2], n_known=6), one_hot([0, 1, 6]), "neutral, which the model"),
        (certain([0, 1, 2], n_known=6), one_hot([7, 6, 0]), "neutral, contempt, which the model"),
        (certain([0, 1, 2]), one_hot([0, 1]), "one shape"),
        (certain([0, 1])[:, :6], one_hot([0, 1]), "one shape"),
        (certain([0]), one_hot([0]), "2 or more"),
    ],
)
def test_input_that_cannot_be_measured_is_refused(
    probs: Floats, targets: Floats, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        measure(probs, targets)


def test_a_missing_probability_is_refused() -> None:
    probs = certain([0, 1, 2])
    probs[1, 4] = np.nan
    with pytest.raises(ValueError, match="lacks values in 1 rows"):
        measure(probs, one_hot([0, 1, 2]))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_scaling_the_temperature_divides_the_logits(temperature: float) -> None:
    logits = np.random.default_rng(0).normal(0, 3, (40, N_CLASSES))
    logits[:, 6:] = np.nan
    powers = np.exp(logits[:, :6])
    probs = np.full_like(logits, np.nan, np.float32)
    probs[:, :6] = powers / powers.sum(axis=1, keepdims=True)
    want = np.exp(logits[:, :6] / temperature)
    found = scale_temperature(probs, temperature)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :6], want / want.sum(axis=1, keepdims=True), rtol=1e-4)
    assert np.isnan(found[:, 6:]).all()


def test_scaling_the_temperature_keeps_certainty() -> None:
    np.testing.assert_array_equal(scale_temperature(one_hot([3, 1]), 0.8), one_hot([3, 1]))


def test_record_is_plain_json_with_null_for_what_is_undefined() -> None:
    found = measure(certain([0, 1, 1], n_known=3), one_hot([0, 1, 0]))
    record = json.loads(json.dumps(as_record(found), allow_nan=False))
    assert record["classes"] == list(EMOTIONS[:3])
    assert record["precision"] == [1.0, 0.5, None]
    assert record["confusion"] == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert record["reliability"]["n"] == found.reliability.n.tolist()
    assert record["accuracy"] == found.accuracy
