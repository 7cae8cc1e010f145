"""Sweeps: one training for each of many settings, compared by validation accuracy.

The folder of a sweep is a queue: an Optuna study in SQLite that holds every trial from the start.
Each process that runs the same sweep takes the next trial from it, so a second process is a second
worker, and a sweep that is run again after a crash continues. A worker holds a lock on its trial,
which the system releases however the worker dies: a trial that is running but not locked was
abandoned, and is continued from its last checkpoint before any new one begins. Why Optuna's own
heartbeats and grid sampler are not used: decision 7.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.exceptions import StorageInternalError
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.trial import TrialState
from pydantic import Field, model_validator
from sqlalchemy.exc import SQLAlchemyError

from fer_batch.datasets import Split
from fer_batch.datasets.pictures import fingerprint
from fer_batch.errors import ConfigError, StoreError
from fer_batch.results import store
from fer_batch.settings import Settings, find_shipped, merge, read_yaml, validate
from fer_batch.storage import urls
from fer_batch.storage.locks import locked
from fer_batch.training.log import Epoch
from fer_batch.training.recipe import TrainConfig, load_recipe
from fer_batch.training.train import CHECKPOINT, fit, read_data

logger = logging.getLogger(__name__)

SWEEP_SPLITS: tuple[Split, ...] = ("train", "valid")
"""Splits that a sweep reads: nothing is chosen on the test split."""
BUSY_S = 60
"""How long a worker waits while another one writes to the study."""

Value = bool | int | float | str | None
Point = dict[str, Value]
"""One setting: a value for each key of the space."""
RESULT = ("valid_accuracy", "best_epoch", "epochs_run", "seconds")
"""Columns of the table that are filled when a trial has ended."""


class SweepConfig(Settings):
    """Which settings to try, and how."""

    recipe: TrainConfig
    """Recipe of all trials; in a file also the path of a recipe, relative to that file, or the name
    of a recipe that comes with fer_batch."""
    space: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(min_length=1)
    """Values to try for keys of the recipe; a key of a section is written as section.key."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """grid: each point in order; random: each point once, in random order; tpe: points that are
    promising by the results so far (Bergstra et al., 2011)."""
    n_trials: int | None = Field(None, ge=1)
    """Number of points that all workers try together; empty: all points of the grid. May be raised
    when the sweep is run again."""
    pruner: Literal["none", "median", "hyperband"] = "none"
    """Which trials end early. none; median: those that are below the median of the earlier trials
    at the same epoch; hyperband: the worse two thirds at each of several epochs (Li et al., 2018).
    """
    seed: int = 0
    """Seed of the order and the sampler; the trainings use the seed of the recipe."""

    @model_validator(mode="after")
    def _check(self) -> SweepConfig:
        for key, values in self.space.items():
            if key.partition(".")[0] not in TrainConfig.model_fields:
                allowed = ", ".join(TrainConfig.model_fields)
                raise ValueError(f"space: {key} is not a key of a recipe; the keys are: {allowed}")
            if len(set(values)) < len(values):
                raise ValueError(f"space: {key} has a value twice: {', '.join(map(str, values))}")
            for value in values:
                self.recipe_at({key: value})
        return self

    def recipe_at(self, point: Point) -> TrainConfig:
        """The recipe with the values of one point.

        Raises:
            ConfigError: A key or value does not fit a recipe.
        """
        overrides = [f"{key}={json.dumps(value)}" for key, value in point.items()]
        return validate(TrainConfig, merge(self.recipe.model_dump(), overrides=overrides))


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep.

    Args:
        path: YAML file, or the bare name of a sweep that comes with fer_batch.

    Raises:
        ConfigError: The file or its recipe cannot be read, or a key or value is wrong.
    """
    path = find_shipped(path, "sweep")
    values = read_yaml(path)
    if "dataset" in values and "recipe" not in values:
        raise ConfigError(
            f"{path} is a recipe for one training, not a sweep: give it to `fer-batch train`, or "
            f"write a sweep file with `recipe: {path.name}` and `space:`, the values to try"
        )
    if isinstance(recipe := values.get("recipe"), str):
        beside = path.parent / recipe
        values["recipe"] = load_recipe(beside if beside.exists() else Path(recipe)).model_dump()
    return validate(SweepConfig, values)


def sweep(
    config: SweepConfig,
    root: Path,
    out: Path,
    *,
    device: torch.device,
    on_trial: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Run trials until none is left that no other worker has taken.

    Args:
        config: Which trials.
        root: Folder of the data set, or the file that it was packed into, which is faster, as each
            trial reads the pictures.
        out: Folder for ``sweep.csv`` and ``sweep.md`` (the table), ``sweep.db`` (the study) and
            ``trials/NUMBER/`` (the files of each training).
        device: Where to train.
        on_trial: Called with the table after each trial of this worker.

    Returns:
        One row per trial, the best first: trial (its number), the keys of the space, state
        (complete; pruned, also when its loss became infinite; fail, when the device had too little
        memory; running; waiting), valid_accuracy (of the best epoch), best_epoch, epochs_run,
        seconds.

    Raises:
        ConfigError: `out` holds a sweep of other settings or data, or a trial cannot be trained.
        DatasetError: The data set is not as it should be.
        StoreError: `out` cannot be written.
    """
    # Optuna would log to stderr by itself; this way its log goes where that of fer_batch goes.
    optuna.logging.disable_default_handler()
    optuna.logging.enable_propagation()
    logging.getLogger("optuna").setLevel(logging.NOTSET)
    try:
        with store.lock(out, shared=True):
            study = _open(config, root, out)
            table = _write_table(study, config, out)
            while _run_next(study, config, root, out, device=device):
                table = _write_table(study, config, out)
                on_trial(table)
    except (SQLAlchemyError, StorageInternalError) as error:
        raise StoreError(f"{out / 'sweep.db'} cannot be used: {error}") from error
    return table


def _open(config: SweepConfig, root: Path, out: Path) -> optuna.Study:
    """The study of the folder, with a place in its queue for each trial that is to be done."""
    identity = {
        "settings": config.model_dump_json(exclude={"n_trials"}),
        "data": fingerprint(read_data(config.recipe, root, splits=SWEEP_SPLITS)),
    }
    with _queue_lock(out):
        study = optuna.create_study(
            storage=optuna.storages.RDBStorage(
                f"sqlite:///{out.resolve() / 'sweep.db'}",
                engine_kwargs={"connect_args": {"timeout": BUSY_S}},
            ),
            study_name="sweep",
            direction="maximize",
            pruner=_pruner(config),
            load_if_exists=True,
        )
        for key, value in identity.items():
            if study.user_attrs.get(key, value) != value:
                raise ConfigError(
                    f"{out} holds a sweep with other {key}: choose another folder with -o"
                )
            study.set_user_attr(key, value)
        known = [
            trial.user_attrs["point"]
            for trial in study.get_trials(deepcopy=False)
            if trial.state != TrialState.FAIL
        ]
        for point in _queue(config):
            if point in known:
                known.remove(point)
            else:
                study.enqueue_trial(point, user_attrs={"point": point})
    return study


def _queue(config: SweepConfig) -> list[Point]:
    """The point of each trial, or nothing where TPE chooses it when the trial begins."""
    n_points = math.prod(map(len, config.space.values()))
    if config.sampler == "tpe":
        return [{} for _ in range(config.n_trials or n_points)]
    points = [
        dict(zip(config.space, values, strict=True))
        for values in itertools.product(*config.space.values())
    ]
    order = np.arange(n_points)
    if config.sampler == "random":
        order = np.random.default_rng(config.seed).permutation(n_points)
    return [points[row] for row in order[: config.n_trials]]


def _pruner(config: SweepConfig) -> BasePruner:
    if config.pruner == "median":
        return MedianPruner()
    if config.pruner == "hyperband":
        epochs = config.space.get("epochs", [config.recipe.epochs])
        longest = max(config.recipe_at({"epochs": value}).epochs for value in epochs)
        return HyperbandPruner(max_resource=longest)
    return NopPruner()


def _run_next(
    study: optuna.Study, config: SweepConfig, root: Path, out: Path, *, device: torch.device
) -> bool:
    """Run one trial; false if none is left."""
    with contextlib.ExitStack() as locks:
        with _queue_lock(out):
            trial = _take(study, out, locks)
            if trial is None:
                return False
            # A seed for each trial: a sweep that was stopped continues as if it had not been.
            study.sampler = TPESampler(seed=config.seed + trial.number)
            for key, values in config.space.items():
                trial.suggest_categorical(key, values)
        _train(trial, config, root, _folder(out, trial.number), device=device)
    return True


def _take(study: optuna.Study, out: Path, locks: contextlib.ExitStack) -> optuna.Trial | None:
    """An abandoned trial, or else the next that waits; its lock is held."""
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if _lock(_folder(out, trial.number), locks):
            return optuna.Trial(study, trial._trial_id)  # not a copy: its checkpoint is used
    if not study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        return None
    next_trial = study.ask()
    _lock(_folder(out, next_trial.number), locks)
    return next_trial


def _train(
    trial: optuna.Trial, config: SweepConfig, root: Path, out: Path, *, device: torch.device
) -> None:
    """Train with the point of a trial and report the result to the study."""
    study = trial.study
    for done in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        if done.params == trial.params:  # TPE repeats good points, with the same result
            trial.set_user_attr("result", done.user_attrs["result"] | {"seconds": 0.0})
            study.tell(trial, done.value)
            return

    def on_epoch(epoch: Epoch) -> None:
        trial.report(epoch.valid_accuracy, epoch.epoch)
        diverged = not math.isfinite(epoch.train_loss + epoch.valid_loss)
        if diverged or trial.should_prune():
            raise optuna.TrialPruned

    state = TrialState.COMPLETE
    try:
        recipe = config.recipe_at(trial.params)
        data = read_data(recipe, root, splits=SWEEP_SPLITS)
        fit(recipe, data, out, device=device, on_epoch=on_epoch)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except torch.OutOfMemoryError as error:
        logger.error("trial %d, %s: %s", trial.number, trial.params, error)
        study.tell(trial, state=TrialState.FAIL)
        return
    epochs = pd.read_csv(out / "metrics.csv")
    accuracy = epochs["valid_accuracy"]
    result = (accuracy.max(), accuracy.argmax() + 1, len(epochs), epochs["seconds"].sum())
    trial.set_user_attr("result", dict(zip(RESULT, map(float, result), strict=True)))
    study.tell(trial, float(accuracy.max()) if state == TrialState.COMPLETE else None, state)
    # Much larger than the weights, and not needed any more.
    (out / CHECKPOINT).unlink(missing_ok=True)


def _write_table(study: optuna.Study, config: SweepConfig, out: Path) -> pd.DataFrame:
    with _queue_lock(out):
        rows = [
            {
                "trial": trial.number,
                "state": trial.state.name.lower(),
                **trial.user_attrs["point"],
                **trial.params,
                **trial.user_attrs.get("result", {}),
            }
            for trial in study.get_trials(deepcopy=False)
        ]
        table = pd.DataFrame(rows, columns=["trial", *config.space, "state", *RESULT])
        table = table.astype({"best_epoch": "Int64", "epochs_run": "Int64"})
        table = table.sort_values("valid_accuracy", ascending=False, kind="stable")
        table = table.iloc[(table["state"] != "complete").argsort(kind="stable")]
        table = table.reset_index(drop=True)
        rounded = table.round({"valid_accuracy": 4, "seconds": 1})
        markdown = rounded.to_markdown(index=False, missingval="")
        texts = {"sweep.csv": table.to_csv(index=False), "sweep.md": f"{markdown}\n"}
        for name, text in texts.items():
            urls.write(out / name, text.encode())
    return table


def _folder(out: Path, number: int) -> Path:
    return out / "trials" / str(number)


def _queue_lock(out: Path) -> contextlib.AbstractContextManager[object]:
    """Wait until no other worker uses the queue, and keep the others waiting."""
    return locked(out / ".queue.lock")


def _lock(folder: Path, locks: contextlib.ExitStack) -> bool:
    """Lock a trial until the stack is closed; false if another worker holds the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        locks.enter_context(locked(folder.with_suffix(".lock"), wait=False))
    except BlockingIOError:
        return False
    return True
