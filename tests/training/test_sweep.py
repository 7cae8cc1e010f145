"""Sweeps: every point is tried once, also when workers stop, die and start again."""

import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch

from fer_batch.errors import ConfigError, StoreError
from fer_batch.settings import CONFIGS
from fer_batch.training import train
from fer_batch.training.recipe import load_recipe
from fer_batch.training.sweep import SweepConfig, load_sweep, sweep
from tests.support.bars import bars_recipe, make_bars

CPU = torch.device("cpu")
SWEEPS = sorted(path.stem for path in CONFIGS.glob("sweep/*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bars without their test split, which a sweep does not read."""
    root = make_bars(tmp_path_factory.mktemp("bars"))
    for path in root.glob("test/*/PrivateTest_*"):
        path.unlink()
    return root


def config(**changes: object) -> SweepConfig:
    values = {
        "recipe": bars_recipe(epochs=1, augment=None),
        "space": {"batch_size": [7, 10], "dropout": [0.0, 0.2]},
    }
    return SweepConfig.model_validate(values | changes)


def written(out: Path) -> dict[Path, int]:
    """When the weights of each trial were written."""
    return {path: path.stat().st_mtime_ns for path in out.glob("trials/*/*.safetensors")}


def test_grid_is_tried_and_tabled(data: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    table = sweep(
        config(space={"epochs": [1, 2], "dropout": [0.0, 0.2]}),
        data,
        tmp_path,
        device=CPU,
        on_trial=lambda table: seen.append((table["state"] == "complete").sum()),
    )
    assert seen == [1, 2, 3, 4]
    points = set(zip(table["epochs"], table["dropout"], strict=True))
    assert points == {(1, 0.0), (1, 0.2), (2, 0.0), (2, 0.2)}
    assert table["valid_accuracy"].is_monotonic_decreasing
    for row in table.to_dict("records"):
        epochs = pd.read_csv(tmp_path / "trials" / str(row["trial"]) / "metrics.csv")
        accuracy = epochs["valid_accuracy"]
        assert row["valid_accuracy"] == accuracy.max()
        assert row["best_epoch"] == epochs["epoch"][accuracy.argmax()]
        assert row["epochs_run"] == len(epochs) == row["epochs"]
        assert row["seconds"] == pytest.approx(epochs["seconds"].sum())
    again = pd.read_csv(tmp_path / "sweep.csv")
    pd.testing.assert_frame_equal(again, table, check_dtype=False)
    head, _, *rows = (tmp_path / "sweep.md").read_text().splitlines()
    assert [name.strip() for name in head.strip("|").split("|")] == list(table)
    assert len(rows) == 4


def test_stopped_sweep_goes_on(data: Path, tmp_path: Path) -> None:
    def stop(table: pd.DataFrame) -> None:
        raise KeyboardInterrupt

    two = config(space={"seed": [0, 1]})
    with pytest.raises(KeyboardInterrupt):
        sweep(two, data, tmp_path, device=CPU, on_trial=stop)
    halfway = written(tmp_path)
    assert len(halfway) == 1
    assert pd.read_csv(tmp_path / "sweep.csv")["state"].tolist() == ["complete", "waiting"]
    table = sweep(two, data, tmp_path, device=CPU)
    assert table["state"].tolist() == ["complete", "complete"]
    whole = written(tmp_path)
    assert halfway.items() <= whole.items()
    pd.testing.assert_frame_equal(sweep(two, data, tmp_path, device=CPU), table)
    assert written(tmp_path) == whole


def test_trial_that_fails_for_memory_is_tried_again_next_time(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fit(recipe: train.TrainConfig, *arguments: object, **options: object) -> None:
        if recipe.batch_size == 10:
            raise torch.OutOfMemoryError
        train.fit(recipe, *arguments, **options)

    small = config(space={"batch_size": [10, 7]})
    with monkeypatch.context() as context:
        context.setattr("fer_batch.training.sweep.fit", fit)
        table = sweep(small, data, tmp_path, device=CPU)
    assert table["state"].tolist() == ["complete", "fail"]
    table = sweep(small, data, tmp_path, device=CPU)
    assert sorted(table["state"]) == ["complete", "complete", "fail"]
    assert set(table["batch_size"][table["state"] == "complete"]) == {7, 10}


def test_diverged_trial_ends_at_once(data: Path, tmp_path: Path) -> None:
    recipe = bars_recipe(epochs=4, augment=None)
    table = sweep(
        config(recipe=recipe, space={"learning_rate": [1e30]}), data, tmp_path, device=CPU
    )
    assert table["state"].tolist() == ["pruned"]
    assert table["epochs_run"].tolist() == [1]


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_trial_behind_the_others_is_pruned(data: Path, tmp_path: Path, pruner: str) -> None:
    space = {"learning_rate": [0.05, 1e-9], "seed": [0, 1, 2, 3, 4]}
    slow = config(
        recipe=bars_recipe(epochs=9, augment=None), space=space, n_trials=7, pruner=pruner
    )
    table = sweep(slow, data, tmp_path, device=CPU)
    pruned = table["state"] == "pruned"
    assert pruned[table["learning_rate"] == 1e-9].all()
    assert (table["state"] == "complete").any()
    assert (table["epochs_run"][pruned] < 9).all()
    assert (table["epochs_run"][~pruned] == 9).all()


def test_more_trials_may_be_asked_for(data: Path, tmp_path: Path) -> None:
    space = {"dropout": [0.0, 0.2], "seed": [0, 1, 2]}
    first, more = (
        sweep(config(space=space, sampler="random", n_trials=n), data, tmp_path, device=CPU)
        for n in (1, 2)
    )
    keys = ["trial", "dropout", "seed"]
    assert len(more[keys].merge(first[keys])) == 1
    assert len(more) == len(more[["dropout", "seed"]].drop_duplicates()) == 2


def test_tpe_takes_values_of_the_space(data: Path, tmp_path: Path) -> None:
    space = {"batch_size": [7, 10], "dropout": [0.0, 0.2]}
    tpe = config(space=space, sampler="tpe", n_trials=2)
    table = sweep(tpe, data, tmp_path, device=CPU)
    assert table["state"].tolist() == ["complete"] * 2
    for key, values in space.items():
        assert table[key].isin(values).all()


def test_other_pictures_are_another_sweep(tmp_path: Path) -> None:
    root, out = make_bars(tmp_path / "data"), tmp_path / "out"
    sweep(config(space={"seed": [0]}), root, out, device=CPU)
    (root / "train" / "happy" / "Training_0.png").unlink()
    with pytest.raises(ConfigError, match="other data"):
        sweep(config(space={"seed": [0]}), root, out, device=CPU)


def test_folder_belongs_to_one_sweep(data: Path, tmp_path: Path) -> None:
    sweep(config(space={"seed": [0]}), data, tmp_path, device=CPU)
    with pytest.raises(ConfigError, match="other settings"):
        sweep(config(space={"seed": [0, 1]}), data, tmp_path, device=CPU)
    assert len(pd.read_csv(tmp_path / "sweep.csv")) == 1


def test_damaged_study_is_an_error(data: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep.db").write_text("not a database, but long enough to be taken for one" * 9)
    with pytest.raises(StoreError, match=r"sweep\.db"):
        sweep(config(), data, tmp_path, device=CPU)


@pytest.mark.parametrize(
    "text, message",
    [
        ("space: {learn: [1]}", "learn is not a key of a recipe.*learning_rate"),
        ("space: {augment.blur: [1]}", "augment.blur"),
        ("space: {epochs: []}", "space.epochs"),
        ("space: {}", "space"),
        ("space: {epochs: 3}", "space.epochs"),
        ("space: {dropout: [0.2, 1.5]}", "dropout.*1.5"),
        ("space: {seed: [0, 1, 0]}", "seed has a value twice: 0, 1, 0"),
        ("space: {seed: [0]}\nsampler: best", "sampler"),
        ("space: {seed: [0]}\nn_trial: 3", r"n_trial: unknown setting \(did you mean n_trials\?\)"),
        ("space: {seed: [0]}\nrecipe: absent.yaml", "absent.yaml"),
    ],
)
def test_wrong_sweep_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(f"recipe: {{name: bars, dataset: fer2013}}\n{text}")
    with pytest.raises(ConfigError, match=message):
        load_sweep(path)


def test_recipe_in_place_of_a_sweep_is_refused_and_the_other_way_round(tmp_path: Path) -> None:
    recipe, both = tmp_path / "recipe.yaml", tmp_path / "sweep.yaml"
    recipe.write_text("name: bars\ndataset: fer2013\n")
    both.write_text("recipe: recipe.yaml\nspace: {seed: [0]}")
    with pytest.raises(ConfigError, match=r"recipe for one training.*`recipe: recipe\.yaml`"):
        load_sweep(recipe)
    with pytest.raises(ConfigError, match=r"sweep\.yaml is a sweep, .*`fer-batch sweep`"):
        load_recipe(both)


def test_recipe_is_found_beside_the_sweep(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "bars.yaml").write_text("name: bars\ndataset: fer2013\nepochs: 3\n")
    path = tmp_path / "sweep.yaml"
    path.write_text("recipe: train/bars.yaml\nspace: {seed: [1, 2], augment.erase: [0, 0.5]}")
    loaded = load_sweep(path)
    recipe = loaded.recipe_at({"seed": 2, "augment.erase": 0.5})
    assert (recipe.epochs, recipe.seed) == (3, 2)
    assert recipe.augment is not None
    assert recipe.augment.erase == 0.5


def test_the_recipe_of_a_sweep_may_be_a_shipped_one(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("recipe: fer2013-six\nspace: {seed: [1, 2]}")
    assert load_sweep(tmp_path / "sweep.yaml").recipe.name == "fer2013-six"


@pytest.mark.parametrize("name", SWEEPS)
def test_shipped_sweeps_have_names(name: str) -> None:
    assert load_sweep(Path(name)).space


WORKER = """
import sys
from pathlib import Path
import torch
from fer_batch.training.recipe import load_recipe
from fer_batch.training.sweep import load_sweep, sweep
torch.set_num_threads(1)
path, data, out = map(Path, sys.argv[1:])
sweep(load_sweep(path), data, out, device=torch.device("cpu"), on_trial=lambda _: print("trial"))
"""


def start_worker(config: SweepConfig, data: Path, out: Path) -> subprocess.Popen[str]:
    path = out.with_suffix(".yaml")
    path.write_text(config.model_dump_json())  # JSON is YAML
    command = [sys.executable, "-c", WORKER, str(path), str(data), str(out)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_for_epochs(path: Path, n_epochs: int) -> pd.DataFrame:
    for _ in range(1200):
        if path.exists() and len(path.read_text().splitlines()) > n_epochs:
            return pd.read_csv(path)
        time.sleep(0.05)
    raise AssertionError(f"{path} has no {n_epochs} epochs")


@pytest.mark.slow
def test_killed_worker_loses_nothing(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = bars_recipe(network="resnet-compact", epochs=8, augment=None)
    settings = config(recipe=recipe, space={"seed": [0, 1]})
    with start_worker(settings, data, out) as worker:
        try:
            before = wait_for_epochs(out / "trials" / "0" / "metrics.csv", 2)
        finally:
            worker.kill()
    table = sweep(settings, data, out, device=CPU)
    assert table["state"].tolist() == ["complete"] * 2
    assert sorted(table["trial"]) == [0, 1]
    assert table["epochs_run"].tolist() == [8, 8]
    after = pd.read_csv(out / "trials" / "0" / "metrics.csv")
    redone = after.head(len(before))  # the last epoch, if the kill came before its checkpoint
    pd.testing.assert_frame_equal(redone.drop(columns="seconds"), before.drop(columns="seconds"))


@pytest.mark.slow
def test_workers_share_the_trials(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = bars_recipe(network="resnet-compact", epochs=1, augment=None)
    settings = config(recipe=recipe, space={"seed": [0, 1, 2, 3, 4, 5]})
    workers = [start_worker(settings, data, out) for _ in range(2)]
    done = [worker.communicate()[0].count("trial") for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert sum(done) == 6
    assert min(done) >= 1
    table = pd.read_csv(out / "sweep.csv")
    assert table["state"].tolist() == ["complete"] * 6
    assert sorted(table["seed"]) == [0, 1, 2, 3, 4, 5]
