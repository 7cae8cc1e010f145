"""Commands about networks, data sets and trainings, from ``models`` to ``disfa``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_batch.api.progress import showing
from fer_batch.cli.options import (
    Commands,
    add_data,
    add_split,
    dataset_options,
    device_option,
    place,
    whole_number,
)

# Everything else is imported where it is used: --help must not wait for torch and pandas.
if TYPE_CHECKING:
    import pandas as pd

    from fer_batch.training.detector.train import Validation
    from fer_batch.training.log import Epoch


def add_commands(commands: Commands, verbosity: argparse.ArgumentParser) -> None:
    """Add the commands of this module to the parser of ``fer-batch``."""
    models = commands.add_parser(
        "models", parents=[verbosity], help="list the networks, with their size and cost"
    )
    models.add_argument(
        "--classes", type=whole_number(1), default=6, metavar="N", help="number of emotions (6)"
    )
    models.set_defaults(run=_models)

    _add_data(commands, [dataset_options(), verbosity])
    _add_training(commands, [device_option(), verbosity])
    _add_evaluate(commands, [dataset_options(), device_option(), verbosity])

    disfa = commands.add_parser(
        "disfa",
        parents=[verbosity],
        help="compare a run over DISFA's videos with DISFA's action units",
    )
    disfa.add_argument("results", type=place, metavar="OUT", help="output folder of the run")
    disfa.add_argument(
        "--data", required=True, type=Path, metavar="PATH", help="DISFA's root folder"
    )
    disfa.add_argument("-o", "--out", required=True, type=Path, metavar="FILE", help="CSV to write")
    disfa.set_defaults(run=_disfa)


def _add_data(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    data = commands.add_parser(
        "data",
        parents=parents,
        help="count the pictures of a data set, find its duplicates, pack it into one file",
        description="Count the pictures of each emotion and split that a training would use.",
    )
    data.add_argument(
        "--labels",
        choices=("six", "seven", "eight"),
        help="use only six, seven or all eight emotions",
    )
    data.add_argument(
        "--size", type=whole_number(1), default=48, metavar="PX", help="side of the pictures (48)"
    )
    data.add_argument(
        "--pack", type=Path, metavar="FILE", help="write the data set as one .safetensors file"
    )
    data.add_argument(
        "--duplicates",
        type=Path,
        metavar="FILE",
        help="write a CSV file of the pictures that occur in two splits, or in one split with two "
        "emotions; they are then counted too",
    )
    data.set_defaults(run=_data)


def _add_training(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        parents=parents,
        help="train a classifier",
        description="Train a classifier. If it was stopped, the same command continues after the "
        "last complete epoch.",
    )
    add_data(train)
    _add_recipe(train)
    train.set_defaults(run=_train)

    detector = commands.add_parser(
        "train-detector",
        parents=parents,
        help="train a face detector",
        description="Train the face detector glance. If it was stopped, the same command continues "
        "after the last validation.",
    )
    detector.add_argument(
        "--data",
        required=True,
        type=Path,
        metavar="FOLDER",
        help="folder with pictures.csv, boxes.csv, scenes.tar, portraits.tar and backgrounds.tar",
    )
    detector.add_argument(
        "--workers",
        type=whole_number(0),
        default=1,
        metavar="N",
        help="processes that prepare pictures (1)",
    )
    _add_recipe(detector)
    detector.set_defaults(run=_train_detector)

    sweep = commands.add_parser(
        "sweep",
        parents=parents,
        help="train with many settings and compare them",
        description="Train with many settings. If it was stopped, the same command continues. If "
        "it runs several times at once, the runs share the work.",
    )
    add_data(sweep)
    _add_settings_and_out(sweep, "sweep")
    sweep.set_defaults(run=_sweep)


def _add_recipe(command: argparse.ArgumentParser) -> None:
    """Add the options of a training that a recipe describes."""
    command.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change one setting of the recipe; can be repeated",
    )
    command.add_argument("--force", action="store_true", help="start again from the beginning")
    _add_settings_and_out(command, "recipe")


def _add_settings_and_out(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument(
        "--config",
        required=True,
        type=Path,
        metavar="FILE",
        help=f"YAML file of the {what}, or the name of one that comes with fer_batch",
    )
    command.add_argument("-o", "--out", required=True, type=Path, help="folder for the results")


def _add_evaluate(commands: Commands, parents: list[argparse.ArgumentParser]) -> None:
    evaluate = commands.add_parser(
        "evaluate", parents=parents, help="measure how well models recognise labelled pictures"
    )
    evaluate.add_argument(
        "weights", nargs="+", metavar="MODEL", help="default, or a .safetensors file"
    )
    evaluate.add_argument("-o", "--out", required=True, type=Path, help="folder for the results")
    add_split(evaluate)
    evaluate.add_argument(
        "--flip", action="store_true", help="average each picture with its mirror image"
    )
    evaluate.add_argument(
        "--decimals", type=whole_number(1), metavar="N", help="decimals in scores.csv (all)"
    )
    evaluate.set_defaults(run=_evaluate)


def _models(parsed: argparse.Namespace) -> int:
    from fer_batch.models.networks import NETWORKS, describe

    facts = [describe(name, parsed.classes) for name in NETWORKS]
    _print_table(
        ("network", "parameters", "MACs", "MB", "input"),
        (
            (
                each.name,
                f"{each.parameters:,}",
                f"{each.macs:,}",
                f"{each.file_mb:.1f}",
                f"{each.in_channels}x{each.input_size_px}x{each.input_size_px}",
            )
            for each in facts
        ),
    )
    return 0


def _data(parsed: argparse.Namespace) -> int:
    from fer_batch.datasets.inventory import count_pictures, list_duplicates
    from fer_batch.datasets.pictures import load_data, pack

    if parsed.pack:
        pack(parsed.dataset, parsed.data, parsed.pack, size_px=parsed.size)
    data = load_data(
        parsed.dataset,
        parsed.pack or parsed.data,
        size_px=parsed.size,
        labels=parsed.labels,
        drop_duplicates=parsed.duplicates is None,
        allow_missing_classes=True,
    )
    for problem in data.missing_classes:
        print(f"incomplete: {problem}", file=sys.stderr)
    if not parsed.quiet:
        table = count_pictures(data)
        rows = ([str(emotion), *(f"{n:,}" for n in row)] for emotion, *row in table.itertuples())
        _print_table(("emotion", *table.columns), rows)
        for reason, n in data.dropped.items():
            print(f"left out of train: {n:,} {reason}")
    if parsed.duplicates:
        pairs = list_duplicates(data)
        pairs.to_csv(parsed.duplicates, index=False)
        if not parsed.quiet:
            kinds = pairs.value_counts(["split", "other_split", "kind"]).reset_index(name="n")
            for split, other, kind, n in kinds.itertuples(index=False):
                print(f"{kind} pictures in {split} and {other}: {n:,} pairs")
    return 0


def _train(parsed: argparse.Namespace) -> int:
    from fer_batch.models.devices import pick_device
    from fer_batch.training.allocator import reuse_freed_memory
    from fer_batch.training.recipe import load_recipe
    from fer_batch.training.train import fit, read_data

    reuse_freed_memory()
    recipe = load_recipe(parsed.config, parsed.overrides)
    device = pick_device(parsed.device)
    data = read_data(recipe, parsed.data)

    def on_epoch(epoch: Epoch) -> None:
        if not parsed.quiet:
            print(
                f"epoch {epoch.epoch}/{recipe.epochs}: train loss {epoch.train_loss:.4f}, "
                f"valid loss {epoch.valid_loss:.4f}, valid accuracy {epoch.valid_accuracy:.4f}, "
                f"{epoch.seconds:.1f} s",
                flush=True,
            )

    with showing(not parsed.quiet) as show:

        def on_step(epoch: int, share: float) -> None:
            show((epoch - 1 + share) / recipe.epochs, f"epoch {epoch}/{recipe.epochs}")

        path = fit(
            recipe,
            data,
            parsed.out,
            device=device,
            force=parsed.force,
            on_epoch=on_epoch,
            on_step=on_step,
        )
    print(path)
    return 0


def _train_detector(parsed: argparse.Namespace) -> int:
    from fer_batch.datasets.face_boxes import read_face_boxes
    from fer_batch.models.devices import pick_device
    from fer_batch.training.allocator import reuse_freed_memory
    from fer_batch.training.detector.recipe import load_recipe
    from fer_batch.training.detector.train import fit

    reuse_freed_memory()
    recipe = load_recipe(parsed.config, parsed.overrides)
    device = pick_device(parsed.device)
    splits = read_face_boxes(parsed.data)
    with showing(not parsed.quiet) as show:

        def on_step(step: int, validation: Validation | None) -> None:
            show(step / recipe.n_steps, f"step {step:,}/{recipe.n_steps:,}")
            if validation and not parsed.quiet:
                print(
                    f"step {step}/{recipe.n_steps}: score loss {validation.train_score_loss:.4f}, "
                    f"average precision {validation.valid_average_precision:.4f}, "
                    f"recall {validation.valid_recall:.4f}, {validation.valid_wrong} wrong, "
                    f"{validation.seconds:.0f} s",
                    flush=True,
                )

        path = fit(
            recipe,
            splits,
            parsed.out,
            device=device,
            workers=parsed.workers,
            force=parsed.force,
            on_step=on_step,
        )
    print(path)
    return 0


def _sweep(parsed: argparse.Namespace) -> int:
    from fer_batch.models.devices import pick_device
    from fer_batch.training.allocator import reuse_freed_memory
    from fer_batch.training.sweep import load_sweep, sweep

    reuse_freed_memory()
    config = load_sweep(parsed.config)
    device = pick_device(parsed.device)
    with showing(not parsed.quiet) as show:

        def on_trial(table: pd.DataFrame) -> None:
            done = ~table["state"].isin(["running", "waiting"])
            show(float(done.mean()), f"{done.sum()}/{len(done)} trials")

        sweep(config, parsed.data, parsed.out, device=device, on_trial=on_trial)
    if not parsed.quiet:
        print((parsed.out / "sweep.md").read_text(encoding="utf-8"), end="")
    return 0


def _evaluate(parsed: argparse.Namespace) -> int:
    from fer_batch.evaluation import evaluate as evaluation
    from fer_batch.models.card import find_weights
    from fer_batch.models.devices import pick_device

    device = pick_device(parsed.device)
    weights = list(dict.fromkeys(find_weights(name) for name in parsed.weights))
    evaluation.check_names(weights)
    data = evaluation.LabelledSplit(parsed.dataset, parsed.data, parsed.split)
    evaluations = []
    with showing(not parsed.quiet) as show:
        for number, path in enumerate(weights):
            show(number / len(weights), path.stem)
            evaluations.append(
                evaluation.evaluate(
                    path,
                    data,
                    parsed.out,
                    device=device,
                    flip=parsed.flip,
                    decimals=parsed.decimals,
                )
            )
    table = evaluation.compare(evaluations)
    evaluation.write_table(table, parsed.out)
    if not parsed.quiet:
        columns = {name: evaluation.COLUMNS[name] for name in evaluation.MAIN_COLUMNS}
        rows = [
            [form.format(row[name]) for name, (_, form) in columns.items()]
            for row in table.to_dict("records")
        ]
        _print_table([title for title, _ in columns.values()], rows)
        print(f"all columns: {parsed.out}/models.md; each model: {parsed.out}/MODEL/report.md")
    return 0


def _disfa(parsed: argparse.Namespace) -> int:
    from fer_batch.evaluation.action_units import ALL, compare_action_units

    table = compare_action_units(parsed.results, parsed.data)
    table.to_csv(parsed.out, index=False)
    if not parsed.quiet:
        shown = table[table["subject"] == ALL].drop(columns="subject")
        rows = (
            [
                str(camera),
                *(str(value) for value in row[:4]),
                *(f"{value:.2f}" for value in row[4:]),
            ]
            for camera, *row in shown.itertuples(index=False)
        )
        _print_table([name.replace("_", " ") for name in shown.columns], rows)
    return 0


def _print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column is text and whose others are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*titles, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console().print(table)
