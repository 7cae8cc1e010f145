"""A tiny data set in FER2013's layout whose seven classes are easy to tell apart."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fer_batch.models.networks import NETWORKS, NetworkSpec
from fer_batch.models.networks.compact import CompactSpec, ResNetCompact
from fer_batch.training.recipe import TrainConfig

FOLDERS = ("happy", "surprise", "sad", "angry", "disgust", "fear", "neutral")
"""In EMOTIONS order."""
TINY = NetworkSpec(partial(ResNetCompact, CompactSpec((8, 16), (1, 1))), 1, 48, 0.2)
"""A network that is fast enough for tests."""
COUNTS = {"train": ("Training", 12), "valid": ("PublicTest", 4), "test": ("PrivateTest", 4)}


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """Draw a bright bar whose height shows the label, in noise that makes each picture different.

    Returns:
        (16, 16) uint8.
    """
    pixels = rng.integers(0, 150, (16, 16))
    pixels[2 * label : 2 * label + 3] += 100
    return pixels.astype(np.uint8)


def make_bars(root: Path) -> Path:
    """Twelve training pictures of each class, and four for validation and for testing."""
    rng = np.random.default_rng(0)
    for split, (prefix, n) in COUNTS.items():
        for label, name in enumerate(FOLDERS):
            folder = root / ("train" if split == "train" else "test") / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(n):
                Image.fromarray(draw(label, rng)).save(folder / f"{prefix}_{number}.png")
    return root


def make_training_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the network `tiny`, and leave out the plot of the epochs."""
    monkeypatch.setitem(NETWORKS, "tiny", TINY)
    monkeypatch.setattr("fer_batch.training.train.curves", lambda epochs, path: path.touch())


def bars_recipe(**changes: object) -> TrainConfig:
    """A recipe that learns the bars in a second."""
    values = {
        "name": "bars",
        "dataset": "fer2013",
        "network": "tiny",
        "input_size_px": 16,
        "epochs": 6,
        "batch_size": 14,
        "learning_rate": 0.05,
        "augment": {"rotate_deg": 0, "scale": 0, "shift": 0, "erase": 0},
    }
    return TrainConfig.model_validate(values | changes)
