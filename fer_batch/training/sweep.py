"""Sweep: one training for each of many settings, compared by validation accuracy, never by test.

The folder of a sweep is a queue: an Optuna study in SQLite that holds every trial from the start.
Whoever runs the same sweep into it takes the next trial, so that a second process is a second
worker, and running it again after a crash goes on. A worker holds a lock on the trial it runs,
which the system gives back when the worker dies in whatever way: a trial that is running but not
locked was left behind, and is taken up from its last checkpoint before any new one. (Optuna's own
heartbeats would make it wait until they are missed, and its grid sampler may give two workers the
same point.)
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
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.exc import SQLAlchemyError

from fer_batch.config import layer, read_yaml, validate
from fer_batch.datasets import Split
from fer_batch.datasets.pictures import fingerprint
from fer_batch.errors import ConfigError, StoreError
from fer_batch.results import store
from fer_batch.storage.locks import locked
from fer_batch.training.log import Epoch
from fer_batch.training.recipe import TrainConfig, load_recipe
from fer_batch.training.train import CHECKPOINT, fit, read_data

logger = logging.getLogger(__name__)

LEARNED_FROM: tuple[Split, ...] = ("train", "valid")
BUSY_S = 60
"""How long a worker waits while another one writes to the study."""

Value = bool | int | float | str | None
Point = dict[str, Value]
"""One setting: a value for each key of the space."""
RESULT = ("valid_accuracy", "best_epoch", "epochs_run", "seconds")
"""Columns of the table that a trial has once it has ended."""


class SweepConfig(BaseModel):
    """Which settings to try, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    recipe: TrainConfig
    """What all trials share; in a file also the path of a recipe, seen from that file."""
    space: dict[str, Annotated[list[Value], Field(min_length=1)]] = Field(min_length=1)
    """The values to try for each key of the recipe; those of a section as section.key."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """grid: each point in order; random: each point once, in random order; tpe: what the results
    so far make promising (Bergstra et al., 2011)."""
    n_trials: int | None = Field(None, ge=1)
    """How many points to try, of all workers together; empty: as many as the grid has. May be
    raised when the sweep is run again."""
    pruner: Literal["none", "median", "hyperband"] = "none"
    """Which trials end early. median: those below the median of the trials before at the same
    epoch; hyperband: the worse two thirds at each of several rungs (Li et al., 2018)."""
    seed: int = 0
    """Of the order and of the sampler; that of the trainings is in the recipe."""

    @model_validator(mode="after")
    def _check(self) -> SweepConfig:
        for key, values in self.space.items():
            if key.partition(".")[0] not in TrainConfig.model_fields:
                allowed = ", ".join(TrainConfig.model_fields)
                raise ValueError(f"space: {key} is no key of a recipe; there are: {allowed}")
            if len(set(values)) < len(values):
                raise ValueError(f"space: {key} holds a value twice: {values}")
            for value in values:
                self.recipe_at({key: value})
        return self

    def recipe_at(self, point: Point) -> TrainConfig:
        """The recipe of the trial of one point.

        Raises:
            ConfigError: A key or value is none of a recipe.
        """
        overrides = [f"{key}={json.dumps(value)}" for key, value in point.items()]
        return validate(TrainConfig, layer(None, overrides, self.recipe.model_dump()))


def load_sweep(path: Path) -> SweepConfig:
    """Read a sweep.

    Raises:
        ConfigError: The file or its recipe cannot be read, or a key or value is wrong.
    """
    values = read_yaml(path)
    if isinstance(values.get("recipe"), str):
        values["recipe"] = load_recipe(path.parent / values["recipe"]).model_dump()
    return validate(SweepConfig, values)


def sweep(
    config: SweepConfig,
    root: Path,
    out: Path,
    *,
    device: torch.device,
    on_trial: Callable[[pd.DataFrame], None] = lambda table: None,
) -> pd.DataFrame:
    """Run the trials that no other worker has run or runs, until none is left.

    Args:
        config: Which trials.
        root: Of the data set; a packed file spares each trial the reading of the pictures.
        out: Folder for ``sweep.csv`` and ``sweep.md`` (the table), ``sweep.db`` (the study) and
            ``trials/NUMBER/`` (what each training leaves).
        device: Where to train.
        on_trial: Called after each trial of this worker, with the table.

    Returns:
        One row per trial, the best first: trial (its number), the keys of the space, state
        (complete; pruned, also when it diverged; fail when the device had too little memory;
        running; waiting), valid_accuracy (of the best epoch), best_epoch, epochs_run, seconds.

    Raises:
        ConfigError: `out` holds a sweep of other settings or data, or a trial cannot be trained.
        DatasetError: The data set is not as it should be.
        StoreError: `out` cannot be written.
    """
    # Optuna writes its log to stderr of its own accord; so it goes where ours goes.
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
    """The study of the folder, with every trial that is still to be done in its queue."""
    identity = {
        "settings": config.model_dump_json(exclude={"n_trials"}),
        "data": fingerprint(read_data(config.recipe, root, splits=LEARNED_FROM)),
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
                    f"{out} holds a sweep of other {key}: choose another folder with -o"
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
    """What is fixed of each trial before it starts: its point, or nothing if TPE will choose it."""
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
    """Run one trial, if any is left."""
    with contextlib.ExitStack() as held:
        with _queue_lock(out):
            trial = _take(study, out, held)
            if trial is None:
                return False
            # A seed for each trial: a sweep that was stopped goes on as if it had not been.
            study.sampler = TPESampler(seed=config.seed + trial.number)
            for key, values in config.space.items():
                trial.suggest_categorical(key, values)
        _train(trial, config, root, _folder(out, trial.number), device=device)
    return True


def _take(study: optuna.Study, out: Path, held: contextlib.ExitStack) -> optuna.Trial | None:
    """A trial that a worker left behind, else the next that waits; its lock is held."""
    for trial in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if _lock(_folder(out, trial.number), held):
            return optuna.Trial(study, trial._trial_id)  # itself, so that its checkpoint counts
    if not study.get_trials(deepcopy=False, states=[TrialState.WAITING]):
        return None
    next_trial = study.ask()
    _lock(_folder(out, next_trial.number), held)
    return next_trial


def _train(
    trial: optuna.Trial, config: SweepConfig, root: Path, out: Path, *, device: torch.device
) -> None:
    """Train the point of a trial and tell the study how it went."""
    study = trial.study
    for done in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        if done.params == trial.params:  # TPE comes back to good points; they would be as good
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
        data = read_data(recipe, root, splits=LEARNED_FROM)
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
    # Larger than the weights by far, and of no more use.
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
            temporary = out / f".{name}.tmp"
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(out / name)
    return table


def _folder(out: Path, number: int) -> Path:
    return out / "trials" / str(number)


def _queue_lock(out: Path) -> contextlib.AbstractContextManager[object]:
    """Wait until no other worker is looking at the queue, and keep them waiting."""
    return locked(out / ".queue.lock")


def _lock(folder: Path, held: contextlib.ExitStack) -> bool:
    """Lock a trial for as long as the stack lives, unless another worker has."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held.enter_context(locked(folder.with_suffix(".lock"), wait=False))
    except BlockingIOError:
        return False
    return True
