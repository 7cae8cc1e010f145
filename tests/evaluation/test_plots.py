from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fer_batch.emotions import EMOTIONS
from fer_batch.evaluation import plots
from fer_batch.evaluation.metrics import Metrics, measure


def metrics(n_known: int = 8, share_right: float = 0.7, n: int = 400) -> Metrics:
    rng = np.random.default_rng(0)
    true = rng.integers(0, n_known, n)
    predicted = np.where(rng.random(n) < share_right, true, (true + 1) % n_known)
    probs = np.full((n, 8), np.nan, np.float32)
    probs[:, :n_known] = rng.dirichlet(np.ones(n_known), n) * 0.5
    probs[np.arange(n), predicted] += 0.5
    return measure(probs, np.eye(8, dtype=np.float32)[true])


def epochs(n: int) -> pd.DataFrame:
    number = np.arange(1, n + 1)
    return pd.DataFrame(
        {
            "epoch": number,
            "train_loss": 2 / number,
            "valid_loss": 1 + 1 / number,
            "valid_accuracy": 0.7 - 0.3 / number,
        }
    )


def models(names: list[str], ms_per_face: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "model": names,
            "accuracy": 0.7,
            "accuracy_low": 0.68,
            "accuracy_high": 0.72,
            "ms_per_face": ms_per_face,
        }
    )


PLOTS: dict[str, Callable[[Path], None]] = {
    "curves": lambda path: plots.curves(epochs(40), path),
    "curves of one epoch": lambda path: plots.curves(epochs(1), path),
    "confusion": lambda path: plots.confusion(metrics(), path),
    "confusion of two": lambda path: plots.confusion(metrics(n_known=2), path),
    "reliability": lambda path: plots.reliability(metrics(), path),
    "models": lambda path: plots.accuracy_against_time(
        models(list(EMOTIONS), [0.5, 0.6, 0.7, 3, 3, 3, 20, 300]), path
    ),
    "one model": lambda path: plots.accuracy_against_time(models(["only"], [2.0]), path),
}


@pytest.mark.parametrize("draw", PLOTS.values(), ids=PLOTS.keys())
def test_plots_are_small_pngs_and_leave_no_figure_open(
    draw: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "plot.png"
    draw(path)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert 300 <= picture.width <= 1200
    assert path.stat().st_size < 150_000
    assert plt.get_fignums() == []


def dark(path: Path) -> int:
    """Pixels of text and axes."""
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("L")) < 90).sum())


def test_names_of_models_at_one_place_stay_apart(tmp_path: Path) -> None:
    def drawn(names: list[str]) -> int:
        path = tmp_path / "models.png"
        plots.accuracy_against_time(models(names, [2.0] * len(names)), path)
        return dark(path)

    name = "gimefive-15-do"
    one_name = drawn([name]) - drawn([" "])
    assert one_name > 200
    assert drawn([name] * 6) - drawn([" "] * 6) > 0.95 * 6 * one_name


def test_confusion_shows_where_the_mistakes_are(tmp_path: Path) -> None:
    def middle(share_right: float) -> np.ndarray:
        path = tmp_path / "c.png"
        plots.confusion(metrics(n_known=2, share_right=share_right), path)
        with Image.open(path) as picture:
            return np.asarray(picture.convert("L"))

    right, wrong = middle(1.0), middle(0.0)
    darkened = right.astype(int) - wrong
    assert (darkened > 100).mean() > 0.1  # the cells off the diagonal
    assert (darkened < -100).mean() > 0.1
