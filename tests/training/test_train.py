"""Training: it learns, stops early, is repeatable, continues after a stop, and saves weights."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fer_batch.datasets import SPLITS, DatasetError, Split
from fer_batch.emotions import LABEL_SETS
from fer_batch.errors import ConfigError, StoreError
from fer_batch.evaluation import plots
from fer_batch.evaluation.metrics import measure
from fer_batch.faces.crop import normalise
from fer_batch.models.card import read_card
from fer_batch.models.classifier import Classifier
from fer_batch.results import store
from fer_batch.settings import CONFIGS
from fer_batch.training.log import Epoch
from fer_batch.training.recipe import TrainConfig, load_recipe
from fer_batch.training.train import TrainingError, fit, read_data
from tests.support.bars import bars_recipe, draw, make_bars

CPU = torch.device("cpu")
RECIPES = sorted(path.stem for path in CONFIGS.glob("train/*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bars(tmp_path_factory.mktemp("bars"))


def train(
    recipe: TrainConfig, root: Path, out: Path, *, splits: Sequence[Split] = SPLITS, **options: Any
) -> Path:
    return fit(recipe, read_data(recipe, root, splits=splits), out, device=CPU, **options)


def test_training_learns_and_exports(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fer_batch.training.train.curves", plots.curves)
    epochs: list[Epoch] = []
    steps: list[tuple[int, float]] = []
    path = train(
        bars_recipe(),
        data,
        tmp_path,
        on_epoch=epochs.append,
        on_step=lambda epoch, share: steps.append((epoch, share)),
    )
    card = read_card(path)
    assert card.classes == LABEL_SETS["seven"]
    assert card.metrics["test_accuracy"] >= 0.9
    assert (card.metrics["valid_n"], card.metrics["test_n"]) == (28, 28)
    assert TrainConfig.model_validate(card.recipe) == bars_recipe()
    assert steps == [(epoch, step / 6) for epoch in range(1, 7) for step in range(1, 7)]

    table = pd.read_csv(tmp_path / "metrics.csv")
    assert table["epoch"].tolist() == [1, 2, 3, 4, 5, 6]
    assert table["valid_accuracy"].tolist() == [epoch.valid_accuracy for epoch in epochs]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    logged = [event.value for event in board.Scalars("valid/accuracy")]
    assert logged == pytest.approx(table["valid_accuracy"].tolist())
    assert (tmp_path / "curves.png").stat().st_size > 1000

    rng = np.random.default_rng(5)
    crops = normalise(np.stack([draw(label, rng) for label in range(7)]), card)
    probs = Classifier(path, CPU, batch_size=4, flip=False)(crops)
    assert np.nanargmax(probs, axis=1).tolist() == list(range(7))


def test_seed_repeats_a_run(data: Path, tmp_path: Path) -> None:
    first, second, other = (
        train(bars_recipe(epochs=1, seed=seed), data, tmp_path / name).read_bytes()
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == second != other


@pytest.mark.parametrize(
    "changes",
    [{}, {"ema_decay": 0.5, "mixup": 0.2}, {"optimizer": "adam", "schedule": "constant"}],
    ids=["sgd", "average-mixup", "adam"],
)
def test_a_stopped_training_goes_on_with_the_same_result(
    data: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    recipe = bars_recipe(epochs=4, learning_rate=0.01, **changes)

    def stop(epoch: Epoch) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, data, tmp_path / "stopped", on_epoch=stop)
    epochs: list[Epoch] = []
    resumed = train(recipe, data, tmp_path / "stopped", on_epoch=epochs.append)
    assert [epoch.epoch for epoch in epochs] == [3, 4]
    straight = train(recipe, data, tmp_path / "straight")
    assert resumed.read_bytes() == straight.read_bytes()
    stopped, whole = (
        pd.read_csv(tmp_path / name / "metrics.csv").drop(columns="seconds")
        for name in ("stopped", "straight")
    )
    pd.testing.assert_frame_equal(stopped, whole)


def test_a_finished_training_is_only_exported_again(data: Path, tmp_path: Path) -> None:
    first = train(bars_recipe(epochs=1), data, tmp_path).read_bytes()
    epochs: list[Epoch] = []
    again = train(bars_recipe(epochs=1), data, tmp_path, on_epoch=epochs.append)
    assert again.read_bytes() == first
    assert epochs == []


def test_a_training_may_begin_anew(data: Path, tmp_path: Path) -> None:
    train(bars_recipe(epochs=1), data, tmp_path)
    epochs: list[Epoch] = []
    train(bars_recipe(epochs=2), data, tmp_path, force=True, on_epoch=epochs.append)
    assert [epoch.epoch for epoch in epochs] == [1, 2]


def test_two_trainings_cannot_share_a_folder(data: Path, tmp_path: Path) -> None:
    with store.lock(tmp_path), pytest.raises(StoreError, match="another run is writing to"):
        train(bars_recipe(epochs=1), data, tmp_path)


def test_scores_are_those_of_the_exported_weights(data: Path, tmp_path: Path) -> None:
    path = train(bars_recipe(epochs=2), data, tmp_path)
    card = read_card(path)
    valid = read_data(bars_recipe(), data).pictures["valid"]
    probs = Classifier(path, CPU, batch_size=28, flip=False)(normalise(valid.pixels, card))
    found = measure(probs, valid.targets)
    assert card.metrics["valid_accuracy"] == round(found.accuracy, 4)
    assert card.metrics["valid_ece"] == pytest.approx(found.ece, abs=2e-4)


@pytest.mark.parametrize("drop, n_train", [(True, 83), (False, 84)])
def test_recipe_decides_about_duplicates(tmp_path: Path, drop: bool, n_train: int) -> None:
    root = make_bars(tmp_path / "data")
    train_picture, test_picture = (
        next(iter(sorted(root.glob(f"{place}/happy/{name}_*"))))
        for place, name in (("train", "Training"), ("test", "PrivateTest"))
    )
    train_picture.write_bytes(test_picture.read_bytes())
    recipe = bars_recipe(epochs=1, drop_duplicates=drop)
    assert read_card(train(recipe, root, tmp_path / "out")).n_train == n_train


def test_a_folder_of_another_training_is_refused(data: Path, tmp_path: Path) -> None:
    train(bars_recipe(epochs=1), data, tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint\.pt belongs to a training with another"):
        train(bars_recipe(epochs=2), data, tmp_path)


def test_patience_ends_training(data: Path, tmp_path: Path) -> None:
    epochs: list[Epoch] = []
    stuck = bars_recipe(learning_rate=1e-9, weight_decay=0, patience=2, epochs=30)
    train(stuck, data, tmp_path, on_epoch=epochs.append)
    best = int(np.argmax([epoch.valid_accuracy for epoch in epochs]))
    assert len(epochs) == best + 1 + 2 < 30


def test_divergence_is_an_error_that_says_what_to_do(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="epoch 1: the loss is nan: lower learning_rate"):
        train(bars_recipe(learning_rate=1e12, schedule="constant"), data, tmp_path)
    with pytest.raises(TrainingError, match="epoch 1: the loss is nan"):
        train(bars_recipe(learning_rate=1e12, schedule="constant"), data, tmp_path)


def test_convolutions_stay_fast_and_repeatable(data: Path, tmp_path: Path) -> None:
    cudnn, flags = torch.backends.cudnn, []
    train(
        bars_recipe(epochs=1),
        data,
        tmp_path,
        on_step=lambda epoch, share: flags.append((cudnn.enabled, cudnn.deterministic)),
    )
    assert set(flags) == {(True, True)}


def test_other_validation_pictures_are_another_training(tmp_path: Path) -> None:
    root, out = make_bars(tmp_path / "data"), tmp_path / "out"
    train(bars_recipe(epochs=1), root, out)
    (root / "test" / "happy" / "PublicTest_0.png").unlink()
    with pytest.raises(ConfigError, match="other pictures"):
        train(bars_recipe(epochs=1), root, out)


def test_cut_checkpoint_is_named(data: Path, tmp_path: Path) -> None:
    train(bars_recipe(epochs=1), data, tmp_path)
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read.*delete it"):
        train(bars_recipe(epochs=1), data, tmp_path)


def test_one_class_is_refused_before_training(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        folder = tmp_path / "data" / split / "happy"
        folder.mkdir(parents=True)
        rng = np.random.default_rng(len(split))
        for number in range(3):
            Image.fromarray(draw(number, rng)).save(folder / f"{number}.png")
    with pytest.raises(DatasetError, match="two emotions or more"):
        train(bars_recipe(dataset="folders"), tmp_path / "data", tmp_path / "out")


def test_absent_emotion_is_refused_before_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"contempt, found happiness.*neutral$"):
        train(bars_recipe(labels="eight"), data, tmp_path)


def test_too_small_pictures_are_refused_before_training(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="gimefive-17 does not take 16 pixels"):
        train(bars_recipe(network="gimefive-17"), data, tmp_path)


@pytest.mark.parametrize("steps", range(1, 6))
def test_few_steps_are_enough(data: Path, tmp_path: Path, steps: int) -> None:
    recipe = bars_recipe(epochs=steps, batch_size=84)
    assert train(recipe, data, tmp_path, splits=SPLITS[:2]).is_file()


def test_label_set_decides_the_classes(data: Path, tmp_path: Path) -> None:
    card = read_card(train(bars_recipe(labels="six", epochs=1), data, tmp_path))
    assert card.classes == LABEL_SETS["six"]
    assert card.n_train == 6 * 12
    assert card.metrics["test_n"] == 6 * 4


def test_test_split_may_stay_unread(tmp_path: Path) -> None:
    root = make_bars(tmp_path / "data")
    for picture in root.glob("test/*/PrivateTest_*"):
        picture.unlink()
    path = train(bars_recipe(epochs=1), root, tmp_path, splits=SPLITS[:2])
    assert {name.split("_")[0] for name in read_card(path).metrics} == {"valid"}


@pytest.mark.parametrize(
    "network, size", [("tiny", 16), ("gimefive-13", 20)], ids=["grey", "colour"]
)
def test_grey_is_standardised_by_its_own_mean_and_colour_by_imagenets(
    data: Path, tmp_path: Path, network: str, size: int
) -> None:
    recipe = bars_recipe(epochs=1, network=network, input_size_px=size, batch_size=84)
    card = read_card(train(recipe, data, tmp_path))
    assert card.input_size_px == size
    if network == "tiny":
        assert card.mean[0] == pytest.approx((74.5 + 100 * 3 / 16) / 255, abs=0.01)
    else:
        assert card.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("changes", [{"dataset": "imagenet"}, {"network": "vgg99"}])
def test_unknown_names_are_refused(data: Path, tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"imagenet|vgg99"):
        train(bars_recipe(**changes), data, tmp_path)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_have_names(name: str) -> None:
    assert load_recipe(Path(name)).name == name


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match="no file ferplus: give a YAML file or one of fer2013-"):
        load_recipe(Path("ferplus"))


def test_overrides_are_stronger_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\ndataset: ferplus\nepochs: 3\n")
    recipe = load_recipe(tmp_path / "a.yaml", ["epochs=5", "augment.flip=0"])
    assert (recipe.epochs, recipe.augment and recipe.augment.flip) == (5, 0)
    assert load_recipe(tmp_path / "a.yaml", ["augment=null"]).augment is None


def test_misspelt_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("name: a\ndataset: ferplus\nepoch: 3\n")
    with pytest.raises(ConfigError, match="epoch"):
        load_recipe(tmp_path / "bad.yaml")
