"""The commands about models: what they print and write."""

import re
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest

from fer_batch.models.card import read_card
from fer_batch.models.networks import NETWORKS
from tests.support.bars import make_bars, make_training_quick
from tests.support.command import run

RECIPE = """
name: bars
dataset: fer2013
network: tiny
input_size_px: 16
epochs: 2
batch_size: 14
learning_rate: 0.05
augment: null
"""


@pytest.fixture(autouse=True)
def _quick_training(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    make_training_quick(monkeypatch)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bars(tmp_path_factory.mktemp("bars"))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "bars.yaml"
    path.write_text(RECIPE)
    return path


def test_models_prints_every_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    printed = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert [row[0] for row in printed] == list(NETWORKS)
    assert ["gimefive-15-do", "10,478,086", "313,268,224", "21.0", "3x64x64"] in printed


def test_train_then_evaluate(
    data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "--config", recipe, "--data", data, "-o", tmp_path / "out"]
    assert run(*train, "--set", "name=other") == 0
    weights = tmp_path / "out" / "other.safetensors"
    *epochs, path = capsys.readouterr().out.splitlines()
    assert path == str(weights)
    assert [line[:22] for line in epochs] == ["epoch 1/2: train loss ", "epoch 2/2: train loss "]

    evaluate = ["evaluate", weights, "--dataset", "fer2013", "--data", data]
    assert run(*evaluate, "-o", tmp_path / "scores", "--decimals", "2") == 0
    titles, row, more = capsys.readouterr().out.splitlines()
    assert titles.split()[:3] == ["model", "pictures", "accuracy"]
    assert row.split()[:2] == ["other", "28"]
    assert f"{tmp_path}/scores/models.md" in more
    scores = pd.read_csv(tmp_path / "scores" / "other" / "scores.csv", dtype=str)
    assert len(scores) == 28
    assert set(scores["happiness"].str.len()) == {4}
    assert scores["contempt"].isna().all()
    models = pd.read_csv(tmp_path / "scores" / "models.csv")
    assert models["model"].tolist() == ["other"]
    assert models["accuracy"].item() == pytest.approx(
        read_card(weights).metrics["test_accuracy"], abs=1e-3
    )


def test_train_continues_and_starts_again_only_with_force(
    data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = ["train", "--config", recipe, "--data", data, "-o", tmp_path / "out"]
    assert run(*train) == 0
    capsys.readouterr()
    assert run(*train) == 0
    assert "epoch" not in capsys.readouterr().out
    assert run(*train, "--set", "epochs=1") == 2
    assert "another recipe" in capsys.readouterr().err
    assert run(*train, "--set", "epochs=1", "--force") == 0
    assert "epoch 1/1" in capsys.readouterr().out


def test_missing_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "fer_batch.training.sweep", raising=False)
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert run("sweep", "--config", "any", "--data", tmp_path, "-o", tmp_path / "out") == 2
    assert re.search(r"optuna.*pip install .*\[train\]'", capsys.readouterr().err)


def test_data_counts_packs_and_finds_duplicates(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    shutil.copy(
        root / "train" / "sad" / "Training_0.png", root / "test" / "fear" / "PrivateTest_9.png"
    )
    packed, pairs = tmp_path / "bars.safetensors", tmp_path / "pairs.csv"
    command = ["data", "--dataset", "fer2013", "--data"]
    assert run(*command, root, "--size", "16", "--pack", packed) == 0
    printed = capsys.readouterr().out
    assert [line.split() for line in printed.splitlines()][8] == ["total", "83", "28", "29"]
    assert "left out of train: 1 also in a held-out split" in printed
    assert run(*command, packed, "--size", "16") == 0
    assert capsys.readouterr().out == printed

    assert run(*command, root, "--size", "16", "--duplicates", pairs) == 0
    assert "equal pictures in train and test: 1 pairs" in capsys.readouterr().out
    found = pd.read_csv(pairs)
    assert found[["path", "other_path"]].to_numpy().tolist() == [
        ["train/sad/Training_0.png", "test/fear/PrivateTest_9.png"]
    ]


def test_incomplete_data_set_is_counted(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "data"
    shutil.copytree(data, root)
    for path in root.glob("test/fear/PrivateTest_*"):
        path.unlink()
    assert run("data", "--dataset", "fer2013", "--data", root, "--size", "16") == 0
    printed = capsys.readouterr()
    assert "there are none of fear" in printed.err
    assert "fear" in printed.out
    assert ["total", "84", "28", "24"] in [line.split() for line in printed.out.splitlines()]


def test_sweep_trains_every_point(
    data: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "sweep.yaml"
    config.write_text("recipe: bars.yaml\nspace: {learning_rate: [0.1, 0.01]}\n")
    command = ["sweep", "--config", config, "--data", data, "-o", tmp_path / "out"]
    assert run(*command) == 0
    table = pd.read_csv(tmp_path / "out" / "sweep.csv")
    assert set(table["state"]) == {"complete"}
    assert sorted(zip(table["learning_rate"], table["epochs_run"], strict=True)) == [
        (0.01, 2),
        (0.1, 2),
    ]
    assert capsys.readouterr().out == (tmp_path / "out" / "sweep.md").read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config", "missing.yaml", "--data", ".", "-o", "out"],
        ["evaluate", "missing", "--dataset", "fer2013", "--data", ".", "-o", "out"],
        ["evaluate", "default", "--dataset", "imagenet", "--data", ".", "-o", "out"],
        ["data", "--dataset", "fer2013", "--data", "missing"],
        ["sweep", "--config", "missing.yaml", "--data", ".", "-o", "out"],
        ["disfa", "missing", "--data", ".", "-o", "out.csv"],
        ["data", "--dataset", "folders", "--data", ".", "--pack", "nowhere.txt"],
    ],
    ids=lambda arguments: " ".join(arguments[:3]),
)
def test_nonsense_is_refused_in_one_line(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
