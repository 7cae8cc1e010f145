"""Training: learns, stops early, repeats with a seed, exports what inference can load."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_batch.augment import Augment, augment
from fer_batch.card import read_card
from fer_batch.classify import Classifier
from fer_batch.schema import LABEL_SETS, ConfigError
from fer_batch.train import Epoch, TrainConfig, fit, load_config

CPU = torch.device("cpu")
FOLDERS = ["happy", "surprise", "sad", "angry", "disgust", "fear", "neutral"]  # in EMOTIONS order
CONFIG = Path(__file__).parents[1] / "configs" / "train"


def draw(label: int, rng: np.random.Generator) -> np.ndarray:
    """A bright bar whose height in the picture tells the label, in noise."""
    pixels = rng.integers(0, 60, (16, 16))
    pixels[2 * label : 2 * label + 3] += 180
    return pixels.astype(np.uint8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FER2013's layout with seven classes that can be told apart."""
    root = tmp_path_factory.mktemp("fer2013")
    rng = np.random.default_rng(0)
    for split, prefix, n in (
        ("train", "Training", 12),
        ("test", "PublicTest", 4),
        ("test", "PrivateTest", 4),
    ):
        for label, folder in enumerate(FOLDERS):
            (root / split / folder).mkdir(parents=True, exist_ok=True)
            for number in range(n):
                path = root / split / folder / f"{prefix}_{number}.png"
                Image.fromarray(draw(label, rng)).save(path)
    return root


def config(**changes: object) -> TrainConfig:
    values = {
        "name": "bars",
        "dataset": "fer2013",
        "input_size_px": 16,
        "epochs": 6,
        "batch_size": 14,
        "learning_rate": 0.05,
        "augment": {"rotate_deg": 0, "scale": 0, "shift": 0, "erase": 0},
    }
    return TrainConfig.model_validate(values | changes)


def test_training_learns_and_exports(data: Path, tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    path = fit(config(), data, tmp_path, device=CPU, on_epoch=epochs.append)
    card = read_card(path)
    assert card.classes == LABEL_SETS["seven"]
    assert card.metrics["test_accuracy"] >= 0.9
    assert card.metrics["test_n"] == 28
    with (tmp_path / "metrics.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert [float(row["valid_accuracy"]) for row in rows] == [e.valid_accuracy for e in epochs]

    rng = np.random.default_rng(5)
    pictures = np.stack([draw(label, rng) for label in range(7)])
    crops = (torch.from_numpy(pictures)[:, None] / 255 - card.mean) / card.std
    probs = Classifier(path, CPU, batch_size=4, flip=False)(crops)
    assert np.nanargmax(probs, axis=1).tolist() == list(range(7))


def test_seed_repeats_a_run(data: Path, tmp_path: Path) -> None:
    first, second, other = (
        fit(config(epochs=1, seed=seed), data, tmp_path / name, device=CPU).read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second != other


def test_patience_ends_training(data: Path, tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    stuck = config(learning_rate=1e-9, weight_decay=0, patience=2, epochs=30)
    fit(stuck, data, tmp_path, device=CPU, on_epoch=epochs.append)
    assert len(epochs) < 30


@pytest.mark.parametrize("changes", [{"dataset": "imagenet"}, {"network": "vgg99"}])
def test_unknown_names_are_refused(data: Path, tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"imagenet|vgg99"):
        fit(config(**changes), data, tmp_path, device=CPU)


@pytest.mark.parametrize("path", sorted(CONFIG.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configurations_are_valid(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_misspelt_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: a\ndataset: ferplus\nepoch: 3\n")
    with pytest.raises(ConfigError, match="epoch"):
        load_config(tmp_path / "bad.yaml")


def off(**changes: float) -> Augment:
    names = Augment.model_fields
    return Augment.model_validate(dict.fromkeys(names, 0) | changes)


def pictures(n: int = 64) -> torch.Tensor:
    return torch.rand(n, 1, 24, 24, generator=torch.Generator().manual_seed(0))


def test_augmentation_that_is_off_changes_nothing() -> None:
    result = augment(pictures(), off(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(result, pictures(), atol=1e-5, rtol=0)


def test_flip_mirrors_its_share() -> None:
    before = pictures(400)
    after = augment(before, off(flip=0.25), torch.Generator().manual_seed(0))
    mirrored = (after - before.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    same = (after - before).abs().amax((1, 2, 3)) < 1e-4
    assert (mirrored ^ same).all()
    assert mirrored.float().mean().item() == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize(
    "change",
    [{"rotate_deg": 30}, {"scale": 0.3}, {"shift": 0.2}, {"brightness": 0.5}, {"contrast": 0.5}],
)
def test_each_change_changes_within_bounds(change: dict[str, float]) -> None:
    before = pictures()
    after = augment(before, off(**change), torch.Generator().manual_seed(0))
    assert after.shape == before.shape
    assert 0 <= after.min() <= after.max() <= 1
    assert ((after - before).abs().mean((1, 2, 3)) > 1e-3).float().mean() > 0.9


def test_erasing_paints_rectangles_on_its_share() -> None:
    before = pictures(400)
    after = augment(before, off(erase=0.5), torch.Generator().manual_seed(0))
    changed = ((after - before).abs() > 1e-4).float().mean((1, 2, 3))
    assert (changed > 0).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert changed.max() < 0.3
